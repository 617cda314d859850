//! A wire that misbehaves: plain HTTP between the client and the real server, one upstream connection per client's.
//!
//! ```text
//!   client ──► head ──► [Head] ──► body, 1st half ──► [Body] ──► 2nd half ──► server
//!          ◄──────────────────◄── [AnswerBody] ◄──── answer ◄── [Answer] ◄────
//! ```
//!
//! Bytes are passed on as they are, or the signature would not hold. Where a connection is broken it is broken as a
//! network does it: with a reset, in the middle.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// The longest head of a request or an answer, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// How many headers one may have.
const HEADERS_MAX: usize = 64;

/// A request as the proxy sees it.
#[derive(Debug)]
pub struct Seen {
    /// Counts from 0 over all connections.
    pub nth: u64,
    pub method: String,
    /// With the query.
    pub path: String,
    /// The access key that it is signed with.
    pub key: String,
}

/// A moment in the life of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The server knows nothing of it.
    Head,
    /// The server has half of its body.
    Body,
    /// It was carried out, and nothing of the answer is on its way back.
    Answer,
    /// Half of the answer's body is.
    AnswerBody,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Fate {
    Pass,
    /// Answered here, with that status and S3's own error code; the server does not see it.
    Refuse(u16, &'static str),
    /// The connection is reset.
    Reset(Moment),
    /// Nothing moves for that long.
    Stall(Moment, Duration),
    /// Nothing moves until it is told to.
    Hold(Moment, watch::Receiver<bool>),
}

/// What passed.
#[derive(Debug, Default)]
pub struct Traffic {
    requests: AtomicU64,
    bytes: AtomicU64,
    faults: AtomicU64,
}

impl Traffic {
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Of bodies, in both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }
}

/// What is added to the times in an answer, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    pub date: i64,
    pub last_modified: i64,
}

type Decide = dyn Fn(&Seen) -> Fate + Send + Sync;

/// Listens on loopback until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    traffic: Arc<Traffic>,
    cut: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

struct Wire {
    upstream: String,
    decide: Box<Decide>,
    /// Called before a connection is reset on purpose.
    on_reset: Box<dyn Fn() + Send + Sync>,
    clock: Clock,
    traffic: Arc<Traffic>,
}

impl Proxy {
    /// In front of the server at `upstream` (a URL). `decide` says what becomes of each request.
    pub async fn new(upstream: &str, decide: impl Fn(&Seen) -> Fate + Send + Sync + 'static) -> Self {
        Self::start(upstream, Box::new(decide), Box::new(|| {}), Clock::default()).await
    }

    /// `on_reset` is called at the very moment at which a connection is about to be reset.
    pub async fn striking(
        upstream: &str,
        decide: impl Fn(&Seen) -> Fate + Send + Sync + 'static,
        on_reset: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self::start(upstream, Box::new(decide), Box::new(on_reset), Clock::default()).await
    }

    /// The server's clock is wrong.
    pub async fn with_wrong_clock(upstream: &str, clock: Clock) -> Self {
        Self::start(upstream, Box::new(|_| Fate::Pass), Box::new(|| {}), clock).await
    }

