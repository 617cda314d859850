//! Answers that a test puts in the place of the service's own.

use super::{Imds, respond};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use std::collections::{BTreeMap, VecDeque};

/// One answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Whatever a test wants to have said.
    With {
        /// Its code.
        status: StatusCode,
        /// Its body.
        body: String,
        /// Its `Date`; `None` is the service's own clock.
        date: Option<&'static str>,
    },
    /// None: the connection stays open.
    Hang,
}

impl Reply {
    /// 200 with this body.
    pub fn ok(body: &str) -> Self {
        Self::With { status: StatusCode::OK, body: body.to_owned(), date: None }
    }

    /// A code, with a body as IMDS gives one: it has to be read for the connection to be kept.
    pub fn status(status: StatusCode) -> Self {
        Self::With { status, body: format!("<html>{status}</html>"), date: None }
    }

    /// The same with this `Date`.
    #[must_use]
    pub fn dated(self, date: &'static str) -> Self {
        match self {
            Self::With { status, body, .. } => Self::With { status, body, date: Some(date) },
            Self::Hang => Self::Hang,
        }
    }

    /// As it is sent; `None` hangs.
    pub(super) fn response(self) -> Option<Response> {
        let Self::With { status, body, date } = self else { return None };
        let mut response = respond(status, "text/plain", body);
        if let Some(date) = date {
            response.headers_mut().insert(header::DATE, HeaderValue::from_static(date));
        }
        Some(response)
    }
}

/// The answers of each path below `/latest/`.
#[derive(Debug, Default)]
pub(super) struct Script {
    standing: BTreeMap<String, Reply>,
    once: BTreeMap<String, VecDeque<Reply>>,
}

impl Script {
    pub(super) fn next(&mut self, path: &str) -> Option<Reply> {
        let path = path.strip_prefix("/latest/")?;
        let once = self.once.get_mut(path).and_then(VecDeque::pop_front);
        once.or_else(|| self.standing.get(path).cloned())
    }
}

impl Imds {
    /// From now on answers so to who has a token: `path` is one like `meta-data/instance-id`, or `api/token` itself.
    pub fn set(&self, path: &str, reply: Reply) {
        self.shared.lock().script.standing.insert(path.to_owned(), reply);
    }

    /// Answers so the next time only.
    pub fn once(&self, path: &str, reply: Reply) {
        self.shared.lock().script.once.entry(path.to_owned()).or_default().push_back(reply);
    }
}
