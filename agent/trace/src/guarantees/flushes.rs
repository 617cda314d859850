//! Whose engine flushes when: in slots, the highest PriorityClass value first, and nobody waits for long
//! (guarantee 3).
//!
//! Knows when engines were ready. It must not know how much they write.

use super::Checker;
use super::pod::JudgedPod;
use evacuation::effect::{Action, FlushKind, PodAction};
use evacuation::pod::PodUid;

impl Checker {
    /// What is wrong with a final flush of this pod that is asked for now.
    pub(super) fn flush_out_of_turn(&self, uid: &PodUid, pod: &JudgedPod) -> Vec<(u8, String)> {
        let mut wrong = Vec::new();
        let own = |action: &Action| {
            matches!(action, Action::Pod { action: PodAction::Flush { .. }, .. }) && action.pod() == Some(uid)
        };
        if self.open.values().any(|open| own(&open.action)) {
            wrong.push((3, "while another flush of it is open".to_owned()));
        }
        if self.flushing() >= self.policy.flush_slots {
            wrong.push((3, "beyond the flush slots".to_owned()));
        }
        if pod.committed {
            wrong.push((7, "although it is committed".to_owned()));
        }
        if let Some(first) = self.flush_overtakes(pod) {
            wrong.push((3, format!("before that of {first}, which is ready and counts more")));
        }
        wrong
    }

    /// Final flushes that take a slot: for their turn, not for as long as an engine that crawls takes.
    fn flushing(&self) -> usize {
        let turn = self.policy.flush_turn.as_millis();
        self.open
            .values()
            .filter(|open| {
                matches!(
                    open.action,
                    Action::Pod { action: PodAction::Flush { kind: FlushKind::Final, .. }, .. }
                )
            })
            .filter(|open| self.now < open.asked + turn)
            .count()
    }

    /// The pod whose flush should have begun before that of `then`: it is ready, nothing that counts more than it makes
    /// it wait, and its save fits.
    fn flush_overtakes(&self, then: &JudgedPod) -> Option<String> {
        let evacuation = self.notices.evacuation.as_ref()?;
        let saving = || self.pods.values().filter(|pod| pod.is_unsaved() && !pod.flushed);
        let weight = |pod: &JudgedPod| (!pod.doubted, pod.facts.priority);
        let most = saving().map(weight).max()?;
        if most <= weight(then) {
            return None;
        }
        let ready = |pod: &&JudgedPod| {
            weight(pod) == most
                && pod.flush_ready.is_some()
                && !pod.flush_asked
                && pod.facts.terminating.is_none()
                && self.now < pod.cutoff(&self.policy, evacuation.began, evacuation.deadline)
                && self.certainly_fits(pod, evacuation)
        };
        saving().find(ready).map(JudgedPod::name)
    }

    /// An engine that is ready waits for more important ones no longer than their turn, if there is a slot.
    pub(super) fn flushes_wait(&mut self) {
        let turn = self.policy.flush_turn.as_millis();
        let free = self.flushing() < self.policy.flush_slots;
        let now = self.now;
        let mut wrong = Vec::new();
        for pod in self.pods.values_mut() {
            let ready = pod.flush_ready.is_some() && pod.is_unsaved() && !pod.flush_asked;
            pod.could_flush = if ready && free { pod.could_flush.or(Some(now)) } else { None };
            if let Some(since) = pod.could_flush.filter(|since| now > since + turn) {
                wrong.push(format!("the flush of {} could begin since {since} ms, and does not", pod.name()));
            }
        }
        for what in wrong {
            self.wrong(3, what);
        }
    }
}
