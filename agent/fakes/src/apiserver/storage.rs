//! The objects, and the log of their changes from which watches are served.

use super::status::Refusal;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::watch;

/// Changes that a watch can still be given; what is older is answered with 410.
const LOG_LENGTH: usize = 4096;

/// Names one object: resource, namespace (empty for cluster-scoped ones), name.
pub type Key = (&'static str, String, String);

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource version it made.
    pub version: u64,
    /// The resource.
    pub resource: &'static str,
    /// The object before; `None` if it was created.
    pub old: Option<Arc<Value>>,
    /// The object after; `None` if it was removed.
    pub new: Option<Arc<Value>>,
}

/// Everything the API server holds.
#[derive(Debug)]
pub struct Storage {
    inner: Mutex<Objects>,
    version: watch::Sender<u64>,
    hang_ups: watch::Sender<()>,
    /// Seconds by which this server's clock is ahead of the machine's.
    ahead: AtomicI64,
}

#[derive(Debug)]
struct Objects {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Change>,
    /// The newest version that is no longer in the log.
    forgotten: u64,
    next_uid: u64,
}

impl Default for Storage {
    fn default() -> Self {
        // Resource versions are opaque; a start above zero shows who takes them for a count.
        let first = 1000;
        let inner = Objects {
            version: first,
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: first,
            next_uid: 1,
        };
        Self {
            inner: Mutex::new(inner),
            version: watch::Sender::new(first),
            hang_ups: watch::Sender::default(),
            ahead: AtomicI64::new(0),
        }
    }
}