    async fn start(
        upstream: &str,
        decide: Box<Decide>,
        on_reset: Box<dyn Fn() + Send + Sync>,
        clock: Clock,
    ) -> Self {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let traffic = Arc::new(Traffic::default());
        let wire = Arc::new(Wire { upstream, decide, on_reset, clock, traffic: Arc::clone(&traffic) });
        let (cut, is_cut) = watch::channel(false);
        let listening = tokio::spawn(async move {
            // Aborted with this task.
            let mut connections = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let (wire, mut is_cut) = (Arc::clone(&wire), is_cut.clone());
                connections.spawn(async move {
                    tokio::select! {
                        // Either side may go away at any time.
                        _ = wire.serve(client) => {}
                        _ = is_cut.wait_for(|cut| *cut) => {}
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, traffic, cut, listening }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether the client is cut off from the server: connections that there are break, new ones do not come about.
    pub fn partition(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Wire {
    async fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(&self.upstream).await?;
        server.set_nodelay(true)?;
        let (mut client, mut server) = (Line::new(client), Line::new(server));
        loop {
            let Some(head) = client.head().await? else { return Ok(()) };
            let (mut seen, length) = request(&head)?;
            seen.nth = self.traffic.requests.fetch_add(1, Relaxed);
            let fate = (self.decide)(&seen);
            if !matches!(fate, Fate::Pass) {
                self.traffic.faults.fetch_add(1, Relaxed);
            }
            if let Fate::Refuse(status, code) = &fate {
                // S3 reads what was sent before it answers.
                client.pass(length, None, &self.traffic).await?;
                client.stream.write_all(refusal(*status, code).as_bytes()).await?;
                continue;
            }
            self.moment(&fate, Moment::Head, &mut client).await?;
            server.stream.write_all(&head).await?;
            client.pass(length / 2, Some(&mut server), &self.traffic).await?;
            self.moment(&fate, Moment::Body, &mut client).await?;
            client.pass(length - length / 2, Some(&mut server), &self.traffic).await?;

            let head = server.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.moment(&fate, Moment::Answer, &mut client).await?;
            let (head, length) = self.answer(&head)?;
            client.stream.write_all(&head).await?;
            server.pass(length / 2, Some(&mut client), &self.traffic).await?;
            self.moment(&fate, Moment::AnswerBody, &mut client).await?;
            server.pass(length - length / 2, Some(&mut client), &self.traffic).await?;
        }
    }

    async fn moment(&self, fate: &Fate, now: Moment, client: &mut Line) -> io::Result<()> {
        match fate {
            Fate::Reset(moment) if *moment == now => {
                (self.on_reset)();
                client.stream.set_zero_linger()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Fate::Stall(moment, time) if *moment == now => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Fate::Hold(moment, released) if *moment == now => {
                let _ = released.clone().wait_for(|released| *released).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The head of an answer as it is passed on, and the length of its body.
    fn answer(&self, head: &[u8]) -> io::Result<(Vec<u8>, u64)> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        answer.parse(head).map_err(io::Error::other)?;
        let length = match answer.code {
            Some(204 | 304) => 0,
            _ => length(answer.headers)?,
        };
        let mut text = std::str::from_utf8(head).map_err(io::Error::other)?.to_owned();
        for (name, seconds) in [("date", self.clock.date), ("last-modified", self.clock.last_modified)] {
            let Some(header) = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))
            else {
                continue;
            };
            let shown = std::str::from_utf8(header.value).map_err(io::Error::other)?;
            text = text.replacen(
                &format!("{}: {shown}", header.name),
                &shifted(header.name, shown, seconds)?,
                1,
            );
        }
        Ok((text.into_bytes(), length))
    }
}

/// A header with another time in it.
fn shifted(name: &str, shown: &str, seconds: i64) -> io::Result<String> {
    let time = jiff::fmt::rfc2822::parse(shown).map_err(io::Error::other)?.timestamp();
    let time = time + jiff::SignedDuration::from_secs(seconds);
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    Ok(format!("{name}: {}", printer.timestamp_to_rfc9110_string(&time).map_err(io::Error::other)?))
}

fn request(head: &[u8]) -> io::Result<(Seen, u64)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).map_err(io::Error::other)?;
    let body = match request.method {
        Some("GET" | "HEAD") => 0,
        _ => length(request.headers)?,
    };
    let signed = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("authorization"));
    let signed = signed.map(|header| String::from_utf8_lossy(header.value).into_owned()).unwrap_or_default();
    // AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/s3/aws4_request, ...
    let key = signed.split_once("Credential=").and_then(|(_, rest)| rest.split_once('/'));
    let seen = Seen {
        nth: 0,
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        key: key.map(|(key, _)| key.to_owned()).unwrap_or_default(),
    };
    Ok((seen, body))
}

/// Neither this client nor this server sends a body whose length it does not know.
fn length(headers: &[httparse::Header<'_>]) -> io::Result<u64> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let text = header.and_then(|header| std::str::from_utf8(header.value).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("a body without a Content-Length"))
}

fn refusal(status: u16, code: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>"
    );
    let length = body.len();
    format!(
        "HTTP/1.1 {status} On Purpose\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// One side's connection, with what was read from it and not yet used.
struct Line {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The next head, to its empty line; `None` if the connection ends before it.
    async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.ahead.split_off(end + 4);
                return Ok(Some(std::mem::replace(&mut self.ahead, rest)));
            }
            if self.ahead.len() > HEAD_MAX {
                return Err(io::Error::other("a head that does not end"));
            }
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Passes on `length` bytes of a body, or throws them away.
    async fn pass(
        &mut self,
        mut length: u64,
        mut to: Option<&mut Line>,
        traffic: &Traffic,
    ) -> io::Result<()> {
        while length > 0 {
            if self.ahead.is_empty() {
                self.ahead.reserve(64 * 1024);
                if self.stream.read_buf(&mut self.ahead).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let count = self.ahead.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            if let Some(to) = &mut to {
                to.stream.write_all(&self.ahead[..count]).await?;
            }
            self.ahead.drain(..count);
            traffic.bytes.fetch_add(count as u64, Relaxed);
            length -= count as u64;
        }
        Ok(())
    }
}
