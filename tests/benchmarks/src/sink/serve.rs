//! One connection: requests in, answers out, everything counted.

use std::{
    io,
    net::TcpStream,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use jiff::Timestamp;
use rustls::ServerConfig;

use super::{
    answer::{Answer, Content, answer, http_date},
    objects::Objects,
    request::{Parser, Request},
};
use crate::wire::Wire;

/// Where the counts are asked for; with `?reset` they begin anew after the answer.
const COUNTS: &str = "__counts";

/// What arrived and what was sent, over all connections. Requests for the counts are not counted.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

impl Counts {
    fn begin(&self) {
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.in_flight_max.fetch_max(now, Relaxed);
    }

    fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    fn read(&self, reset: bool) -> String {
        let read = |count: &AtomicU64| if reset { count.swap(0, Relaxed) } else { count.load(Relaxed) };
        serde_json::json!({
            "requests": read(&self.requests), "failed": read(&self.failed),
            "bytes_in": read(&self.bytes_in), "bytes_out": read(&self.bytes_out),
            "in_flight_max": read(&self.in_flight_max),
        })
        .to_string()
    }
}

/// Counts one request while it is under way, however it ends.
struct Under<'a>(&'a Counts);

impl<'a> Under<'a> {
    fn way(counts: &'a Counts) -> Self {
        counts.begin();
        Self(counts)
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Serves a connection to its end.
pub(super) fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    objects: &Objects,
    counts: &Counts,
) -> io::Result<()> {
    let mut wire = Wire::new(stream, tls)?;
    let mut parser = Parser::new(objects.keep);
    let mut under_way = None;
    loop {
        while let Some(request) = parser.request()? {
            respond(&mut wire, objects, counts, request, under_way.take())?;
        }
        if parser.is_under_way() && under_way.is_none() {
            under_way = Some(Under::way(counts));
        }
        if std::mem::take(&mut parser.continue_asked) {
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if !wire.receive(&mut |piece| parser.take(piece))? {
            return Ok(());
        }
    }
}

fn respond(
    wire: &mut Wire,
    objects: &Objects,
    counts: &Counts,
    request: Request,
    under_way: Option<Under<'_>>,
) -> io::Result<()> {
    if request.head.path == COUNTS {
        let content = Content::Text(counts.read(request.head.query("reset").is_some()));
        return send(wire, &Answer { status: "200 OK", headers: String::new(), content }, None);
    }
    let under_way = under_way.unwrap_or_else(|| Under::way(counts));
    counts.requests.fetch_add(1, Relaxed);
    counts.bytes_in.fetch_add(request.payload.size, Relaxed);
    let answer = answer(objects, request);
    if answer.status.starts_with(['4', '5']) {
        counts.failed.fetch_add(1, Relaxed);
    }
    if let Content::Bytes(_, range) = &answer.content {
        counts.bytes_out.fetch_add(range.end - range.start, Relaxed);
    }
    send(wire, &answer, Some(under_way))
}

/// Sends an answer. Its request is over when the last bytes go out: once the client has them, its next one may be here
/// before this thread goes on.
fn send(wire: &mut Wire, answer: &Answer, under_way: Option<Under<'_>>) -> io::Result<()> {
    let length = match &answer.content {
        Content::Text(text) => text.len() as u64,
        Content::Length(length) => *length,
        Content::Bytes(_, range) => range.end - range.start,
    };
    let Answer { status, headers, content } = answer;
    let date = http_date(Timestamp::now());
    let mut head = format!(
        "HTTP/1.1 {status}\r\nDate: {date}\r\nServer: sink\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    let mut pieces = Vec::new();
    match content {
        Content::Text(text) => head.push_str(text),
        Content::Length(_) => {}
        Content::Bytes(all, range) => pieces = within(all, range).collect(),
    }
    let last = pieces.pop();
    if last.is_some() {
        wire.send(head.as_bytes())?;
        pieces.into_iter().try_for_each(|piece| wire.send(piece))?;
    }
    drop(under_way);
    wire.send(last.unwrap_or(head.as_bytes()))
}

/// The parts of `pieces`, laid end to end, that lie in `range`; none is empty.
fn within<'a>(pieces: &'a [Arc<Vec<u8>>], range: &'a Range<u64>) -> impl Iterator<Item = &'a [u8]> {
    let mut offset = 0;
    let parts = pieces.iter().map(move |piece| {
        let at =
            |place: u64| usize::try_from(place.saturating_sub(offset)).unwrap_or(usize::MAX).min(piece.len());
        let (from, to) = (at(range.start), at(range.end));
        offset += piece.len() as u64;
        &piece[from..to]
    });
    parts.filter(|part| !part.is_empty())
}
