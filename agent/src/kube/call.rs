//! One request to the API server: bounded, counted, and never repeated.

use super::{Cluster, ClusterError};
use crate::runtime::metrics::labels::{RequestCode, RequestVerb};
use evacuation::moment::Moment;
use host::clock;
use http::{Method, Request};
use jiff::Timestamp;
use kube::client::Body;
use kube::core::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

/// The three ways to PATCH that are used here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PatchType {
    /// Replaces lists whole: for a node's taints, together with its resourceVersion.
    Merge,
    /// Merges lists by their key: for a pod's conditions.
    Strategic,
}

/// A request that can be sent.
#[derive(Debug)]
pub(crate) struct Call {
    verb: RequestVerb,
    what: String,
    method: Method,
    path: String,
    content_type: &'static str,
    /// As it is sent.
    body: Option<serde_json::Result<Vec<u8>>>,
    as_node: bool,
}

impl Call {
    pub(crate) fn get(path: String, what: impl Into<String>) -> Self {
        Self::new(RequestVerb::Get, Method::GET, path, what)
    }

    pub(crate) fn create(path: String, what: impl Into<String>, body: impl Serialize) -> Self {
        Self::new(RequestVerb::Create, Method::POST, path, what).with(body)
    }

    /// A PUT of the whole object.
    pub(crate) fn update(path: String, what: impl Into<String>, body: impl Serialize) -> Self {
        Self::new(RequestVerb::Update, Method::PUT, path, what).with(body)
    }

    pub(super) fn delete(path: String, what: impl Into<String>, options: impl Serialize) -> Self {
        Self::new(RequestVerb::Delete, Method::DELETE, path, what).with(options)
    }

    pub(crate) fn patch(
        path: String,
        what: impl Into<String>,
        kind: PatchType,
        body: impl Serialize,
    ) -> Self {
        let content_type = match kind {
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
        };
        Self { content_type, ..Self::new(RequestVerb::Patch, Method::PATCH, path, what).with(body) }
    }

    /// Sends it as the own node, if asked to (constrained impersonation).
    pub(super) fn impersonating(self, as_node: bool) -> Self {
        Self { as_node, ..self }
    }

    fn new(verb: RequestVerb, method: Method, path: String, what: impl Into<String>) -> Self {
        let content_type = "application/json";
        Self { verb, what: what.into(), method, path, content_type, body: None, as_node: false }
    }

    fn with(self, body: impl Serialize) -> Self {
        Self { body: Some(serde_json::to_vec(&body)), ..self }
    }
}

/// An answer as it came.
struct ApiAnswer {
    code: http::StatusCode,
    /// The API server's clock, in whole seconds (the header `Date`).
    date: Option<Timestamp>,
    bytes: bytes::Bytes,
}

impl Cluster {
    /// Sends a call and reads its answer, both before the deadline.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        call: Call,
        deadline: Moment,
    ) -> Result<T, ClusterError> {
        self.send_dated(call, deadline).await.map(|(answer, _)| answer)
    }

    /// The same, with what the API server's clock said when it answered, if it said so.
    pub(crate) async fn send_dated<T: DeserializeOwned>(
        &self,
        call: Call,
        deadline: Moment,
    ) -> Result<(T, Option<Timestamp>), ClusterError> {
        let (counted, verb, what) = (call.verb, call.verb.as_str(), call.what.clone());
        let began = clock::now();
        let answer = timeout_at(clock::instant(deadline), self.exchange(call)).await;
        let took = clock::now().since(began);
        let ApiAnswer { code, date, bytes } = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.metrics.kube_request(counted, RequestCode::TRANSPORT, took);
                return Err(error);
            }
            Err(_) => {
                self.metrics.kube_request(counted, RequestCode::TIMEOUT, took);
                return Err(ClusterError::TimedOut { verb, what });
            }
        };
        self.metrics.kube_request(counted, RequestCode::of(code.as_str()), took);
        if code.is_success() {
            let answer = serde_json::from_slice(&bytes);
            answer.map(|answer| (answer, date)).map_err(|source| ClusterError::Malformed {
                verb,
                what,
                source,
            })
        } else {
            Err(ClusterError::Answered { verb, what, status: Box::new(status(code, &bytes)) })
        }
    }

    async fn exchange(&self, call: Call) -> Result<ApiAnswer, ClusterError> {
        let Call { verb, what, method, path, content_type, body, as_node } = call;
        let verb = verb.as_str();
        let mut request =
            Request::builder().method(method).uri(path).header(http::header::ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        if as_node {
            request = request.header("Impersonate-User", format!("system:node:{}", self.options.node));
        }
        let unbuildable = |source| ClusterError::Request { verb, what: what.clone(), source };
        let body = body.transpose().map_err(|error| unbuildable(error.into()))?.unwrap_or_default();
        let request = request.body(Body::from(body)).map_err(|error| unbuildable(error.into()))?;
        let unreachable =
            |source| ClusterError::Unreachable { verb, what: what.clone(), source: Box::new(source) };
        let response = self.client.send(request).await.map_err(unreachable)?;
        let code = response.status();
        let date = response.headers().get(http::header::DATE).and_then(http_date);
        let bytes = response.into_body().collect_bytes().await.map_err(unreachable)?;
        Ok(ApiAnswer { code, date, bytes })
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, which is also a date as in mail.
fn http_date(value: &http::HeaderValue) -> Option<Timestamp> {
    const PARSER: jiff::fmt::rfc2822::DateTimeParser = jiff::fmt::rfc2822::DateTimeParser::new();
    PARSER.parse_timestamp(value.to_str().ok()?).ok()
}

/// The Status of an error answer, or one made of what a proxy in between wrote.
fn status(code: http::StatusCode, bytes: &[u8]) -> Status {
    let mut status = serde_json::from_slice::<Status>(bytes).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
        Status { message: text.trim().to_owned(), ..Status::default() }
    });
    status.code = code.as_u16();
    status
}

/// A name that Kubernetes could have given, and that cannot lead a path elsewhere. Names of pods
/// come from the store too, which others may have written.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// The path of a pod.
pub(crate) fn pod_path(namespace: &str, name: &str) -> Result<String, ClusterError> {
    for part in [namespace, name] {
        if !is_name(part) {
            return Err(ClusterError::Name { name: part.to_owned() });
        }
    }
    Ok(format!("/api/v1/namespaces/{namespace}/pods/{name}"))
}

/// The path of a node.
pub(super) fn node_path(name: &str) -> Result<String, ClusterError> {
    if is_name(name) {
        Ok(format!("/api/v1/nodes/{name}"))
    } else {
        Err(ClusterError::Name { name: name.to_owned() })
    }
}
