//! Where a file is cut into blocks that a later generation may recognise.

use fastcdc::v2020::{FastCDC, Normalization};
use serde::{Deserialize, Serialize};

const KIB: u64 = 1024;
/// The size of fixed blocks, in bytes.
pub const FIXED_BLOCK: u64 = crate::MIB;

/// How a file's content changes between two saves; the engine's adapter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chunking {
    /// Overwritten in place: aligned blocks of 1 MiB.
    Fixed,
    /// Only ever appended to: what an earlier generation holds of it is not read again. Aligned blocks of 1 MiB.
    AppendOnly,
    /// Never written to again, and its name is its content (vLLM's and LMCache's block files): a file of the same name and
    /// size is not read again. Aligned blocks of 1 MiB.
    Immutable,
    /// Rewritten whole with insertions (llama-server's slot file): cut where the content says (FastCDC).
    ContentDefined,
}

/// The cut plan of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    min: u64,
    average: u64,
    max: u64,
}

impl Chunking {
    /// The plan for a file of `size` bytes. Generations that should share blocks need the same plan, so it changes only
    /// at three sizes: small chunks find more (`tests/bench slot` measures how much), large chunks keep the manifest small.
    #[must_use]
    pub fn plan(self, size: u64) -> Cut {
        let average = match (self, size) {
            (Self::Fixed | Self::AppendOnly | Self::Immutable, _) => {
                return Cut { min: FIXED_BLOCK, average: FIXED_BLOCK, max: FIXED_BLOCK };
            }
            (Self::ContentDefined, size) if size <= 64 * crate::MIB => 16 * KIB,
            (Self::ContentDefined, size) if size <= 512 * crate::MIB => 32 * KIB,
            (Self::ContentDefined, size) if size <= 16 * 1024 * crate::MIB => 256 * KIB,
            (Self::ContentDefined, _) => crate::MIB,
        };
        Cut { min: average / 4, average, max: average * 4 }
    }
}

impl Cut {
    /// Whether blocks lie at fixed places.
    #[must_use]
    pub fn is_fixed(self) -> bool {
        self.min == self.max
    }

    /// The longest block, in bytes. [`Cut::first`] needs this much, or the end of the file.
    #[must_use]
    pub fn longest(self) -> usize {
        usize::try_from(self.max).unwrap_or(usize::MAX)
    }

    /// The length of the first block of `bytes`, which hold at least [`Cut::longest`] bytes or all that is left.
    #[must_use]
    pub fn first(self, bytes: &[u8]) -> usize {
        if self.is_fixed() {
            return bytes.len().min(self.longest());
        }
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (min, average, max) = (size(self.min), size(self.average), size(self.max));
        let cutter = FastCDC::with_level(bytes, min, average, max, Normalization::Level1);
        cutter.cut(0, bytes.len()).1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn blocks(chunking: Chunking, bytes: &[u8]) -> Vec<&[u8]> {
        let cut = chunking.plan(bytes.len() as u64);
        let mut rest = bytes;
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            let window = &rest[..rest.len().min(cut.longest())];
            let (block, after) = rest.split_at(cut.first(window));
            assert!(!block.is_empty() && block.len() <= cut.longest());
            blocks.push(block);
            rest = after;
        }
        blocks
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.u8(..)).take(len).collect()
    }

    #[test]
    fn blocks_add_up_to_the_file() {
        for len in [0, 1, 1 << 20, (1 << 20) + 1, 5_000_000] {
            let bytes = noise(len, 1);
            for chunking in [Chunking::Fixed, Chunking::ContentDefined] {
                assert_eq!(blocks(chunking, &bytes).concat(), bytes);
            }
        }
    }

    #[test]
    fn an_insertion_moves_fixed_blocks_but_not_content_defined_ones() {
        let before = noise(8 << 20, 2);
        let after = [&before[..1000], b"inserted", &before[1000..]].concat();
        let new = |chunking| {
            let known: HashSet<_> = blocks(chunking, &before).into_iter().collect();
            blocks(chunking, &after)
                .into_iter()
                .filter(|block| !known.contains(block))
                .map(<[u8]>::len)
                .sum::<usize>()
        };
        assert!(new(Chunking::ContentDefined) < 512 << 10);
        assert!(new(Chunking::Fixed) > 7 << 20);
    }

    #[test]
    fn large_files_have_large_chunks() {
        let average = |size| Chunking::ContentDefined.plan(size).average;
        let averages = [1, 200 << 20, 2 << 30, 20 << 30].map(average);
        assert_eq!(averages, [16 << 10, 32 << 10, 256 << 10, 1 << 20]);
    }
}
