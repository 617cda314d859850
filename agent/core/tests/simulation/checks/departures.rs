//! No pod is ended too early, none is asked too often or too rarely, none is held too long.

use super::{Checks, Seen};
use crate::cluster::Cluster;
use evacuation::effect::{Action, Hold, Round};
use evacuation::moment::Span;
use evacuation::pod::{EvictWhen, OnDelete, Owner, PodUid};
use evacuation::policy::{EvictOrder, Policy, RespectPdb};

/// The earliest moment that may be taken for the pod's cut-off: its grace (15 s at most), a
/// StatefulSet's lead of 15 s and the commit's 2 s before the deadline, each within its share of a
/// short window.
fn cutoff(policy: &Policy, pod: &Seen, began: u64, deadline: u64) -> u64 {
    let window = deadline.saturating_sub(began);
    if pod.facts.is_late() {
        let lead = policy.late_lead.as_millis().min(window / 4);
        return deadline - lead + lead / 2;
    }
    let grace = pod.facts.grace.as_millis().min(policy.grace_after_save.as_millis()).min(window / 4);
    let named = match pod.facts.owner {
        Owner::Named => policy.named_lead.as_millis().min(window / 4),
        _ => 0,
    };
    let reserve = policy.commit_reserve.as_millis().min(window / 10);
    // A held pod needs a second to end, not its grace.
    let after = if can_be_held(pod) { grace.max((window / 10).min(1_000)) } else { grace };
    deadline.saturating_sub(after + named + reserve).max(began)
}

fn can_be_held(pod: &Seen) -> bool {
    pod.facts.owner != Owner::Named
        && pod.facts.engine.as_ref().is_some_and(|engine| engine.holds && engine.evict != EvictWhen::Last)
}

impl Checks {
    /// An eviction, or a delete as the last resort.
    pub(super) fn evicts(&mut self, now: u64, uid: &PodUid, grace: Span, let_go: bool, cluster: &Cluster) {
        self.asks_again(now, uid);
        let what = format!("{} of {uid} at {now}", if let_go { "a delete" } else { "an eviction" });
        let Some(evacuation) = self.notices.evacuation.clone() else {
            return self.wrong(format!("{what} without a notice"));
        };
        let Some(pod) = self.pods.get_mut(&uid.0) else {
            return self.violations.push(format!("{what} which was never seen"));
        };
        let deadline = evacuation.deadline;
        let cutoff = cutoff(&self.policy, pod, evacuation.began, deadline);
        let late = now >= cutoff;
        let mut wrong = Vec::new();
        if evacuation.hibernates {
            wrong.push("while the instance hibernates".to_owned());
        }
        if evacuation.withdrawn.is_some() && pod.began.is_none() && !pod.asked && !pod.committed {
            wrong.push("that begins after the notice was withdrawn".to_owned());
        }
        if let Some(why) = pod.facts.stays() {
            wrong.push(format!("that stays: {why}"));
        }
        if !(self.cordoned || self.forbidden || late) {
            wrong.push(format!("before the cordon, and before its cut-off {cutoff}"));
        }
        if pod.facts.is_late() {
            let lead = self.policy.late_lead.as_millis().min((deadline - evacuation.began) / 4);
            if now + lead < deadline {
                wrong.push("before the last seconds".to_owned());
            }
        }
        let grace = grace.as_millis();
        if grace < 1000 {
            wrong.push(format!("with a grace of {grace} ms"));
        }
        if now + grace > deadline.max(now + 1000) {
            wrong.push(format!("with {grace} ms of grace, beyond the deadline {deadline}"));
        }
        let has_state = pod.facts.engine.is_some() && !pod.is_shed(&self.policy) && pod.restored;
        let held = can_be_held(pod)
            && grace + 1000 > deadline.saturating_sub(now)
            && cluster.pods.get(&uid.0).is_none_or(|there| there.hold >= deadline);
        if has_state && !(pod.committed || pod.given_up || held || late) {
            wrong.push(format!("whose state is neither committed nor held nor given up (cut-off {cutoff})"));
        }
        if let_go && self.policy.respect_pdb == RespectPdb::Always {
            wrong.push("although budgets are always respected".to_owned());
        }
        if let_go && !late {
            wrong.push(format!("before its cut-off {cutoff}"));
        }
        pod.asked = true;
        for why in wrong {
            self.wrong(format!("{what} {why}"));
        }
        let asking = self.asking(evacuation.began, deadline, now);
        if !let_go && !late && asking >= self.policy.eviction_slots {
            self.wrong(format!("{what} while {asking} others are asked"));
        }
        let twice = self.open.values().any(|open| {
            open.action.pod() == Some(uid)
                && matches!(open.action, Action::Evict { .. } | Action::LetGo { .. })
        });
        if twice {
            self.wrong(format!("{what} while another request for it is open"));
        }
    }

