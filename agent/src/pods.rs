//! What is known of a pod by looking at its object alone. Pure: no request, no clock, no file.

pub mod annotations;
pub mod conditions;
pub mod containers;
pub mod daemonset;
pub mod reader;
mod spec_key;
pub mod workload;

use evacuation::pod::{PodFacts, PodUid};

/// One pod, so named that a namesake created later is not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: PodUid,
}

impl From<&PodFacts> for PodRef {
    fn from(facts: &PodFacts) -> Self {
        Self { namespace: facts.namespace.clone(), name: facts.name.clone(), uid: facts.uid.clone() }
    }
}
