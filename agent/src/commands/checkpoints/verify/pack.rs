//! One pack from its first byte to its last, through a window.

use super::wanted::Piece;
use bytes::Bytes;
use checkpoint::hash::{ContentHash, PackName};
use checkpoint::key::Workload;
use checkpoint::manifest::PACK_MAX;
use checkpoint::retry;
use checkpoint::store::{Store, StoreError};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes per GET. The window holds one of these and the longest extent (16 MiB) besides.
const STEP: u64 = 8 << 20;
/// How long one of them may take, with its retries.
const LIMIT: Duration = Duration::from_secs(180);

/// What a pack turned out to be.
#[derive(Debug, Default)]
pub(super) struct PackRead {
    /// Bytes that were read.
    pub(super) bytes: u64,
    /// There is no such object.
    pub(super) missing: bool,
    /// Why the pack is not what its name says.
    pub(super) wrong: Option<String>,
    /// Pieces whose bytes do not match.
    pub(super) bad: Vec<Piece>,
}

/// Reads all of `pack` and compares every piece.
pub(super) async fn read(
    store: &Store,
    workload: &Workload,
    pack: ContentHash,
    pieces: Vec<Piece>,
) -> Result<PackRead, StoreError> {
    let key = workload.pack(pack);
    let mut window = Window::new(pieces);
    loop {
        let range = window.end..window.end + STEP;
        let got = retry::get_range(store.as_ref(), &key, range, Instant::now() + LIMIT);
        let bytes = match got.await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => {
                let wrong = Some("it is not in the store".to_owned());
                return Ok(PackRead { bytes: window.end, missing: true, wrong, bad: window.everything() });
            }
            Err(error) => return Err(error),
        };
        let last = (bytes.len() as u64) < STEP;
        // Hashing keeps a core busy: not on the threads that wait for the network.
        let worked = tokio::task::spawn_blocking(move || {
            window.take(&bytes);
            window
        });
        window = worked.await.map_err(|error| StoreError::Permanent { message: error.to_string() })?;
        if window.end > PACK_MAX {
            let wrong = Some(format!("it has more than {PACK_MAX} bytes, which no pack has"));
            return Ok(PackRead { bytes: window.end, missing: false, wrong, bad: window.everything() });
        }
        if last {
            return Ok(window.finish(pack));
        }
    }
}

/// A part of the pack that is long enough for every piece that is not compared yet and has begun.
struct Window {
    name: PackName,
    /// The pack is named after its blocks: the blocks that follow one another without a gap end here.
    named: u64,
    /// The bytes from `start` to `end` of the pack.
    bytes: Vec<u8>,
    start: u64,
    end: u64,
    /// Not compared yet, in the order in which they begin.
    pending: Vec<Piece>,
    bad: Vec<Piece>,
}

impl Window {
    fn new(pending: Vec<Piece>) -> Self {
        Self {
            name: PackName::default(),
            named: 0,
            bytes: Vec::new(),
            start: 0,
            end: 0,
            pending,
            bad: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &Bytes) {
        self.bytes.extend_from_slice(bytes);
        self.end += bytes.len() as u64;
        // Nothing that begins beyond the end can be complete; what begins before it has at most 16 MiB.
        let begun = self.pending.partition_point(|piece| piece.extent.pack_offset < self.end);
        let beyond = self.pending.split_off(begun);
        let mut open = Vec::new();
        for piece in std::mem::take(&mut self.pending) {
            let extent = &piece.extent;
            if let Some(block) = extent.blake3.filter(|_| extent.pack_offset == self.named) {
                self.name.block(block, extent.len);
                self.named += extent.len;
            }
            if extent.pack_offset + extent.len > self.end {
                open.push(piece);
            } else if !self.slice(extent.pack_offset, extent.len).is_some_and(|bytes| extent.holds(bytes)) {
                self.bad.push(piece);
            }
        }
        let keep = open.first().map_or(self.end, |piece| piece.extent.pack_offset);
        open.extend(beyond);
        self.pending = open;
        let gone = usize::try_from(keep - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..gone);
        self.start = keep;
    }

    fn slice(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(usize::try_from(len).ok()?)?)
    }

    fn everything(mut self) -> Vec<Piece> {
        self.bad.append(&mut self.pending);
        self.bad
    }

    fn finish(self, pack: ContentHash) -> PackRead {
        let bytes = self.end;
        let short = self.pending.iter().map(|piece| piece.extent.pack_offset + piece.extent.len).max();
        // Its name can be checked if the generations that were read name all of its blocks.
        let other = self.named == bytes && self.name.finish() != pack;
        let wrong = match short {
            Some(needed) => {
                Some(format!("it has {bytes} bytes, of which {needed} are needed: it was cut short"))
            }
            None if other || !self.bad.is_empty() => {
                Some(format!("its {bytes} bytes are not the ones it is named after"))
            }
            None => None,
        };
        PackRead { bytes, missing: false, wrong, bad: self.everything() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoint::hash::Crc64;
    use checkpoint::manifest::Extent;

    fn piece(bytes: &[u8], from: usize, len: usize) -> Piece {
        let part = &bytes[from..from + len];
        let extent = Extent {
            offset: 0,
            len: len as u64,
            pack: ContentHash::of(bytes),
            pack_offset: from as u64,
            crc64: Crc64::of(part),
            blake3: Some(ContentHash::of(part)),
        };
        Piece { extent, users: vec![0] }
    }

    fn through(bytes: &[u8], pieces: Vec<Piece>, step: usize) -> (Window, usize) {
        let (mut window, mut most) = (Window::new(pieces), 0);
        for chunk in bytes.chunks(step) {
            window.take(&Bytes::copy_from_slice(chunk));
            most = most.max(window.bytes.len());
        }
        (window, most)
    }

    #[test]
    fn pieces_that_overlap_and_span_steps_are_compared_and_the_window_stays_small() {
        let bytes: Vec<u8> = (0..10_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let pieces = vec![
            piece(&bytes, 0, 10),
            piece(&bytes, 5, 3_000),
            piece(&bytes, 7, 20),
            piece(&bytes, 39_000, 1_000),
        ];
        let (window, most) = through(&bytes, pieces, 1_024);
        let read = window.finish(ContentHash::of(&bytes));
        assert_eq!((read.bytes, read.wrong, read.bad.len()), (40_000, None, 0));
        assert!(most <= 3_005 + 1_024, "{most} bytes were kept");
    }

    #[test]
    fn a_piece_whose_bytes_are_others_is_found_and_so_is_one_that_is_not_there() {
        let mut bytes = vec![7_u8; 4_096];
        let pieces = vec![piece(&bytes, 0, 100), piece(&bytes, 100, 100), piece(&bytes, 4_000, 96)];
        let name = ContentHash::of(&bytes);
        bytes[150] ^= 1;
        bytes.truncate(4_050);
        let (window, _) = through(&bytes, pieces, 64);
        let read = window.finish(name);
        let bad: Vec<u64> = read.bad.iter().map(|piece| piece.extent.pack_offset).collect();
        assert_eq!(bad, [100, 4_000]);
        assert!(read.wrong.unwrap().contains("4050 bytes, of which 4096"));
    }
}
