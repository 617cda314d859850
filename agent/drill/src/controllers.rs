//! Stand-in controllers and scheduler: who makes a new pod, when, and where.
//!
//! As the real ones: a ReplicaSet replaces a pod as soon as it is terminating, under a new name; a StatefulSet
//! only when the old name is gone; a DaemonSet brings its pod back unless a NoSchedule taint that it does not
//! tolerate keeps it away. The mirror's replacement finds no room and stays Pending; the Job is not run again.

use super::cast::{EngineTemplate, Member, NAMESPACE, Part};
use super::chronicle::Chronicle;
use fakes::apiserver::storage::{Change, Storage};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Running controllers. Dropping them stops them.
#[derive(Debug)]
pub struct Controllers {
    main: tokio::task::JoinHandle<()>,
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.main.abort();
    }
}

/// What the controllers need.
#[derive(Debug)]
struct Desk {
    storage: Arc<Storage>,
    template: EngineTemplate,
    chronicle: Arc<Chronicle>,
    /// Where replacements go: the other node.
    target: &'static str,
    /// The node that the DaemonSet's pod lives on.
    home: &'static str,
    /// Uids of pods that are replaced already.
    replaced: BTreeSet<String>,
    /// Makes names.
    next: u32,
}

impl Controllers {
    /// Starts them.
    pub fn start(
        storage: Arc<Storage>,
        template: EngineTemplate,
        chronicle: Arc<Chronicle>,
        home: &'static str,
        target: &'static str,
    ) -> Self {
        let after = storage.list("pods").1;
        let desk = Desk { storage, template, chronicle, target, home, replaced: BTreeSet::new(), next: 10 };
        Self { main: tokio::spawn(run(desk, after)) }
    }
}

async fn run(mut desk: Desk, mut after: u64) {
    let mut versions = desk.storage.subscribe();
    loop {
        let Some((changes, newest)) = desk.storage.since("pods", after) else {
            // The log is compacted only by tests that start no controllers.
            after = desk.storage.list("pods").1;
            continue;
        };
        after = newest;
        for change in changes {
            desk.see(&change);
        }
        if versions.changed().await.is_err() {
            return;
        }
    }
}

impl Desk {
    fn see(&mut self, change: &Change) {
        let Some(pod) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let Some(member) = Member::of(name) else { return };
        let gone = change.new.is_none();
        let leaving = gone || !pod["metadata"]["deletionTimestamp"].is_null();
        let due = match member.part {
            Part::HeldState | Part::Stateless | Part::Shadow => leaving,
            Part::NamedState | Part::Daemon => gone,
            Part::Batch => false,
        };
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        if due && self.replaced.insert(uid.to_owned()) {
            self.replace(member, pod);
        }
    }

    fn replace(&mut self, member: &'static Member, old: &Value) {
        let node = match member.part {
            Part::Shadow => None,
            Part::Daemon if self.keeps_away() => return,
            Part::Daemon => Some(self.home),
            _ => Some(self.target),
        };
        self.next += 1;
        let pod = member.pod(self.next, node, &self.template);
        match self.storage.create("pods", NAMESPACE, pod) {
            Ok(made) => {
                let name = made["metadata"]["name"].as_str().unwrap_or_default();
                let was = old["metadata"]["name"].as_str().unwrap_or_default();
                let place = node.unwrap_or("no node: Pending");
                self.chronicle.say(name, format!("is created in place of {was}, on {place}"));
            }
            Err(refusal) => self.chronicle.warn(member.name, format!("is not replaced: {}", refusal.message)),
        }
    }

    /// A NoSchedule taint that the DaemonSet's pods do not tolerate. The cordon's own they do.
    fn keeps_away(&self) -> bool {
        let node = self.storage.get("nodes", "", self.home);
        let taints =
            node.as_ref().and_then(|node| node["spec"]["taints"].as_array().cloned()).unwrap_or_default();
        taints.iter().any(|taint| {
            taint["effect"] == "NoSchedule" && taint["key"] != "node.kubernetes.io/unschedulable"
        })
    }
}
