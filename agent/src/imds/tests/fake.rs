//! A small IMDS: tokens, documents, and what is asked of it.

use super::super::*;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(super) const LIFE_CYCLE: &str = "instance-life-cycle";
pub(super) const INTERRUPTION: &str = "spot/instance-action";
pub(super) const REBALANCE: &str = "events/recommendations/rebalance";
pub(super) const MAINTENANCE: &str = "events/maintenance/scheduled";

/// One answer.
#[derive(Clone)]
pub(super) enum Reply {
    With { status: u16, body: String, date: Option<&'static str> },
    Hang,
}

impl Reply {
    pub(super) fn ok(body: &str) -> Self {
        Reply::With { status: 200, body: body.to_owned(), date: None }
    }

    pub(super) fn status(status: u16) -> Self {
        // With a body, as IMDS gives one: it has to be read for the connection to be kept.
        Reply::With { status, body: format!("<html>{status}</html>"), date: None }
    }

    pub(super) fn dated(self, date: &'static str) -> Self {
        match self {
            Reply::With { status, body, .. } => Reply::With { status, body, date: Some(date) },
            Reply::Hang => Reply::Hang,
        }
    }
}

#[derive(Default)]
struct Inner {
    replies: Mutex<BTreeMap<String, Reply>>,
    once: Mutex<BTreeMap<String, VecDeque<Reply>>>,
    calls: Mutex<Vec<String>>,
    tokens: Mutex<BTreeSet<String>>,
    granted: AtomicUsize,
    ttl: AtomicUsize,
    connections: AtomicUsize,
}

pub(super) struct Fake {
    inner: Arc<Inner>,
    addr: SocketAddr,
}

/// A port that is ours and not listened on yet.
pub(super) struct Reserved(TcpSocket);

impl Reserved {
    pub(super) async fn listen(self) -> Fake {
        Fake::serve(self.0.listen(64).unwrap())
    }
}

/// Counts what is accepted.
struct Counting(TcpListener, Arc<Inner>);

impl axum::serve::Listener for Counting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = self.0.accept().await.unwrap();
        self.1.connections.fetch_add(1, Ordering::SeqCst);
        accepted
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Fake {
    pub(super) async fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) async fn reserved() -> (Reserved, u16) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        (Reserved(socket), port)
    }

    fn serve(listener: TcpListener) -> Self {
        let inner = Arc::new(Inner::default());
        inner.ttl.store(21_600, Ordering::SeqCst);
        let addr = listener.local_addr().unwrap();
        let answering = Arc::clone(&inner);
        let router =
            axum::Router::new().fallback(move |request: Request| answer(Arc::clone(&answering), request));
        let listener = Counting(listener, Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, addr }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(super) fn set(&self, document: &str, reply: Reply) {
        self.inner.replies.lock().unwrap().insert(document.to_owned(), reply);
    }

    /// The next answer only.
    pub(super) fn once(&self, document: &str, reply: Reply) {
        self.inner.once.lock().unwrap().entry(document.to_owned()).or_default().push_back(reply);
    }

    /// Tokens live this many seconds.
    pub(super) fn grant(&self, seconds: usize) {
        self.inner.ttl.store(seconds, Ordering::SeqCst);
    }

    pub(super) fn forget_tokens(&self) {
        self.inner.tokens.lock().unwrap().clear();
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.inner.calls.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::SeqCst)
    }
}

async fn answer(inner: Arc<Inner>, request: Request) -> Response {
    let (head, _body) = request.into_parts();
    let header = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned()
    };
    let (token, ttl) = (header("x-aws-ec2-metadata-token"), header("x-aws-ec2-metadata-token-ttl-seconds"));
    let path = head.uri.path().to_owned();
    let reply = if head.method == "PUT" {
        inner.calls.lock().unwrap().push(format!("PUT {path} ttl={ttl}"));
        match inner.replies.lock().unwrap().get("token").cloned() {
            Some(reply) => reply,
            None => {
                let token = format!("token-{}", inner.granted.fetch_add(1, Ordering::SeqCst) + 1);
                inner.tokens.lock().unwrap().insert(token.clone());
                Reply::ok(&token)
            }
        }
    } else {
        inner.calls.lock().unwrap().push(format!("GET {path} token={token}"));
        let document = path.trim_start_matches("/latest/meta-data/");
        if !inner.tokens.lock().unwrap().contains(&token) {
            Reply::status(401)
        } else if let Some(reply) = inner.once.lock().unwrap().get_mut(document).and_then(VecDeque::pop_front)
        {
            reply
        } else {
            inner.replies.lock().unwrap().get(document).cloned().unwrap_or_else(|| Reply::status(404))
        }
    };
    let Reply::With { status, body, date } = reply else { std::future::pending().await };
    let ttl = inner.ttl.load(Ordering::SeqCst).to_string();
    let mut response = Response::builder().status(status).header("x-aws-ec2-metadata-token-ttl-seconds", ttl);
    if let Some(date) = date {
        response = response.header("date", date);
    }
    response.body(Body::from(body)).unwrap()
}

/// An IMDS without `Date`, which hyper always gives. Returns the time left of the first notice.
pub(super) async fn dateless(notice: &str, poll: Duration) -> i64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let notice = notice.to_owned();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut request).await {
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let (status, body) = match request.split(' ').nth(1) {
                    Some("/latest/api/token") => ("200 OK", "t"),
                    Some("/latest/meta-data/instance-life-cycle") => ("200 OK", "spot"),
                    Some("/latest/meta-data/spot/instance-action") => ("200 OK", notice.as_str()),
                    _ => ("404 Not Found", ""),
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    let (out, mut events) = mpsc::channel(8);
    tokio::spawn(Imds::new(&endpoint, poll).unwrap().watch(out, CancellationToken::new()));
    loop {
        if let ImdsEvent::Notice(notice) = events.recv().await.unwrap() {
            return notice.left_ms;
        }
    }
}
