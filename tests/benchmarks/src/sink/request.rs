//! One HTTP/1.1 request after the other, out of the pieces in which they arrive.

use std::io;

use super::body::{Body, Framing, Payload};

/// A head longer than this is no S3 client's.
const HEAD_MAX: usize = 64 * 1024;

/// A request that arrived whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) payload: Payload,
}

/// Request line and headers.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    /// Percent-decoded, without the slash in front: `bucket/key`.
    pub(super) path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

/// Takes pieces in, gives requests out.
#[derive(Debug)]
pub(super) struct Parser {
    keep: bool,
    /// Bytes of the next head, or of what follows a whole request.
    pending: Vec<u8>,
    stage: Stage,
    failure: Option<io::Error>,
    /// The client waits for leave to send its body.
    pub(super) continue_asked: bool,
}

#[derive(Debug)]
enum Stage {
    Head,
    Body(Head, Body),
    Whole(Request),
}

impl Parser {
    pub(super) fn new(keep: bool) -> Self {
        Self { keep, pending: Vec::new(), stage: Stage::Head, failure: None, continue_asked: false }
    }

    /// Takes the next piece of the connection.
    pub(super) fn take(&mut self, piece: &[u8]) {
        let rest = match &mut self.stage {
            Stage::Body(_, body) => {
                let used = body.take(piece).unwrap_or_else(|error| {
                    self.failure = Some(error);
                    piece.len()
                });
                self.end_of_body();
                &piece[used..]
            }
            _ => piece,
        };
        if !rest.is_empty() {
            self.pending.extend_from_slice(rest);
            self.head();
        }
    }

    /// The request, once it is whole.
    pub(super) fn request(&mut self) -> io::Result<Option<Request>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match std::mem::replace(&mut self.stage, Stage::Head) {
            Stage::Whole(request) => {
                self.head();
                Ok(Some(request))
            }
            other => {
                self.stage = other;
                Ok(None)
            }
        }
    }

    /// Whether a request has begun.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Body(..))
    }

    fn head(&mut self) {
        if !matches!(self.stage, Stage::Head) {
            return;
        }
        let Some(end) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") else {
            if self.pending.len() > HEAD_MAX {
                self.failure = Some(io::Error::other("the head of a request does not end"));
            }
            return;
        };
        let rest = self.pending.split_off(end + 4);
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        match Head::parse(&text).and_then(|head| Ok((Framing::of(&head)?, head))) {
            Ok((framing, head)) => {
                self.continue_asked = head.header("expect").is_some_and(|expect| expect.starts_with("100"));
                self.stage = Stage::Body(head, Body::new(framing, self.keep));
                self.end_of_body();
                self.take(&rest);
            }
            Err(error) => self.failure = Some(error),
        }
    }

    fn end_of_body(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Head) {
            Stage::Body(head, body) if body.is_whole() => {
                self.continue_asked = false;
                Stage::Whole(Request { head, payload: body.into_payload() })
            }
            other => other,
        };
    }
}

impl Head {
    fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target)) = (first.next(), first.next()) else {
            return Err(io::Error::other("not a request line"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(Self {
            method: method.to_owned(),
            path: decoded(path.trim_start_matches('/')),
            query: query.split('&').filter(|text| !text.is_empty()).map(pair).collect(),
            headers: lines.filter_map(header).collect(),
        })
    }

    /// The value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a query parameter; empty if it has none.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Bucket and key; either may be empty.
    pub(super) fn place(&self) -> (&str, &str) {
        self.path.split_once('/').unwrap_or((&self.path, ""))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
