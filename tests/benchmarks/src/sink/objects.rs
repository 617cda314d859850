//! What the sink knows of each object, and the conditions on it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use jiff::Timestamp;

use super::{
    body::Payload,
    multipart::{Multipart, Part},
    request::Head,
};

/// An object.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) size: u64,
    pub(super) etag: String,
    pub(super) modified: Timestamp,
    /// In order; `None` if it was dropped.
    pub(super) pieces: Option<Vec<Arc<Vec<u8>>>>,
}

/// All objects, by `bucket/key`, and the uploads in parts that are not complete.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) keep: bool,
    versions: AtomicU64,
    stored: Mutex<BTreeMap<String, Stored>>,
    pub(super) multipart: Multipart,
}

/// Why a conditional write does not happen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Precondition,
    Missing,
}

impl Objects {
    pub(super) fn new(keep: bool) -> Self {
        Self { keep, versions: AtomicU64::new(0), stored: Mutex::default(), multipart: Multipart::default() }
    }

    /// Writes an object if the conditions in `head` hold. Decided and done under one lock.
    pub(super) fn put(&self, path: &str, head: &Head, parts: Vec<Part>) -> Result<Stored, Refused> {
        let stored = Stored {
            size: parts.iter().map(|part| part.size).sum(),
            etag: self.etag(),
            modified: Timestamp::now(),
            pieces: parts.into_iter().map(|part| part.bytes).collect(),
        };
        let mut all = self.stored();
        match (head.header("if-match"), all.get(path)) {
            (Some(_), None) => return Err(Refused::Missing),
            (Some(etag), Some(present)) if etag != present.etag => return Err(Refused::Precondition),
            _ => {}
        }
        if head.header("if-none-match") == Some("*") && all.contains_key(path) {
            return Err(Refused::Precondition);
        }
        all.insert(path.to_owned(), stored.clone());
        Ok(stored)
    }

    pub(super) fn get(&self, path: &str) -> Option<Stored> {
        self.stored().get(path).cloned()
    }

    pub(super) fn delete(&self, path: &str) {
        self.stored().remove(path);
    }

    /// The objects that begin with `prefix`, in order, with their whole path.
    pub(super) fn list(&self, prefix: &str) -> Vec<(String, Stored)> {
        let all = self.stored();
        let from = all.range(prefix.to_owned()..);
        from.take_while(|(path, _)| path.starts_with(prefix))
            .map(|(path, stored)| (path.clone(), stored.clone()))
            .collect()
    }

    /// An ETag like no other. It is no digest of the content: a client that takes it for one is wrong on S3 as well.
    pub(super) fn etag(&self) -> String {
        format!("\"sink-{}\"", self.versions.fetch_add(1, Relaxed))
    }

    fn stored(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Payload> for Part {
    fn from(payload: Payload) -> Self {
        Self { size: payload.size, bytes: payload.bytes.map(Arc::new) }
    }
}
