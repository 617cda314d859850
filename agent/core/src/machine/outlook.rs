//! What the core knows, as the facts of a plan.
//!
//! Decides nothing, and changes nothing.

use super::Machine;
use crate::facts::{Facts, PodState};
use crate::moment::Span;
use crate::pods::TrackedPod;
use crate::{budget, saves};

impl Machine {
    /// The facts of this node now: for a plan at any moment, with no notice or under one.
    pub fn facts(&self) -> Facts {
        let disk = saves::slowest_flush(&self.pods);
        let active_notice = self.evacuation.as_ref().map(|evacuation| &evacuation.active_notice);
        let pods = self.pods.values().filter(|pod| pod.present).map(|pod| self.state(pod, disk)).collect();
        Facts {
            format: 1,
            node: self.node.as_ref().map_or(String::new(), |node| node.name.clone()),
            notice: active_notice.map(|active_notice| active_notice.kind),
            since: active_notice.map_or(Span::ZERO, |active_notice| self.now.since(active_notice.began)),
            left: active_notice.map(|active_notice| active_notice.deadline.left(self.now)),
            announcements: self.announcements.listed(self.now),
            link: self.saves.uplink.rate,
            policy: self.policy.clone(),
            pods,
        }
    }

    fn state(&self, pod: &TrackedPod, disk: Option<u64>) -> PodState {
        let bytes = pod.inspection.seen.map(|seen| seen.state_bytes);
        let whole = || budget::flush(pod.inspection.state_bytes(), pod.inspection.flush_rate.or(disk));
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
            doubt: pod.inspection.doubt.clone(),
            outcome: pod.departure.as_ref().map(|_| pod.report(self.now).state),
        }
    }
}