impl Storage {
    /// The server's clock.
    pub fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.ahead.load(Ordering::Relaxed))
    }

    /// Sets the server's clock so many seconds on (or back) from where it is: who judges by another is found out.
    pub fn advance_clock(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Changes as they come: the newest resource version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Ends every watch, as the real server ends them from time to time.
    pub fn hang_up(&self) {
        self.hang_ups.send_replace(());
    }

    /// When watches are to end.
    pub(super) fn hang_ups(&self) -> watch::Receiver<()> {
        self.hang_ups.subscribe()
    }

    /// One object.
    pub fn get(&self, resource: &'static str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.inner.lock().objects.get(&(resource, namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects of a resource, and the version of that view.
    pub fn list(&self, resource: &'static str) -> (Vec<Arc<Value>>, u64) {
        let inner = self.inner.lock();
        let objects = inner.objects.iter().filter(|(key, _)| key.0 == resource);
        (objects.map(|(_, object)| Arc::clone(object)).collect(), inner.version)
    }

    /// The pod of this uid.
    pub fn pod(&self, uid: &str) -> Option<Arc<Value>> {
        let inner = self.inner.lock();
        inner
            .objects
            .iter()
            .find(|(key, pod)| key.0 == "pods" && pod["metadata"]["uid"] == uid)
            .map(|(_, pod)| pod.clone())
    }

    /// The changes of a resource after `version`; `None` if some of them are forgotten.
    pub fn since(&self, resource: &'static str, version: u64) -> Option<(Vec<Change>, u64)> {
        let inner = self.inner.lock();
        if version < inner.forgotten {
            return None;
        }
        let newer = inner.log.iter().filter(|change| change.version > version && change.resource == resource);
        Some((newer.cloned().collect(), inner.version))
    }

    /// Forgets the log, as etcd does when it is compacted.
    pub fn compact(&self) {
        let mut inner = self.inner.lock();
        inner.log.clear();
        inner.forgotten = inner.version;
    }

    /// Creates an object; uid, time, version and a generated name are filled in.
    ///
    /// # Errors
    /// 409 if it exists, 422 if it has no name.
    pub fn create(
        &self,
        resource: &'static str,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.inner.lock();
        let uid = inner.next_uid;
        inner.next_uid += 1;
        if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
            let Some(prefix) = object["metadata"]["generateName"].as_str() else {
                return Err(Refusal::invalid(
                    resource,
                    "",
                    "metadata.name: Required value: name or generateName is required",
                ));
            };
            object["metadata"]["name"] = json!(format!("{prefix}{uid:05x}"));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = (resource, namespace.to_owned(), name);
        if inner.objects.contains_key(&key) {
            let message = format!("{resource} \"{}\" already exists", key.2);
            return Err(Refusal::new(http::StatusCode::CONFLICT, "AlreadyExists", message));
        }
        let metadata = &mut object["metadata"];
        if metadata["uid"].as_str().is_none() {
            metadata["uid"] = json!(format!("00000000-0000-4000-8000-{uid:012x}"));
        }
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        metadata["creationTimestamp"] = json!(wire_time(self.now()));
        Ok(self.put(&mut inner, key, object))
    }

    /// Changes an object with everything else standing still. `change` returns the new object, or `None` to
    /// leave it as it is.
    ///
    /// # Errors
    /// 404, or what `change` refuses with.
    pub fn update(
        &self,
        resource: &'static str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&Value) -> Result<Option<Value>, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.inner.lock();
        let key = (resource, namespace.to_owned(), name.to_owned());
        let old = inner.objects.get(&key).cloned().ok_or_else(|| Refusal::not_found(resource, name))?;
        match change(&old)? {
            // As in the real server, an update that changes nothing makes no new version.
            Some(new) if new != *old => Ok(self.put(&mut inner, key, new)),
            _ => Ok(old),
        }
    }

    /// Removes an object if it still is the one of this uid.
    pub fn remove(
        &self,
        resource: &'static str,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Option<Arc<Value>> {
        let mut inner = self.inner.lock();
        let key = (resource, namespace.to_owned(), name.to_owned());
        if inner.objects.get(&key)?["metadata"]["uid"] != uid {
            return None;
        }
        let old = inner.objects.remove(&key)?;
        inner.version += 1;
        let version = inner.version;
        // The last state that a watch sees carries the version of the removal.
        let mut last = (*old).clone();
        last["metadata"]["resourceVersion"] = json!(version.to_string());
        self.log(&mut inner, Change { version, resource, old: Some(Arc::new(last)), new: None });
        Some(old)
    }

    fn put(&self, inner: &mut Objects, key: Key, mut object: Value) -> Arc<Value> {
        inner.version += 1;
        let version = inner.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let new = Arc::new(object);
        let resource = key.0;
        let old = inner.objects.insert(key, Arc::clone(&new));
        self.log(inner, Change { version, resource, old, new: Some(Arc::clone(&new)) });
        new
    }

    fn log(&self, inner: &mut Objects, change: Change) {
        let version = change.version;
        inner.log.push_back(change);
        while inner.log.len() > LOG_LENGTH {
            if let Some(oldest) = inner.log.pop_front() {
                inner.forgotten = oldest.version;
            }
        }
        self.version.send_replace(version);
    }
}

/// A time as metav1.Time writes it: whole seconds, UTC.
pub fn wire_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_a_later_version_and_can_be_replayed() {
        let storage = Storage::default();
        let made = storage.create("pods", "x", json!({"metadata": {"name": "a"}})).unwrap();
        let (_, seen) = storage.list("pods");
        let changed = storage
            .update("pods", "x", "a", |old| {
                let mut new = old.clone();
                new["spec"] = json!({"nodeName": "n"});
                Ok(Some(new))
            })
            .unwrap();
        assert_ne!(made["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
        let uid = made["metadata"]["uid"].as_str().unwrap();
        assert!(storage.remove("pods", "x", "a", "another").is_none());
        assert!(storage.remove("pods", "x", "a", uid).is_some());
        let (changes, _) = storage.since("pods", seen).unwrap();
        assert_eq!(changes.len(), 2);
        assert!(changes[1].new.is_none());
        storage.compact();
        assert!(storage.since("pods", seen).is_none(), "what is forgotten is said to be");
    }

    #[test]
    fn a_change_that_changes_nothing_makes_no_version() {
        let storage = Storage::default();
        let made = storage.create("nodes", "", json!({"metadata": {"name": "n"}})).unwrap();
        let same = storage.update("nodes", "", "n", |old| Ok(Some(old.clone()))).unwrap();
        assert_eq!(made["metadata"]["resourceVersion"], same["metadata"]["resourceVersion"]);
    }
}
