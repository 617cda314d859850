//! Every request that was made, as tests and the drill's verdict read it.

use evacuation::moment::Moment;
use http::HeaderMap;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    /// When it arrived.
    pub at: Moment,
    /// When it was answered (a watch: when it began to be).
    pub answered: Moment,
    /// Who made it, by the token; empty if the token is nobody's.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `patch`, `update`, `delete`, `evict`; empty if the request was not understood.
    pub verb: &'static str,
    /// `pods`; empty for a path that this server does not know.
    pub resource: String,
    /// The namespace, empty if none.
    pub namespace: String,
    /// The object, empty if none.
    pub name: String,
    /// `status`, `eviction`, empty if none.
    pub subresource: String,
    /// The path as it was sent.
    pub path: String,
    /// The query as it was sent.
    pub query: String,
    /// The headers as they were sent. They hold the token, which is nobody's business in a document.
    #[serde(skip)]
    pub headers: HeaderMap,
    /// The body, `null` if none.
    pub body: Value,
    /// The answer's code.
    pub code: u16,
    /// The answer's reason and message, where it was a refusal.
    pub refusal: Option<String>,
    /// The uid of the object as it was when the request came.
    pub uid: Option<String>,
}

impl Request {
    /// It was granted.
    pub const fn granted(&self) -> bool {
        self.code < 300
    }
}

/// The log.
#[derive(Debug, Default)]
pub struct Audit(Mutex<Vec<Request>>);

impl Audit {
    /// Adds a request.
    pub fn push(&self, request: Request) {
        self.0.lock().push(request);
    }

    /// All of them in the order of their arrival.
    pub fn all(&self) -> Vec<Request> {
        let mut all = self.0.lock().clone();
        all.sort_by_key(|request| request.at);
        all
    }
}
