//! IMDSv2 over one kept connection.
//!
//! A session token is asked for by PUT and sent with every GET; there is no way back to IMDSv1.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>

use super::ImdsError;
use super::fault::{Fault, FaultKind};
use evacuation::moment::Moment;
use host::{causes, clock};
use http::{HeaderMap, Method, StatusCode, header};
use std::time::Duration;
use tokio::time::Instant;

/// The longest life a token can have, in seconds.
const TTL: u64 = 21_600;
/// A token is renewed this long before it ends, or at nine tenths of its life if that is later.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// IMDS is a part of the host: it connects in microseconds and answers in milliseconds.
const CONNECT_MAX: Duration = Duration::from_millis(500);
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The largest document that is read, in bytes.
const BODY_MAX: usize = 64 * 1024;

/// The token, as faults name it.
pub(super) const TOKEN: &str = "api/token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// A client with its token.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<Token>,
}

/// An answer of 200.
#[derive(Debug)]
pub(super) struct ImdsAnswer {
    /// When it was there.
    pub(super) received: Moment,
    /// Its `Date`.
    pub(super) date: Option<jiff::Timestamp>,
    /// Its body.
    pub(super) body: Vec<u8>,
}

struct Token {
    value: header::HeaderValue,
    renew: Instant,
    ends: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Client {
    pub(super) fn new(endpoint: &str) -> Result<Self, ImdsError> {
        let bad = |why: &str| ImdsError::BadEndpoint { endpoint: endpoint.to_owned(), why: why.to_owned() };
        let url = reqwest::Url::parse(endpoint).map_err(|error| bad(&error.to_string()))?;
        if url.scheme() != "http" {
            return Err(bad("IMDS speaks plain http"));
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(bad("it is more than scheme, host and port"));
        }
        if !url.path().trim_matches('/').is_empty() {
            return Err(bad("it has a path; /latest is added here"));
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .pool_max_idle_per_host(1)
            .connect_timeout(CONNECT_MAX)
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ImdsError::Client)?;
        Ok(Self { http, base: url.as_str().trim_end_matches('/').to_owned(), token: None })
    }

    /// A document below `meta-data/`; `None` for 404. A refused token is renewed once.
    pub(super) async fn get(&mut self, path: &'static str) -> Result<Option<ImdsAnswer>, Fault> {
        let url = format!("{}/latest/meta-data/{path}", self.base);
        for fresh in [false, true] {
            let token = self.token(path).await?;
            let request = self.http.request(Method::GET, &url).header(TOKEN_HEADER, token);
            let (status, headers, body) = exchange(request, path).await?;
            match status {
                StatusCode::OK => {
                    return Ok(Some(ImdsAnswer { received: clock::now(), date: date(&headers), body }));
                }
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::UNAUTHORIZED if !fresh => self.token = None,
                status => return Err(refused(path, status)),
            }
        }
        Err(refused(path, StatusCode::UNAUTHORIZED))
    }

    /// The token, renewed in time. An old one that still holds is used when a new one cannot be had.
    async fn token(&mut self, _for: &'static str) -> Result<header::HeaderValue, Fault> {
        let now = Instant::now();
        if let Some(token) = self.token.as_ref().filter(|token| now < token.renew) {
            return Ok(token.value.clone());
        }
        match self.renewed(now).await {
            Ok(token) => Ok(self.token.insert(token).value.clone()),
            Err(fault) => match &self.token {
                Some(token) if now < token.ends => Ok(token.value.clone()),
                _ => Err(fault),
            },
        }
    }

    async fn renewed(&self, now: Instant) -> Result<Token, Fault> {
        let request =
            self.http.request(Method::PUT, format!("{}/latest/api/token", self.base)).header(TTL_HEADER, TTL);
        let (status, headers, body) = exchange(request, TOKEN).await?;
        if status != StatusCode::OK {
            return Err(refused(TOKEN, status));
        }
        let mut value = header::HeaderValue::from_bytes(body.trim_ascii())
            .ok()
            .filter(|value| !value.is_empty() && value.len() <= 1024)
            .ok_or_else(|| Fault::garbage(TOKEN, "what it answered is no token"))?;
        value.set_sensitive(true);
        let granted = headers.get(TTL_HEADER).and_then(|ttl| ttl.to_str().ok()?.parse::<u64>().ok());
        let life = Duration::from_secs(granted.unwrap_or(TTL).clamp(1, TTL));
        let ends = now + life;
        Ok(Token { value, renew: ends - RENEW_BEFORE.min(life / 10), ends })
    }
}

async fn exchange(
    request: reqwest::RequestBuilder,
    what: &'static str,
) -> Result<(StatusCode, HeaderMap, Vec<u8>), Fault> {
    let exchange = async {
        let mut response = request.send().await.map_err(|error| broken(what, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        // Read to its end also where it does not matter: only then is the connection kept.
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(what, &error))? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(Fault::garbage(what, format!("it answered more than {BODY_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, headers, body))
    };
    tokio::time::timeout(ANSWER_MAX, exchange).await.unwrap_or_else(|_| {
        let why = format!("no answer within {} ms", ANSWER_MAX.as_millis());
        Err(Fault { kind: FaultKind::Timeout, what, why })
    })
}

fn broken(what: &'static str, error: &reqwest::Error) -> Fault {
    let innermost = causes::innermost(error);
    let kind = match innermost.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        _ if error.is_timeout() => FaultKind::Timeout,
        Some(std::io::ErrorKind::ConnectionRefused) => FaultKind::Refused,
        _ => FaultKind::Broken,
    };
    Fault { kind, what, why: innermost.to_string() }
}

fn refused(what: &'static str, status: StatusCode) -> Fault {
    let kind = match status.as_u16() {
        401 => FaultKind::Unauthorized,
        403 => FaultKind::Forbidden,
        429 => FaultKind::Throttled,
        500..=599 => FaultKind::ServerError,
        _ => FaultKind::Garbage,
    };
    Fault { kind, what, why: format!("it answered {}", status.as_u16()) }
}

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn date(headers: &HeaderMap) -> Option<jiff::Timestamp> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    super::document::mail_date(text)
}
