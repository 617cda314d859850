//! HTTP to one engine: no proxy, no redirect, no answer larger than asked for, no wait past the deadline.

use super::{EngineError, EngineTarget};
use evacuation::moment::{Moment, Span};
use host::{causes, clock};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The longest wait for a connection: a pod of this very node answers in microseconds or not at all.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The longest an answer may take that needs no work: questions, not flushes.
pub(super) const QUICK: Span = Span::from_secs(5);
/// The largest answer, in bytes, unless a call asks for more.
pub(super) const ANSWER_MAX: usize = 1024 * 1024;
/// Between two looks at an engine that is not there yet, or at an operation that goes on.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// A client of one engine.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The call, for messages.
    pub at: String,
    /// The status.
    pub status: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Client {
    pub(super) fn new(target: &EngineTarget) -> Result<Self, EngineError> {
        target.check()?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(2)
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| EngineError::Failed { at: target.base(), why: error.to_string() })?;
        Ok(Self { http, base: target.base(), token: target.token.clone() })
    }

    /// The engine's address, for messages.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// A question that needs no work: [`QUICK`] at most.
    pub(super) async fn get(&self, path: &str, deadline: Moment) -> Result<Answer, EngineError> {
        let deadline = deadline.min(clock::now() + QUICK);
        self.send(Method::GET, path, None, ANSWER_MAX, deadline).await
    }

    /// A request that may take until the deadline.
    pub(super) async fn post<B: Serialize + Sync>(
        &self,
        path: &str,
        body: &B,
        deadline: Moment,
    ) -> Result<Answer, EngineError> {
        let body = serde_json::to_vec(body).map_err(|error| EngineError::Failed {
            at: format!("{}{path}", self.base),
            why: error.to_string(),
        })?;
        self.send(Method::POST, path, Some(body), ANSWER_MAX, deadline).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        at_most: usize,
        deadline: Moment,
    ) -> Result<Answer, EngineError> {
        let at = format!("{}{path}", self.base);
        let began = clock::now();
        let mut request = self.http.request(method, &at);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        }
        match tokio::time::timeout_at(clock::instant(deadline), exchange(request, &at, at_most)).await {
            Ok(answered) => answered,
            Err(_) => Err(EngineError::TimedOut {
                at,
                waited_ms: clock::now().since(began).as_millis(),
                last: None,
            }),
        }
    }
}

async fn exchange(request: reqwest::RequestBuilder, at: &str, at_most: usize) -> Result<Answer, EngineError> {
    let not_ready = |error: reqwest::Error| EngineError::NotReady { at: at.to_owned(), why: cause(&error) };
    let mut response = request.send().await.map_err(not_ready)?;
    let content_type = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("no content type")
        .chars()
        .take(80)
        .collect();
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(not_ready)? {
        // Before it is kept: an engine must not decide how much memory we use.
        if body.len() + chunk.len() > at_most {
            let answered = format!("answered more than {at_most} bytes");
            return Err(EngineError::NotTheEngine { at: at.to_owned(), answered });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { at: at.to_owned(), status, content_type, body })
}

impl Answer {
    /// The body as `T`.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, EngineError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let answered = if self.content_type.starts_with("application/json") {
                format!("answered JSON of another shape ({error})")
            } else {
                format!("answered {}, not JSON", self.content_type)
            };
            EngineError::NotTheEngine { at: self.at.clone(), answered }
        })
    }

    /// What it said, for people: the `error` of a JSON body, or the beginning of the body.
    pub(super) fn says(&self) -> String {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Said {
            Plain { error: String },
            Nested { error: Nested },
        }
        #[derive(serde::Deserialize)]
        struct Nested {
            message: String,
        }
        let said = match serde_json::from_slice::<Said>(&self.body) {
            Ok(Said::Plain { error } | Said::Nested { error: Nested { message: error } }) => error,
            Err(_) => String::from_utf8_lossy(&self.body).into_owned(),
        };
        format!("answered {}: {}", self.status, printable(&said))
    }

    /// The error for a status that is not the one wanted. What 404 and 409 mean depends on the call: callers
    /// look at those first.
    pub(super) fn refusal(self) -> EngineError {
        let why = self.says();
        let at = self.at;
        match self.status {
            401 | 403 => EngineError::Denied { at, status: self.status },
            404 | 405 => EngineError::NotTheEngine { at, answered: why },
            409 => EngineError::Mismatch { at, why },
            413 => EngineError::TooLarge { at, why },
            429 => EngineError::Throttled { at, why },
            501 => EngineError::Unsupported { at, why },
            503 => EngineError::NotReady { at, why },
            300..=399 => EngineError::NotTheEngine {
                at,
                answered: "answered a redirect, which is not followed".to_owned(),
            },
            _ => EngineError::Failed { at, why },
        }
    }
}

/// Asks until an answer is more than "not yet".
pub(super) async fn until_ready<T, F, Fut>(at: &str, deadline: Moment, mut ask: F) -> Result<T, EngineError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, EngineError>>,
{
    let began = clock::now();
    loop {
        let last = match ask().await {
            // A server that is still loading refuses, hangs, or answers 5xx.
            Err(
                error @ (EngineError::NotReady { .. }
                | EngineError::TimedOut { .. }
                | EngineError::Throttled { .. }
                | EngineError::Failed { .. }),
            ) => error,
            decided => return decided,
        };
        if clock::now() + Span::from_millis(POLL.as_millis() as u64) >= deadline {
            let waited_ms = clock::now().since(began).as_millis();
            return Err(EngineError::TimedOut { at: at.to_owned(), waited_ms, last: Some(last.to_string()) });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The cause behind all others: reqwest's own message names the URL and nothing else.
fn cause(error: &reqwest::Error) -> String {
    printable(&causes::innermost(error).to_string())
}

/// The beginning of what somebody else wrote, fit for a log line.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
