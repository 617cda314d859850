//! The extents of one run, as their bytes arrive.
//!
//! Bytes are written where they belong at once, into the staging folder, and summed while they are in the cache. An extent
//! counts when its last byte has come and both of its checksums are right; one that is wrong, or was cut off, is asked for
//! again, and only that.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;

use crate::{hash::Crc64Sum, manifest::Extent};

/// An extent and the staged file that it belongs to.
pub(super) struct Piece {
    path: Arc<str>,
    file: Arc<File>,
    extent: Extent,
    /// Bytes of it that were taken.
    taken: u64,
    crc64: Crc64Sum,
    /// Two KiB, and so only while its bytes arrive.
    blake3: Option<Box<blake3::Hasher>>,
    standing: RunState,
}

/// How a piece stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunState {
    Missing,
    Whole,
    Damaged,
}

/// The pieces of one range of a pack, by their place in it.
pub(super) struct Assembly {
    pieces: Vec<Piece>,
    /// The place in the pack of the next byte that arrives.
    at: u64,
}

/// What is wrong with a piece.
pub(super) struct Wrong {
    pub(super) path: Arc<str>,
    pub(super) what: String,
}

impl Piece {
    pub(super) fn new(path: Arc<str>, file: Arc<File>, extent: Extent) -> Self {
        let (crc64, standing) = (Crc64Sum::default(), RunState::Missing);
        Self { path, file, extent, taken: 0, crc64, blake3: None, standing }
    }

    fn again(&mut self) {
        self.taken = 0;
        self.crc64 = Crc64Sum::default();
        self.blake3 = None;
        self.standing = RunState::Missing;
    }

    fn end(&self) -> u64 {
        self.extent.pack_offset + self.extent.len
    }

    /// Takes what of `bytes`, which lie at `at` in the pack, is the next of this piece.
    fn take(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let next = self.extent.pack_offset + self.taken;
        let ends = self.end().min(at + bytes.len() as u64);
        if self.standing != RunState::Missing || next < at || next >= ends {
            return Ok(());
        }
        let part =
            |from: u64, to: u64| Some(usize::try_from(from - at).ok()?..usize::try_from(to - at).ok()?);
        let Some(part) = part(next, ends).and_then(|part| bytes.get(part)) else { return Ok(()) };
        self.file.write_all_at(part, self.extent.offset + self.taken)?;
        self.crc64.update(part);
        if self.extent.blake3.is_some() {
            self.blake3.get_or_insert_default().update(part);
        }
        self.taken += part.len() as u64;
        if self.taken == self.extent.len {
            let named = self
                .blake3
                .take()
                .is_none_or(|hasher| self.extent.blake3.is_some_and(|name| name.is(&hasher.finalize())));
            let right = named && self.crc64.finish() == self.extent.crc64;
            self.standing = if right { RunState::Whole } else { RunState::Damaged };
        }
        Ok(())
    }
}

impl Assembly {
    /// `pieces` in any order.
    pub(super) fn new(mut pieces: Vec<Piece>) -> Self {
        pieces.sort_by_key(|piece| (piece.extent.pack_offset, piece.extent.len));
        Self { pieces, at: 0 }
    }

    /// The range of the pack that holds all that is missing; everything in it will be taken from its beginning.
    pub(super) fn begin(&mut self) -> Option<Range<u64>> {
        let missing = self.pieces.iter_mut().filter(|piece| piece.standing != RunState::Whole);
        let mut range: Option<Range<u64>> = None;
        for piece in missing {
            piece.again();
            let (start, end) = (piece.extent.pack_offset, piece.end());
            range = Some(range.map_or(start..end, |range| range.start.min(start)..range.end.max(end)));
        }
        self.at = range.as_ref().map_or(0, |range| range.start);
        range
    }

    /// Takes the next bytes; returns how many bytes of extents became whole.
    pub(super) fn take(&mut self, frames: &[Bytes]) -> io::Result<u64> {
        let mut whole = 0;
        for frame in frames {
            let end = self.at + frame.len() as u64;
            for piece in self.pieces.iter_mut().take_while(|piece| piece.extent.pack_offset < end) {
                let before = piece.standing;
                piece.take(self.at, frame)?;
                if before != piece.standing && piece.standing == RunState::Whole {
                    whole += piece.extent.len;
                }
            }
            self.at = end;
        }
        Ok(whole)
    }

    /// After the last byte: what is wrong with the first piece that is not whole.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        let piece = self.pieces.iter().find(|piece| piece.standing != RunState::Whole)?;
        let Extent { offset, len, .. } = piece.extent;
        let what = match piece.standing {
            RunState::Damaged => format!("bytes {offset}..{} do not match their checksum", offset + len),
            _ => format!("the pack ends at byte {}, {} are needed", self.at, piece.end()),
        };
        Some(Wrong { path: Arc::clone(&piece.path), what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::noise,
        hash::{ContentHash, Crc64},
    };

    /// Pieces of `pack` at these places, into one file, one behind the other.
    fn assembly(pack: &[u8], places: &[Range<usize>]) -> (Assembly, Arc<File>) {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut offset = 0;
        let pieces = places.iter().map(|place| {
            let bytes = &pack[place.clone()];
            let extent = Extent {
                offset,
                len: bytes.len() as u64,
                pack: ContentHash::of(pack),
                pack_offset: place.start as u64,
                crc64: Crc64::of(bytes),
                blake3: Some(ContentHash::of(bytes)),
            };
            offset += extent.len;
            Piece::new("f".into(), Arc::clone(&file), extent)
        });
        (Assembly::new(pieces.collect()), file)
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn frames(bytes: &[u8], step: usize) -> Vec<Bytes> {
        bytes.chunks(step).map(Bytes::copy_from_slice).collect()
    }

    #[test]
    fn pieces_that_overlap_repeat_and_span_frames_are_put_together() {
        let pack = noise(10_000, 1);
        let places = [0..4000, 100..200, 100..200, 3999..10_000, 9_990..9_991];
        for step in [1, 7, 1000, 20_000] {
            let (mut assembly, file) = assembly(&pack, &places);
            assert_eq!(assembly.begin(), Some(0..10_000));
            let whole = assembly.take(&frames(&pack, step)).unwrap();
            assert!(assembly.wrong().is_none());
            assert_eq!(whole, 4000 + 100 + 100 + 6001 + 1);
            let expected: Vec<u8> = places.iter().flat_map(|place| pack[place.clone()].to_vec()).collect();
            assert!(content(&file) == expected);
            assert_eq!(assembly.begin(), None);
        }
    }

    #[test]
    fn what_was_cut_off_or_damaged_is_asked_for_again_and_only_that() {
        let pack = noise(9000, 2);
        let (mut assembly, file) = assembly(&pack, &[0..3000, 3000..6000, 6000..9000]);
        assembly.begin();
        let mut sent = pack[..7000].to_vec();
        sent[4000] ^= 1;
        assert_eq!(assembly.take(&frames(&sent, 512)).unwrap(), 3000);
        assert!(assembly.wrong().unwrap().what.contains("do not match"));
        assert_eq!(assembly.begin(), Some(3000..9000));
        assert_eq!(assembly.take(&frames(&pack[3000..8000], 512)).unwrap(), 3000);
        assert!(assembly.wrong().unwrap().what.contains("ends at byte 8000, 9000 are needed"));
        assert_eq!(assembly.begin(), Some(6000..9000));
        assert_eq!(assembly.take(&frames(&pack[6000..], 512)).unwrap(), 3000);
        assert!(assembly.wrong().is_none() && content(&file) == pack);
    }
}