    /// Requests open for pods whose cut-off has not come.
    fn asking(&self, began: u64, deadline: u64, now: u64) -> usize {
        let open = self.open.values().filter(|open| matches!(open.action, Action::Evict { .. }));
        open.filter_map(|open| self.pods.get(&open.action.pod()?.0))
            .filter(|pod| now < cutoff(&self.policy, pod, began, deadline))
            .count()
    }

    /// The next request for a pod that a budget refused: not at once, and not much later than a second.
    pub(super) fn asks_again(&mut self, now: u64, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(&uid.0) else { return };
        let Some(refused) = pod.refused_at.take() else { return };
        let gap = now.saturating_sub(refused);
        let full = pod.slots_were_full;
        let Some(evacuation) = &self.notices.evacuation else { return };
        let late = now >= cutoff(&self.policy, pod, evacuation.began, evacuation.deadline);
        if gap < 100 && !late {
            self.wrong(format!("{uid} was refused {gap} ms ago"));
        }
        if gap > 1_300 && !full && self.policy.evict_order == EvictOrder::HighestFirst {
            self.wrong(format!("{uid} was refused {gap} ms ago, and not asked since"));
        }
    }

    /// Nobody who was refused is forgotten.
    pub(super) fn retries(&mut self, now: u64) {
        let Some(evacuation) = self.notices.evacuation.clone() else { return };
        // Those whose cut-off has come take slots from the others, too.
        let asks = |action: &Action| {
            matches!(action, Action::Evict { .. } | Action::MarkDisrupted { .. } | Action::LetGo { .. })
        };
        let asking = self.open.values().filter(|open| asks(&open.action)).count();
        let waits = asking >= self.policy.eviction_slots
            || self.policy.evict_order == EvictOrder::LowestFirst
            || !(self.cordoned || self.forbidden)
            || self.uncordoned_at.is_some()
            || now >= evacuation.deadline;
        let mut forgotten = Vec::new();
        for (uid, pod) in &mut self.pods {
            // Without a hold it waits for its save, as any other.
            pod.slots_were_full |= waits || (pod.hold_failed && !pod.committed && !pod.given_up);
            if pod.refused_at.is_some_and(|at| now > at + 1_300) && !pod.slots_were_full && !pod.gone {
                forgotten.push(uid.clone());
            }
        }
        for uid in forgotten {
            self.wrong(format!("{uid} was refused more than 1.3 s ago and is not asked again at {now}"));
        }
    }

    /// A step of one pod's save.
    pub(super) fn keeps(&mut self, now: u64, uid: &PodUid, action: &Action) {
        let evacuation = self.notices.evacuation.clone();
        let flushing = self.open.values().filter(|open| matches!(open.action, Action::Flush { .. }));
        let own = flushing.clone().any(|open| open.action.pod() == Some(uid));
        let turn = self.policy.flush_turn.as_millis();
        let all = flushing
            .filter(|open| matches!(open.action, Action::Flush { round: Round::Final, .. }))
            .filter(|open| now < self.asked_at.get(&open.id.0).copied().unwrap_or(0) + turn)
            .count();
        let Some(pod) = self.pods.get_mut(&uid.0) else {
            return self.violations.push(format!("{action:?} of a pod that was never seen"));
        };
        let mut wrong = Vec::new();
        let last = match action {
            Action::Flush { round, .. } | Action::Save { round, .. } | Action::Commit { round, .. } => {
                *round == Round::Final
            }
            _ => true,
        };
        if pod.facts.engine.is_none() {
            wrong.push("although it is not opted in");
        }
        if last && pod.is_shed(&self.policy) {
            wrong.push("although it is shed");
        }
        if evacuation.as_ref().is_some_and(|evacuation| evacuation.hibernates)
            && last
            && pod.facts.terminating.is_none()
            && pod.began.is_none()
        {
            wrong.push("while the instance hibernates");
        }
        let withdrawn = evacuation.as_ref().is_some_and(|evacuation| evacuation.withdrawn.is_some());
        match action {
            Action::Intend { departure, .. } => {
                pod.intended = true;
                (pod.announced, pod.flushed, pod.saved) = (departure != "deleted", false, None);
                (pod.committed, pod.given_up, pod.over_since, pod.began) = (false, false, None, None);
            }
            Action::Quiesce { .. } => {
                if withdrawn && pod.began.is_none() && !pod.asked && pod.facts.terminating.is_none() {
                    wrong.push("that begins after the notice was withdrawn");
                }
                pod.began.get_or_insert(now);
            }
            Action::Flush { round: Round::Final, .. } => {
                if own {
                    wrong.push("while another flush of it is open");
                }
                if all >= self.policy.flush_slots {
                    wrong.push("beyond the flush slots");
                }
                if pod.committed {
                    wrong.push("although it is committed");
                }
            }
            Action::Save { round: Round::Final, .. } if !pod.flushed => wrong.push("before its flush"),
            Action::Commit { round: Round::Final, partial, .. } => match pod.saved {
                None => wrong.push("before its save"),
                Some(whole) if whole == *partial => wrong.push("with the wrong word on whether it is whole"),
                Some(_) => {}
            },
            Action::Commit { round: Round::PreCopy, .. } if pod.copied.is_none() => {
                wrong.push("before its save");
            }
            _ => {}
        }
        for why in wrong {
            self.wrong(format!("{action:?} at {now} {why}"));
        }
    }

