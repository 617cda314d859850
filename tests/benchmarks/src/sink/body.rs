//! A request's body: how long it is, and what is left of it.

use std::io;

use super::{SMALL, request::Head};

/// How a body ends.
#[derive(Debug)]
pub(super) struct Framing {
    /// Bytes, unless it comes in chunks.
    length: Option<u64>,
    /// The body itself is in chunks of S3's (`aws-chunked`), with signatures or trailers that nobody looks at.
    aws_chunked: bool,
    /// Bytes in it, if that is known.
    payload: Option<u64>,
}

/// What a body held.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// Bytes.
    pub(super) size: u64,
    /// The bytes themselves, if they are kept.
    pub(super) bytes: Option<Vec<u8>>,
}

/// A body that arrives.
#[derive(Debug)]
pub(super) struct Body {
    left: Option<u64>,
    chunks: Option<Chunks>,
    aws_chunks: Option<Chunks>,
    payload: Payload,
}

impl Framing {
    pub(super) fn of(head: &Head) -> io::Result<Self> {
        let number = |name: &str| match head.header(name) {
            Some(text) => text.parse().map(Some).map_err(|_| io::Error::other(format!("{name}: {text:?}"))),
            None => Ok(None),
        };
        let names = |name: &str, part: &str| head.header(name).is_some_and(|value| value.contains(part));
        let length = match names("transfer-encoding", "chunked") {
            true => None,
            false => Some(number("content-length")?.unwrap_or(0)),
        };
        let aws_chunked =
            names("content-encoding", "aws-chunked") || names("x-amz-content-sha256", "STREAMING-");
        let payload = if aws_chunked { number("x-amz-decoded-content-length")? } else { length };
        Ok(Self { length, aws_chunked, payload })
    }
}

impl Body {
    pub(super) fn new(framing: Framing, keep: bool) -> Self {
        let keep = keep || framing.payload.is_some_and(|size| size < SMALL);
        let room = usize::try_from(framing.payload.unwrap_or(0)).unwrap_or(0);
        Self {
            left: framing.length,
            chunks: framing.length.is_none().then(Chunks::default),
            aws_chunks: framing.aws_chunked.then(Chunks::default),
            payload: Payload { size: 0, bytes: keep.then(|| Vec::with_capacity(room)) },
        }
    }

    /// Takes what belongs to the body from the front of `piece`, and says how much that was.
    pub(super) fn take(&mut self, piece: &[u8]) -> io::Result<usize> {
        let Self { left, chunks, aws_chunks, payload } = self;
        let mut inner = |bytes: &[u8]| match aws_chunks {
            Some(chunks) => chunks.take(bytes, &mut |bytes| payload.add(bytes)).map(drop),
            None => {
                payload.add(bytes);
                Ok(())
            }
        };
        match (left, chunks) {
            (Some(left), _) => {
                let count = piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                inner(&piece[..count])?;
                *left -= count as u64;
                Ok(count)
            }
            (None, Some(chunks)) => {
                let mut failure = Ok(());
                let used = chunks.take(piece, &mut |bytes| {
                    if failure.is_ok() {
                        failure = inner(bytes);
                    }
                })?;
                failure.map(|()| used)
            }
            (None, None) => Ok(0),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        match (&self.left, &self.chunks) {
            (Some(left), _) => *left == 0,
            (None, Some(chunks)) => matches!(chunks, Chunks::End),
            (None, None) => true,
        }
    }

    pub(super) fn into_payload(self) -> Payload {
        self.payload
    }
}

impl Payload {
    fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(kept) = &mut self.bytes {
            kept.extend_from_slice(bytes);
        }
    }
}

/// Chunks with a hexadecimal size in front: HTTP's own, and S3's, which look the same.
#[derive(Debug)]
enum Chunks {
    /// In a line with a size.
    Size(Vec<u8>),
    /// In a chunk, with so many bytes to come.
    Data(u64),
    /// In the line end behind a chunk.
    AfterData,
    /// In a trailer line.
    Trailer(Vec<u8>),
    End,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size(Vec::new())
    }
}

impl Chunks {
    /// Hands the content of `piece` to `content`, and says how many bytes were used.
    fn take(&mut self, piece: &[u8], content: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            match self {
                Self::End => break,
                Self::Data(left) => {
                    let count = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    content(&rest[..count]);
                    *left -= count as u64;
                    rest = &rest[count..];
                    if *left == 0 {
                        *self = Self::AfterData;
                    }
                }
                Self::AfterData => {
                    rest = after;
                    if byte == b'\n' {
                        *self = Self::default();
                    }
                }
                Self::Size(line) | Self::Trailer(line) if byte != b'\n' => {
                    line.push(byte);
                    rest = after;
                }
                Self::Size(line) => {
                    rest = after;
                    let text = String::from_utf8_lossy(line);
                    let digits = text.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(digits, 16)
                        .map_err(|_| io::Error::other(format!("not the size of a chunk: {digits:?}")))?;
                    *self = if size == 0 { Self::Trailer(Vec::new()) } else { Self::Data(size) };
                }
                Self::Trailer(line) => {
                    rest = after;
                    let last = line.is_empty() || line == b"\r";
                    *self = if last { Self::End } else { Self::Trailer(Vec::new()) };
                }
            }
        }
        Ok(piece.len() - rest.len())
    }
}
