//! The instance metadata service of one node on loopback, version 2 only, as AWS documents it
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html>).
//!
//! What it proves: that the agent speaks IMDSv2 (token, TTL header, 401, refresh) over few connections, takes the time
//! left from the answer's own `Date`, and lives with errors and with documents of any content ([`Reply`]). What it
//! does not prove: the hop limit, link-local packet limits, and EC2's own timing.

mod script;

pub use script::Reply;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::serve::ListenerExt;
use evacuation::moment::{Moment, Span};
use evacuation::notice::InstanceAction;
use fault_plan::Fault;
use fault_plan::drill::window;
use host::clock;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use script::Script;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// Who the instance is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `i-…`.
    pub instance: String,
    /// `us-east-1a`.
    pub zone: String,
    /// A Spot instance; `on-demand` otherwise.
    pub spot: bool,
}

/// What the service has to say.
#[derive(Clone, Debug, Default)]
struct Said {
    notice: Option<Interruption>,
    rebalance: Option<Timestamp>,
    /// Scheduled maintenance: an event's code and the earliest moment at which it may begin.
    maintenance: Option<(String, Timestamp)>,
}

/// An interruption notice.
#[derive(Clone, Copy, Debug)]
struct Interruption {
    action: InstanceAction,
    time: Timestamp,
    /// Each poll shows a time that is later by this much than the poll.
    moving: Option<Span>,
}

/// One request it received.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Poll {
    /// When.
    pub at: Moment,
    /// `GET` or `PUT`.
    pub method: String,
    /// The path.
    pub path: String,
    /// Its headers: the token that it carried, the life that it asked for. No document shows them.
    #[serde(skip)]
    pub headers: HeaderMap,
    /// The answer's code; 0 if there was none.
    pub code: u16,
}

#[derive(Debug)]
struct ImdsState {
    identity: Identity,
    inner: Mutex<ImdsInner>,
}

#[derive(Debug, Default)]
struct ImdsInner {
    faults: Vec<Fault>,
    said: Said,
    script: Script,
    /// What its clock is ahead of this machine's, in seconds.
    ahead: i64,
    zero: Option<Moment>,
    tokens: BTreeMap<String, Moment>,
    /// Seconds that a token lives at most.
    longest_token: Option<u64>,
    connections: usize,
    struck: BTreeMap<&'static str, u32>,
    polls: Vec<Poll>,
}

/// A running service. Dropping it stops it.
#[derive(Debug)]
pub struct Imds {
    addr: SocketAddr,
    shared: Arc<ImdsState>,
    server: tokio::task::JoinHandle<()>,
}

impl Imds {
    /// Starts to listen on a free loopback port; `plan`'s `imds` faults are armed by [`Imds::begin`].
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(identity: Identity, plan: &[Fault]) -> io::Result<Self> {
        let imds = Self::start_at(([127, 0, 0, 1], 0).into(), identity).await?;
        imds.arm(plan);
        Ok(imds)
    }

