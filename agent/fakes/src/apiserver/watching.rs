//! WATCH: one JSON line for each change, bookmarks, and 410 for who comes too late.

use super::selector::Selector;
use super::status::Refusal;
use super::storage::{Change, Storage};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The real server sends a bookmark about every minute; here often enough that a drill sees some.
const BOOKMARK_EVERY: Duration = Duration::from_secs(2);

/// Lines that wait for a slow reader before the watch is closed on it, as the watch cache does.
const BACKLOG: usize = 1024;

/// What a watch was asked for.
#[derive(Debug)]
pub struct Wanted {
    /// The resource.
    pub resource: &'static str,
    /// `kind` and `apiVersion`, for bookmarks.
    pub kind: &'static str,
    /// `apiVersion`.
    pub api_version: &'static str,
    /// Which objects.
    pub selector: Selector,
    /// Changes after this version; `None` begins with everything there is.
    pub after: Option<u64>,
    /// Bookmarks are understood.
    pub bookmarks: bool,
    /// How long.
    pub timeout: Duration,
}

/// Begins to answer a watch.
pub fn watch(storage: Arc<Storage>, wanted: Wanted) -> Response {
    let (lines, reader) = mpsc::channel::<Bytes>(BACKLOG);
    tokio::spawn(feed(storage, wanted, lines));
    let stream = futures::stream::unfold(reader, |mut reader| async move {
        reader.recv().await.map(|line| (Ok::<_, Infallible>(line), reader))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// Feeds one watch until its time is over or its reader is gone.
async fn feed(storage: Arc<Storage>, wanted: Wanted, lines: mpsc::Sender<Bytes>) {
    let mut versions = storage.subscribe();
    let mut hang_ups = storage.hang_ups();
    let mut at = match wanted.after {
        Some(version) => version,
        None => {
            let (objects, version) = storage.list(wanted.resource);
            for object in objects.iter().filter(|object| wanted.selector.matches(object)) {
                if send(&lines, "ADDED", object).is_err() {
                    return;
                }
            }
            version
        }
    };
    let end = tokio::time::sleep(wanted.timeout);
    tokio::pin!(end);
    let mut bookmark = tokio::time::interval(BOOKMARK_EVERY);
    bookmark.reset();
    loop {
        let Some((changes, newest)) = storage.since(wanted.resource, at) else {
            let gone =
                Refusal::new(http::StatusCode::GONE, "Expired", format!("too old resource version: {at}"));
            let _ = send(&lines, "ERROR", &gone.body());
            return;
        };
        at = newest;
        for change in changes {
            if let Some((kind, object)) = seen_by(&wanted.selector, &change)
                && send(&lines, kind, &object).is_err()
            {
                return;
            }
        }
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { return },
            _ = bookmark.tick() => {
                let version = at.to_string();
                let object = json!({"kind": wanted.kind, "apiVersion": wanted.api_version,
                    "metadata": {"resourceVersion": version, "creationTimestamp": null}});
                if wanted.bookmarks && send(&lines, "BOOKMARK", &object).is_err() {
                    return;
                }
            }
            _ = hang_ups.changed() => return,
            () = lines.closed() => return,
            () = &mut end => return,
        }
    }
}

/// A change as this selector sees it: an object that begins or ceases to match was added or deleted.
fn seen_by(selector: &Selector, change: &Change) -> Option<(&'static str, Arc<Value>)> {
    let matching =
        |object: &Option<Arc<Value>>| object.as_ref().filter(|object| selector.matches(object)).cloned();
    match (matching(&change.old), matching(&change.new)) {
        (None, Some(new)) => Some(("ADDED", new)),
        (Some(_), Some(new)) => Some(("MODIFIED", new)),
        (Some(old), None) => Some(("DELETED", old)),
        (None, None) => None,
    }
}

fn send(lines: &mpsc::Sender<Bytes>, kind: &str, object: &Value) -> Result<(), ()> {
    let line = format!("{}\n", json!({"type": kind, "object": object}));
    lines.try_send(Bytes::from(line)).map_err(drop)
}
