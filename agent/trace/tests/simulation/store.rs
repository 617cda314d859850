//! The bucket as departing pods see it: intents, packs that are acknowledged, generations.

use crate::restores::failed;
use evacuation::event::{Done, FailureKind, Outcome};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
struct Lineage {
    departure: Option<String>,
    kept: Option<(String, u64)>,
    generations: Vec<(String, u64)>,
    acknowledged: u64,
}

/// The bucket.
#[derive(Debug, Default)]
pub struct Store {
    lineages: BTreeMap<String, Lineage>,
    /// Pods whose final round one life has committed.
    finals: BTreeSet<(u32, String)>,
    /// Bytes that one life's shell has saved of a pod and may commit.
    ready: BTreeMap<(u32, String), u64>,
}

impl Store {
    pub fn intend(&mut self, life: u32, pod: &str, departure: &str) -> Outcome {
        let lineage = self.lineages.entry(pod.to_owned()).or_default();
        // The shell remembers what it committed in this life: once more is another departure.
        let again = self.finals.remove(&(life, pod.to_owned()));
        if again || lineage.departure.as_deref() != Some(departure) {
            lineage.departure = Some(departure.to_owned());
            lineage.kept = None;
        }
        Outcome::Done(Done::IntentWritten { committed: lineage.kept.clone(), evidence: true })
    }

    /// Bytes of a save of `bytes` that are not in the store yet.
    pub fn missing(&self, pod: &str, bytes: u64) -> u64 {
        bytes.saturating_sub(self.lineages.get(pod).map_or(0, |lineage| lineage.acknowledged))
    }

    /// A save ended with so much in the store.
    pub fn saved(&mut self, life: u32, pod: &str, bytes: u64) {
        let lineage = self.lineages.entry(pod.to_owned()).or_default();
        lineage.acknowledged = lineage.acknowledged.max(bytes);
        self.ready.insert((life, pod.to_owned()), bytes);
    }

    /// The newest generation of a pod, and the bytes it holds.
    pub fn newest(&self, pod: &str) -> Option<(String, u64)> {
        self.lineages.get(pod)?.generations.last().cloned()
    }

    pub fn commit(&mut self, life: u32, pod: &str, last: bool) -> Outcome {
        let Some(&bytes) = self.ready.get(&(life, pod.to_owned())).filter(|bytes| **bytes > 0) else {
            return failed(FailureKind::NotFound, "no whole file of it is in the store");
        };
        let lineage = self.lineages.entry(pod.to_owned()).or_default();
        let generation = format!("{pod}/1-{}", lineage.generations.len() + 1);
        lineage.generations.push((generation.clone(), bytes));
        if last {
            lineage.kept = Some((generation.clone(), bytes));
            self.finals.insert((life, pod.to_owned()));
        }
        Outcome::Done(Done::Committed { generation, bytes })
    }

    pub fn holds(&self, pod: &str, generation: &str) -> bool {
        self.lineages
            .get(pod)
            .is_some_and(|lineage| lineage.generations.iter().any(|(name, _)| name == generation))
    }
}
