//! No pod is ended too early (guarantee 2) or before the cordon (1), and none is asked too often or too rarely (3).
//!
//! Judges evictions and deletes one by one. It must not know what a save is made of, only how it ended.

use super::Checker;
use super::notices::ExpectedEvacuation;
use evacuation::effect::{Action, PodAction};
use evacuation::moment::Span;
use evacuation::pod::PodUid;
use evacuation::policy::{EvictOrder, RespectPdb};

/// A refused pod is asked again at most so long after, ms: a second, and a moment for the answer.
const AGAIN: u64 = 1_300;

impl Checker {
    /// An eviction, or a delete as the last resort.
    pub(super) fn evicts(&mut self, uid: &PodUid, grace: Span, let_go: bool) {
        self.asks_again(uid);
        let now = self.now;
        let what = if let_go { "a delete" } else { "an eviction" };
        let Some(pod) = self.pods.get(uid) else {
            return self.wrong(2, format!("{what} of {uid}, which was never seen"));
        };
        let what = format!("{what} of {}", pod.name());
        let Some(evacuation) = self.notices.evacuation.clone() else {
            return self.wrong(2, format!("{what} without a notice"));
        };
        let deadline = evacuation.deadline;
        let cutoff = pod.cutoff(&self.policy, evacuation.began, deadline);
        let late = now >= cutoff;
        let mut wrong = Vec::new();
        let mut say = |guarantee: u8, why: String| wrong.push((guarantee, why));
        if evacuation.hibernates {
            say(2, "while the instance hibernates".to_owned());
        }
        if evacuation.withdrawn.is_some() && pod.began.is_none() && !pod.asked && !pod.committed {
            say(2, "that begins after the notice was withdrawn".to_owned());
        }
        if let Some(why) = pod.facts.stays() {
            say(2, format!("that stays: {why}"));
        }
        if !(self.node.is_decided() || late) {
            say(1, format!("before the cordon, and before its cut-off {cutoff} ms"));
        }
        if pod.facts.is_late() {
            let lead = self.policy.late_lead.as_millis().min((deadline - evacuation.began) / 4);
            if now + lead < deadline {
                say(2, "before the last seconds".to_owned());
            }
        }
        let grace = grace.as_millis();
        if grace < 1000 {
            say(2, format!("with a grace of {grace} ms"));
        }
        if now + grace > deadline.max(now + 1000) {
            say(4, format!("with {grace} ms of grace, beyond the deadline {deadline} ms"));
        }
        let has_state = pod.facts.engine.is_some() && !pod.is_shed(&self.policy) && pod.restored;
        let held = pod.can_be_held()
            && grace + 1000 > deadline.saturating_sub(now)
            && self.holds.until(uid) >= deadline;
        if has_state && !(pod.committed || pod.given_up || held || late) {
            say(2, format!("whose state is neither committed nor held nor given up (cut-off {cutoff} ms)"));
        }
        if let_go && self.policy.respect_pdb == RespectPdb::Always {
            say(2, "although budgets are always respected".to_owned());
        }
        if let_go && !late {
            say(2, format!("before its cut-off {cutoff} ms"));
        }
        if !let_go && !late {
            let asking = self.asking(&evacuation);
            if asking >= self.policy.eviction_slots {
                say(3, format!("while {asking} others are asked"));
            }
            if let Some(first) = self.overtaken(uid, &evacuation) {
                say(3, format!("before that of {first}, which is ready and goes before it"));
            }
        }
        let twice = self.open.values().any(|open| {
            open.action.pod() == Some(uid)
                && matches!(
                    open.action,
                    Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. }
                )
        });
        if twice {
            say(3, "while another request for it is open".to_owned());
        }
        if let Some(pod) = self.pods.get_mut(uid) {
            (pod.asked, pod.ever_asked) = (true, true);
        }
        self.all_wrong(what, wrong);
    }

    /// Requests open for pods whose cut-off has not come.
    fn asking(&self, evacuation: &ExpectedEvacuation) -> usize {
        let open = self
            .open
            .values()
            .filter(|open| matches!(open.action, Action::Pod { action: PodAction::Evict { .. }, .. }));
        open.filter_map(|open| self.pods.get(open.action.pod()?))
            .filter(|pod| self.now < pod.cutoff(&self.policy, evacuation.began, evacuation.deadline))
            .count()
    }

    /// The next request for a pod that a budget refused: not at once, and not much later than a second.
    pub(super) fn asks_again(&mut self, uid: &PodUid) {
        let Some(evacuation) = self.notices.evacuation.clone() else { return };
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let Some(refused) = pod.refused_at.take() else { return };
        let gap = self.now.saturating_sub(refused);
        let late = self.now >= pod.cutoff(&self.policy, evacuation.began, evacuation.deadline);
        let (full, name) = (pod.slots_were_full, pod.name());
        if gap < 100 && !late {
            self.wrong(3, format!("{name} was refused {gap} ms ago"));
        }
        // It may not have been woken when it wanted to be; that it did not want to be is its own fault.
        let overslept = self.wakeup.is_some_and(|wakeup| wakeup.as_millis() > refused + AGAIN);
        if gap > AGAIN && overslept && !full && self.policy.evict_order == EvictOrder::HighestFirst {
            self.wrong(3, format!("{name} was refused {gap} ms ago, and not asked since"));
        }
    }

    /// Nobody who was refused is forgotten.
    pub(super) fn retries(&mut self) {
        let Some(evacuation) = &self.notices.evacuation else { return };
        // Those whose cut-off has come take slots from the others, too.
        let asks = |action: &Action| {
            matches!(
                action,
                Action::Pod {
                    action: PodAction::Evict { .. } | PodAction::MarkDisrupted | PodAction::DeletePod { .. },
                    ..
                }
            )
        };
        let asking = self.open.values().filter(|open| asks(&open.action)).count();
        let now = self.now;
        let waits = asking >= self.policy.eviction_slots
            || self.policy.evict_order == EvictOrder::LowestFirst
            || !self.node.is_decided()
            || self.node.uncordoned_at.is_some()
            || now >= evacuation.deadline;
        let mut forgotten = Vec::new();
        for pod in self.pods.values_mut() {
            // Without a hold it waits for its save, as any other.
            pod.slots_were_full |= waits || (pod.hold_failed && !pod.committed && !pod.given_up);
            if pod.refused_at.is_some_and(|at| now > at + AGAIN) && !pod.slots_were_full && !pod.gone {
                forgotten.push(pod.name());
            }
        }
        for name in forgotten {
            self.wrong(3, format!("{name} was refused more than 1.3 s ago and is not asked again"));
        }
    }
}