    /// Starts to listen at this address. 169.254.169.254 is only ever given inside a network namespace of our own.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn start_at(addr: SocketAddr, identity: Identity) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(ImdsState { identity, inner: Mutex::default() });
        let server = tokio::spawn(serve(addr, listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, server })
    }

    /// From now on it fails by this plan's `imds` faults; nothing strikes before [`Imds::begin`].
    pub fn arm(&self, plan: &[Fault]) {
        let mut inner = self.shared.lock();
        inner.faults = plan.iter().filter(|fault| fault.kind.target == "imds").cloned().collect();
        inner.struck.clear();
    }

    /// Its clock runs ahead of this machine's by so many seconds, as AWS's does where a node's own is late.
    pub fn set_ahead(&self, seconds: i64) {
        self.shared.lock().ahead = seconds;
    }

    /// No token that is asked for from now on lives longer than so many seconds.
    pub fn limit_tokens(&self, seconds: u64) {
        self.shared.lock().longest_token = Some(seconds);
    }

    /// Schedules maintenance: `system-reboot`, `instance-stop`, … not before this time.
    pub fn schedule(&self, code: &str, not_before: Timestamp) {
        self.shared.lock().said.maintenance = Some((code.to_owned(), not_before));
    }

    /// What `--imds-endpoint` is given.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The faults count from here.
    pub fn begin(&self, zero: Moment) {
        self.shared.lock().zero = Some(zero);
    }

    /// Shows an interruption at `time`; with `moving`, each poll shows a time that much ahead of it.
    pub fn interrupt(&self, action: InstanceAction, time: Timestamp, moving: Option<Span>) {
        self.shared.lock().said.notice = Some(Interruption { action, time, moving });
    }

    /// Recommends a rebalance.
    pub fn recommend_rebalance(&self) {
        self.shared.lock().said.rebalance = Some(Timestamp::now());
    }

    /// Says nothing any more.
    pub fn withdraw(&self) {
        self.shared.lock().said = Said::default();
    }

    /// A fault with this outcome has struck.
    pub fn struck(&self, outcome: &str) -> bool {
        self.shared.lock().struck.get(outcome).is_some_and(|count| *count > 0)
    }

    /// Every request so far.
    pub fn polls(&self) -> Vec<Poll> {
        self.shared.lock().polls.clone()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl ImdsState {
    fn lock(&self) -> MutexGuard<'_, ImdsInner> {
        self.inner.lock()
    }

    /// The outcome of the fault that strikes this request, if one does.
    fn strikes(&self, only: impl Fn(&str) -> bool) -> Option<&'static str> {
        let now = clock::now();
        let mut inner = self.lock();
        let zero = inner.zero?;
        let faults = std::mem::take(&mut inner.faults);
        let struck = faults.iter().filter(|fault| only(fault.kind.outcome)).find_map(|fault| {
            let (from, until) = window(fault);
            if now < zero + from || until.is_some_and(|until| now >= zero + until) {
                return None;
            }
            let nth = inner.struck.entry(fault.kind.outcome).or_default();
            *nth += 1;
            fault.count.strikes(*nth).then_some(fault.kind.outcome)
        });
        inner.faults = faults;
        struck
    }
}

