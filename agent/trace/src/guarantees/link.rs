//! What is known of the uplink and the disk, and which save certainly fits before its cut-off.
//!
//! A cautious estimate, not a forecast: what it calls certain fits by a wide margin, and of anything else it says
//! nothing. It must not know the order of saves.

use super::Checker;
use super::notices::ExpectedEvacuation;
use super::pod::JudgedPod;
use evacuation::effect::{Action, FlushKind, PodAction};

/// A save that needs no more than one part in this many of the time it has fits for certain.
const MARGIN: u64 = 4;

/// What is expected of a flush that nobody has measured, ms; and of a commit.
const UNKNOWN: u64 = 2_000;

/// Rates as this life has measured them, bytes per second.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) link: Option<u64>,
    slowest_flush: Option<u64>,
}

impl Rates {
    /// A flush of so many bytes took so long.
    pub(super) fn flushed(&mut self, bytes: u64, took: u64) {
        let rate = bytes.saturating_mul(1000) / took.max(1);
        self.slowest_flush = Some(self.slowest_flush.map_or(rate, |slowest| slowest.min(rate)));
    }
}

impl Checker {
    /// The save of this pod is whole by its cut-off, even if those of all others go first; or nothing says that it is
    /// not: the link was never measured.
    pub(super) fn certainly_fits(&self, pod: &JudgedPod, evacuation: &ExpectedEvacuation) -> bool {
        let Some(link) = self.rates.link else { return true };
        let left = pod.cutoff(&self.policy, evacuation.began, evacuation.deadline).saturating_sub(self.now);
        let takes = |bytes: u64, rate: u64| bytes.saturating_mul(1000) / rate.max(1);
        let one = |pod: &JudgedPod| {
            let bytes = pod.bytes.max(pod.state_bytes);
            let flush = match self.rates.slowest_flush {
                _ if pod.flushed => 0,
                Some(rate) => takes(bytes, rate).max(UNKNOWN),
                None => UNKNOWN,
            };
            takes(bytes, link).saturating_add(flush)
        };
        let all: u64 =
            self.pods.values().filter(|pod| pod.is_unsaved()).map(one).fold(0, u64::saturating_add);
        // One that takes longer than expected may take as long again.
        let hangs = self
            .open
            .values()
            .filter(|open| {
                matches!(
                    open.action,
                    Action::Pod { action: PodAction::Flush { kind: FlushKind::Final, .. }, .. }
                )
            })
            .map(|open| self.now.saturating_sub(open.asked))
            .max();
        all.saturating_add(hangs.unwrap_or(0)).saturating_add(UNKNOWN).saturating_mul(MARGIN) < left
    }
}
