//! The trail that each engine's state leaves: what it was at every flush, and what arrived.

use crate::cast::Place;
use evacuation::moment::Moment;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;

/// The trail of one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trail {
    /// The workload.
    pub member: &'static str,
    /// The pod's name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Source or replacement.
    pub place: Place,
    /// When its containers ran.
    pub started: Option<Moment>,
    /// When the kubelet saw its deletion.
    pub terminating: Option<Moment>,
    /// The grace it was given, in seconds.
    pub grace: Option<u64>,
    /// When its preStop returned.
    pub released: Option<Moment>,
    /// When its containers were stopped because the grace was over.
    pub killed: bool,
    /// When it was gone.
    pub gone: Option<Moment>,
    /// The plan's trouble with its engine has struck.
    pub troubled: bool,
    /// Requests to its engine.
    pub calls: usize,
    /// The state at each flush.
    pub flushes: Vec<Flushed>,
    /// The condition `lifeboat.dev/restored`: when it was set, its reason and message.
    pub decided: Option<Decided>,
    /// When it became Ready.
    pub ready: Option<Moment>,
    /// What a conversation with a restored real engine showed.
    pub conversation: Option<Conversation>,
}

/// The state as it was when a flush was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flushed {
    /// When.
    pub at: Moment,
    /// The last flush, with the engine quiesced.
    pub last: bool,
    /// The state's digest.
    pub digest: String,
}

/// How a restore ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// When.
    pub at: Moment,
    /// `Restored`, or why not.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The state's digest then.
    pub digest: Option<String>,
}

/// What the first request to a restored engine showed, slot by slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Conversation {
    /// Tokens that were saved.
    pub saved: u64,
    /// Tokens that the first answer took from the cache.
    pub cached: u64,
    /// The answer continued as the source would have.
    pub same: bool,
}

/// All trails, by uid.
#[derive(Debug, Default)]
pub struct Trails(Mutex<BTreeMap<String, Trail>>);

impl Trails {
    /// A pod begins.
    pub fn begin(&self, member: &'static str, pod: &str, uid: &str, place: Place) {
        let trail = Trail {
            member,
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            place,
            started: None,
            terminating: None,
            grace: None,
            released: None,
            killed: false,
            gone: None,
            troubled: false,
            calls: 0,
            flushes: Vec::new(),
            decided: None,
            ready: None,
            conversation: None,
        };
        self.0.lock().insert(uid.to_owned(), trail);
    }

    /// Adds to a pod's trail.
    pub fn note(&self, uid: &str, change: impl FnOnce(&mut Trail)) {
        if let Some(trail) = self.0.lock().get_mut(uid) {
            change(trail);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Trail> {
        self.0.lock().values().cloned().collect()
    }

    /// One of them.
    pub fn of(&self, uid: &str) -> Option<Trail> {
        self.0.lock().get(uid).cloned()
    }
}