/// Accepts connections. While IMDS is down the listening socket is closed, so that connections are really
/// refused, and those that are open are cut.
async fn serve(addr: SocketAddr, listener: tokio::net::TcpListener, shared: Arc<ImdsState>) {
    let mut listener = Some(listener);
    loop {
        let router = axum::Router::new().fallback(any).with_state(Arc::clone(&shared));
        let counted = Arc::clone(&shared);
        let Some(listening) = listener.take() else { return };
        let listening = listening.tap_io(move |_| counted.lock().connections += 1);
        let serving = tokio::spawn(async move { axum::serve(listening, router).await });
        while shared.strikes(|outcome| outcome == "down").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        serving.abort();
        // `abort` ends the accept loop and closes the socket; kept-alive connections are tasks of their own.
        while shared.strikes(|outcome| outcome == "down").is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while listener.is_none() {
            listener = tokio::net::TcpListener::bind(addr).await.ok();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn any(State(shared): State<Arc<ImdsState>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let at = clock::now();
    let path = uri.path().to_owned();
    let answer = match shared.strikes(|outcome| outcome != "401" || method == Method::GET) {
        Some("hang") => None,
        Some("503") => Some(xhtml(StatusCode::SERVICE_UNAVAILABLE, "503 - Service Unavailable")),
        Some("down") => {
            // The connection was open before IMDS went down: it is closed, and the next one is refused.
            let mut response = xhtml(StatusCode::SERVICE_UNAVAILABLE, "503 - Service Unavailable");
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            Some(response)
        }
        Some("garbage") => Some(text(StatusCode::OK, "\u{fffd}\0{\"action\": [[[ not json")),
        Some("401") => {
            shared.lock().tokens.clear();
            Some(xhtml(StatusCode::UNAUTHORIZED, "401 - Unauthorized"))
        }
        _ => speak(&shared, &method, &path, &headers),
    };
    let code = answer.as_ref().map_or(0, |response| response.status().as_u16());
    let ahead = {
        let mut inner = shared.lock();
        inner.polls.push(Poll { at, method: method.to_string(), path, headers, code });
        inner.ahead
    };
    match answer {
        Some(response) => dated(response, ahead),
        None => std::future::pending().await,
    }
}

/// With the header from which the time left is counted. hyper would add its own, cached for up to a second.
fn dated(mut response: Response, ahead: i64) -> Response {
    if response.headers().contains_key(http::header::DATE) {
        return response;
    }
    let now = Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(http::header::DATE, date);
    }
    response
}

/// The list of scheduled events (EC2 User Guide, "Scheduled events for your instances").
fn maintenance(scheduled: Option<&(String, Timestamp)>) -> String {
    let event = |(code, not_before): &(String, Timestamp)| {
        json!([{
            "Code": code,
            "Description": "The instance is running on degraded hardware",
            "EventId": "instance-event-0d59937288b749b32",
            "NotBefore": not_before.strftime("%d %b %Y %H:%M:%S GMT").to_string(),
            "NotAfter": (*not_before + jiff::SignedDuration::from_hours(2)).strftime("%d %b %Y %H:%M:%S GMT").to_string(),
            "State": "active",
        }])
        .to_string()
    };
    scheduled.map_or_else(|| "[]".to_owned(), event)
}

/// What it says when no fault strikes; `None` if a test wants it silent.
fn speak(shared: &ImdsState, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
    let now = clock::now();
    let mut inner = shared.lock();
    if path == "/latest/api/token" {
        if let Some(reply) = inner.script.next(path) {
            return reply.response();
        }
        let ttl =
            headers.get(TOKEN_TTL).and_then(|ttl| ttl.to_str().ok()).and_then(|ttl| ttl.parse::<u64>().ok());
        return Some(match (method, ttl.filter(|ttl| (1..=21_600).contains(ttl))) {
            (&Method::PUT, Some(ttl)) => {
                let ttl = ttl.min(inner.longest_token.unwrap_or(ttl));
                let token = format!("AQAEA{:016x}==", now.as_millis() ^ (inner.tokens.len() as u64) << 48);
                inner.tokens.insert(token.clone(), now + Span::from_secs(ttl));
                let mut response = text(StatusCode::OK, &token);
                response.headers_mut().insert(TOKEN_TTL, ttl.into());
                response
            }
            (&Method::PUT, None) => xhtml(StatusCode::BAD_REQUEST, "400 - Bad Request"),
            _ => xhtml(StatusCode::METHOD_NOT_ALLOWED, "405 - Method Not Allowed"),
        });
    }
    let token = headers.get(TOKEN).and_then(|token| token.to_str().ok());
    if token.and_then(|token| inner.tokens.get(token)).is_none_or(|until| *until <= now) {
        return Some(xhtml(StatusCode::UNAUTHORIZED, "401 - Unauthorized"));
    }
    if let Some(reply) = inner.script.next(path) {
        return reply.response();
    }
    let said = inner.said.clone();
    drop(inner);
    let identity = &shared.identity;
    let notice = said.notice.map(|notice| (notice.action, shown_time(&notice)));
    let answer = match path.strip_prefix("/latest/meta-data/") {
        Some("spot/instance-action") => {
            notice.map(|(action, time)| json!({"action": action, "time": time}).to_string())
        }
        // Legacy, and absent where the instance does not end.
        Some("spot/termination-time") => {
            notice.filter(|(action, _)| *action == InstanceAction::Terminate).map(|(_, time)| time)
        }
        Some("events/recommendations/rebalance") => {
            said.rebalance.map(|time| json!({"noticeTime": seconds(time)}).to_string())
        }
        Some("events/maintenance/scheduled") => Some(maintenance(said.maintenance.as_ref())),
        Some("instance-life-cycle") => Some(if identity.spot { "spot" } else { "on-demand" }.to_owned()),
        Some("instance-id") => Some(identity.instance.clone()),
        Some("placement/availability-zone") => Some(identity.zone.clone()),
        Some("instance-type") => Some("g6.xlarge".to_owned()),
        _ => None,
    };
    Some(match answer {
        Some(body) => text(StatusCode::OK, &body),
        None => xhtml(StatusCode::NOT_FOUND, "404 - Not Found"),
    })
}

fn shown_time(notice: &Interruption) -> String {
    let ahead = notice.moving.map(|span| Timestamp::now() + clock::duration(span));
    seconds(ahead.unwrap_or(notice.time))
}

/// IMDS has whole seconds.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn text(code: StatusCode, body: &str) -> Response {
    respond(code, "text/plain", body.to_owned())
}

fn xhtml(code: StatusCode, title: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
         \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n<html xmlns=\"http://www.w3.org/1999/xhtml\" \
         xml:lang=\"en\" lang=\"en\">\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    );
    respond(code, "text/html", body)
}

fn respond(code: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(http::header::SERVER, HeaderValue::from_static("EC2ws"));
    response
}

#[cfg(test)]
mod tests;