    pub(super) fn gives_up(&mut self, now: u64, uid: &PodUid, why: &str) {
        if why.is_empty() {
            self.wrong(format!("{uid} is given up without a reason"));
        }
        let withdrawn = self.notices.evacuation.as_ref().is_some_and(|it| it.withdrawn.is_some());
        if let Some(pod) = self.pods.get_mut(&uid.0) {
            pod.given_up = true;
            pod.announced &= !withdrawn;
            pod.over_since.get_or_insert(now);
        }
    }

    /// A hold is never longer than the departure, nor than a few seconds without one.
    pub(super) fn holds(&mut self, now: u64, uid: &PodUid, hold: Hold) {
        let evacuation = self.notices.evacuation.as_ref().map_or(0, |evacuation| evacuation.deadline);
        let Some(pod) = self.pods.get_mut(&uid.0) else { return };
        pod.hold = Some(hold);
        let ends = pod.facts.terminating.map_or(0, |ends| ends.as_millis());
        let most = (now + self.policy.hold_ahead.as_millis()).max(evacuation).max(ends);
        if let Hold::Until(until) = hold
            && until.as_millis() > most
        {
            self.wrong(format!("a hold of {uid} until {until:?}, beyond {most}"));
        }
    }

    /// A save does not go on beyond the deadline; another's delete begins one at once.
    pub(super) fn begun_and_ended(&mut self, now: u64) {
        let evacuation = self.notices.evacuation.as_ref();
        let deadline = evacuation.map_or(u64::MAX, |evacuation| evacuation.deadline);
        let mut wrong = Vec::new();
        for open in self.open.values().filter(|_| now > deadline.saturating_add(500)) {
            let last = matches!(
                open.action,
                Action::Flush { round: Round::Final, .. } | Action::Save { round: Round::Final, .. }
            );
            let unbound = open.action.pod().and_then(|uid| self.pods.get(&uid.0));
            let by_notice = unbound.is_some_and(|pod| pod.announced);
            if last && by_notice {
                wrong.push(format!("{:?} is still open at {now}, beyond {deadline}", open.action));
            }
        }
        let others = evacuation.is_none_or(|evacuation| evacuation.hibernates);
        for (uid, pod) in &self.pods {
            let saves = pod.facts.engine.as_ref().is_some_and(|engine| engine.on_delete == OnDelete::Save)
                && pod.facts.restore_decided
                && pod.facts.owner != Owner::Finished
                && !pod.is_shed(&self.policy);
            if others
                && saves
                && pod.facts.terminating.is_some()
                && !pod.gone
                && !pod.intended
                && !pod.given_up
                && !pod.asked
            {
                wrong.push(format!("{uid} is deleted, and its save does not begin"));
            }
        }
        self.violations.extend(wrong);
    }

    /// A pod whose save is over is released.
    pub(super) fn held_too_long(&mut self, now: u64, cluster: &Cluster) {
        let mut wrong = Vec::new();
        for (uid, pod) in &self.pods {
            let over = pod.over_since.is_some_and(|since| now > since + 2_500);
            let held = cluster.pods.get(uid).is_some_and(|there| there.hold > now);
            let tries = self.open.values().any(|open| {
                matches!(open.action, Action::SetHold { .. }) && open.action.pod() == Some(&pod.facts.uid)
            });
            // Under a withdrawn notice it may serve again, and is then kept a few seconds ahead.
            let serves =
                self.notices.evacuation.as_ref().is_none_or(|evacuation| evacuation.withdrawn.is_some())
                    && pod.facts.terminating.is_none();
            let holds = pod.facts.engine.as_ref().is_some_and(|engine| engine.holds);
            if over && held && holds && !pod.gone && !tries && !serves && pod.hold != Some(Hold::Released) {
                wrong.push(format!(
                    "{uid} is still held at {now}, its save is over since {:?}",
                    pod.over_since
                ));
            }
        }
        self.violations.extend(wrong);
    }
}
