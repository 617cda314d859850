//! What the core knows, as the facts of a plan.
//!
//! Decides nothing, and changes nothing.

use super::Machine;
use crate::budget;
use crate::departure::Pod;
use crate::facts::{Facts, PodState};
use crate::moment::Span;
use crate::saves;

impl Machine {
    /// The facts of this node now: for a plan at any moment, with no notice or under one.
    pub fn facts(&self) -> Facts {
        let disk = saves::slowest_flush(&self.pods);
        let standing = self.evacuation.as_ref().map(|evacuation| &evacuation.standing);
        let pods = self.pods.values().filter(|pod| pod.present).map(|pod| self.state(pod, disk)).collect();
        Facts {
            format: 1,
            node: self.node.as_ref().map_or(String::new(), |node| node.name.clone()),
            notice: standing.map(|standing| standing.kind),
            since: standing.map_or(Span::ZERO, |standing| self.now.since(standing.began)),
            left: standing.map(|standing| standing.deadline.left(self.now)),
            link: self.saves.uplink.rate,
            policy: self.policy.clone(),
            pods,
        }
    }

    fn state(&self, pod: &Pod, disk: Option<u64>) -> PodState {
        let bytes = pod.look.seen.map(|seen| seen.state_bytes);
        let whole = || budget::flush(pod.look.state_bytes(), pod.look.flush_rate.or(disk));
        let flush = match &pod.departure {
            Some(_) => pod.load(disk, self.now).map_or(Span::ZERO, |load| load.flush),
            None => whole(),
        };
        PodState {
            pod: pod.facts.clone(),
            bytes,
            send: bytes.map(|_| pod.to_send()),
            flush: bytes.map(|_| flush),
            copied: pod.precopy.committed.as_ref().map(|(_, bytes)| *bytes),
            outcome: pod.departure.as_ref().map(|_| pod.report(self.now).state),
        }
    }
}
