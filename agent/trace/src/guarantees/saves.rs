//! The steps of a pod's save, each after the one before it, and over in time (guarantees 2, 4, 5, 7, 10).
//!
//! Judges the save of one pod; of others it knows only whose bytes go before. It must not know evictions.

use super::notices::ExpectedEvacuation;
use super::pod::JudgedPod;
use super::{Checker, OpenEffect};
use evacuation::effect::{Action, FlushKind, PodAction};
use evacuation::pod::{OnDelete, Owner, PodUid};

impl Checker {
    /// A step of one pod's save.
    pub(super) fn keeps(&mut self, uid: &PodUid, action: &Action) {
        let now = self.now;
        let Some(pod) = self.pods.get(uid) else {
            return self.wrong(2, format!("{action:?} of a pod that was never seen"));
        };
        let evacuation = self.notices.evacuation.as_ref();
        let mut wrong = self.out_of_place(pod, action, evacuation);
        let mut say = |guarantee: u8, why: &str| wrong.push((guarantee, why.to_owned()));
        match action {
            Action::Pod { action: PodAction::Save { kind: FlushKind::Final, rank, .. }, .. } => {
                if !pod.flushed {
                    say(5, "before its flush");
                }
                if let Some(before) = evacuation.map(|it| self.bytes_before(pod, it)).filter(|it| rank < it) {
                    say(10, &format!("with rank {rank}, although {before} that count more are being sent"));
                }
            }
            Action::Pod {
                action: PodAction::Commit { kind: FlushKind::Final, partial, without_endangered },
                ..
            } => match pod.saved {
                None => say(5, "before its save"),
                Some(whole) if (whole && !without_endangered) == *partial => {
                    say(5, "with the wrong word on whether it is whole");
                }
                Some(_) if !(pod.evidence || pod.probed) => {
                    say(5, "before its engine was asked for evidence")
                }
                Some(_) => {}
            },
            Action::Pod { action: PodAction::ProbeEngine, .. } if !pod.flushed => {
                say(2, "before its state was flushed");
            }
            Action::Pod { action: PodAction::Commit { kind: FlushKind::PreCopy, partial, .. }, .. } => {
                match pod.copied {
                    None => say(5, "before its save"),
                    Some(whole) if whole == *partial => say(5, "with the wrong word on whether it is whole"),
                    // Readers take the newest: what is newer and less would hide it.
                    Some(false) if pod.newest.is_some_and(|held| pod.in_store < held) => {
                        say(5, "of a part that holds less than the newest generation");
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
        wrong.extend(self.after_endangered(pod, action, evacuation));
        if let Action::Pod { action: PodAction::Flush { kind: FlushKind::Final, .. }, .. } = action {
            wrong.extend(self.flush_out_of_turn(uid, pod));
        }
        if let Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. } = action {
            // Once more in this life: it was taken back, and has served since.
            let again = pod.intended && pod.committed;
            self.commits.intends(uid, departure, again);
        }
        let name = pod.name();
        if let Some(pod) = self.pods.get_mut(uid) {
            match action {
                Action::Pod { action: PodAction::WriteIntent { departure, .. }, .. } => {
                    pod.intends(departure)
                }
                Action::Pod { action: PodAction::Quiesce, .. } => _ = pod.began.get_or_insert(now),
                Action::Pod { action: PodAction::Flush { kind: FlushKind::Final, .. }, .. } => {
                    pod.flush_asked = true
                }
                Action::Pod { action: PodAction::ProbeEngine, .. } => pod.probed = true,
                Action::Pod { action: PodAction::Save { kind: FlushKind::Final, .. }, .. }
                    if pod.endangered =>
                {
                    (pod.endangered, pod.resaves, pod.saved) = (false, pod.resaves + 1, None);
                }
                _ => {}
            }
        }
        self.all_wrong(format!("{} of {name}", action.name()), wrong);
    }

    /// What garbage collection is removing is saved again, three times at most, or left out; never committed.
    fn after_endangered(
        &self,
        pod: &JudgedPod,
        action: &Action,
        evacuation: Option<&ExpectedEvacuation>,
    ) -> Option<(u8, String)> {
        // One that terminates by itself has a cut-off of its own; one that has finished keeps that of what it was.
        let late = pod.facts.terminating.is_some()
            || pod.facts.owner == Owner::Finished
            || evacuation.is_none_or(|it| self.now >= pod.cutoff(&self.policy, it.began, it.deadline));
        let why = match action {
            Action::Pod { action: PodAction::Save { kind: FlushKind::Final, .. }, .. }
                if pod.endangered && pod.resaves >= 3 =>
            {
                "a fourth time because its packs were endangered"
            }
            Action::Pod {
                action: PodAction::Commit { kind: FlushKind::Final, without_endangered: true, .. },
                ..
            } if pod.resaves < 3 && !late => "without what there was time to save again",
            Action::Pod {
                action: PodAction::Commit { kind: FlushKind::Final, without_endangered: false, .. },
                ..
            } if pod.endangered => "of what was found endangered",
            _ => return None,
        };
        Some((5, why.to_owned()))
    }

    /// Only a save that is under way has a place on the link to change.
    pub(super) fn moves(&mut self, uid: &PodUid) {
        let saves = self.open.values().any(
            |open| matches!(&open.action, Action::Pod { uid: pod, action: PodAction::Save { kind: FlushKind::Final, .. } } if pod == uid),
        );
        if !saves {
            self.wrong(10, format!("the save of {uid} is moved, and none is under way"));
        }
    }

    /// What serves until its node ends is saved in time all the same.
    pub(super) fn lost_in_place(&mut self) {
        let now = self.now;
        let ends = self.notices.evacuation.as_ref().filter(|it| !it.hibernates && it.withdrawn.is_none());
        let deadline = ends.map(|it| it.deadline);
        let mut wrong = Vec::new();
        for pod in self.pods.values_mut() {
            let runs_on = pod.runs_on();
            let has_state = pod.facts.engine.is_some() && pod.restored && !pod.is_shed(&self.policy);
            if !(runs_on && has_state) || pod.gone {
                pod.could_save = None;
                continue;
            }
            let since = *pod.could_save.get_or_insert(now);
            let in_time = deadline.is_some_and(|deadline| now >= deadline && since + 5_000 <= deadline);
            if in_time && !(pod.intended || pod.given_up) {
                wrong.push(format!("{} serves to the end, and its state was not saved", pod.name()));
            }
        }
        for what in wrong {
            self.wrong(2, what);
        }
    }

    /// Nothing is done to the engine of a pod that has nothing to save, or that stays.
    fn out_of_place(
        &self,
        pod: &JudgedPod,
        action: &Action,
        evacuation: Option<&ExpectedEvacuation>,
    ) -> Vec<(u8, String)> {
        let mut wrong = Vec::new();
        let mut say = |guarantee: u8, why: &str| wrong.push((guarantee, why.to_owned()));
        let last = match action {
            Action::Pod {
                action:
                    PodAction::Flush { kind, .. } | PodAction::Save { kind, .. } | PodAction::Commit { kind, .. },
                ..
            } => *kind == FlushKind::Final,
            _ => true,
        };
        if pod.facts.engine.is_none() {
            say(2, "although it is not opted in");
        }
        if last && pod.is_shed(&self.policy) {
            say(2, "although it is shed");
        }
        if matches!(action, Action::Pod { action: PodAction::Quiesce, .. }) && pod.runs_on() {
            say(2, "although it serves to the end");
        }
        let stays = pod.facts.terminating.is_none() && pod.began.is_none();
        if evacuation.is_some_and(|evacuation| evacuation.hibernates) && last && stays {
            say(2, "while the instance hibernates");
        }
        let withdrawn = evacuation.is_some_and(|evacuation| evacuation.withdrawn.is_some());
        if withdrawn
            && stays
            && !pod.asked
            && matches!(action, Action::Pod { action: PodAction::Quiesce, .. })
        {
            say(2, "that begins after the notice was withdrawn");
        }
        wrong
    }

    /// The state of this pod is given up.
    pub(super) fn gives_up(&mut self, uid: &PodUid, why: &str) {
        let now = self.now;
        let withdrawn = self.notices.evacuation.as_ref().is_some_and(|it| it.withdrawn.is_some());
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.given_up = true;
            pod.announced &= !withdrawn;
            pod.over_since.get_or_insert(now);
        }
        if why.is_empty() {
            self.wrong(4, format!("{uid} is given up without a reason"));
        }
    }

    /// A save does not go on beyond the deadline; another's delete begins one at once.
    pub(super) fn begun_and_ended(&mut self) {
        let evacuation = self.notices.evacuation.as_ref();
        let mut wrong = Vec::new();
        if let Some(deadline) = evacuation.map(|it| it.deadline).filter(|at| self.now > at + 500) {
            // The time in which the instance was frozen is not one of those who answer.
            let awake = |open: &&OpenEffect| open.asked >= self.notices.woke();
            for open in self.open.values().filter(awake) {
                let last = matches!(
                    open.action,
                    Action::Pod {
                        action: PodAction::Flush { kind: FlushKind::Final, .. }
                            | PodAction::Save { kind: FlushKind::Final, .. },
                        ..
                    }
                );
                let pod = open.action.pod().and_then(|uid| self.pods.get(uid));
                if let Some(pod) = pod.filter(|pod| last && pod.announced) {
                    let what = format!("{} of {} is still open", open.action.name(), pod.name());
                    wrong.push((4, format!("{what}, beyond {deadline} ms")));
                }
            }
        }
        if evacuation.is_none_or(|evacuation| evacuation.hibernates) {
            let begins = |pod: &&JudgedPod| {
                let save = |on_delete| on_delete == OnDelete::Save;
                pod.facts.engine.as_ref().is_some_and(|engine| save(engine.on_delete))
                    && pod.facts.restore_decided
                    && pod.facts.owner != Owner::Finished
                    && pod.facts.terminating.is_some()
                    && !pod.is_shed(&self.policy)
            };
            let waits = |pod: &&JudgedPod| !(pod.gone || pod.intended || pod.given_up || pod.asked);
            for pod in self.pods.values().filter(begins).filter(waits) {
                wrong.push((2, format!("{} is deleted, and its save does not begin", pod.name())));
            }
        }
        for (guarantee, what) in wrong {
            self.wrong(guarantee, what);
        }
    }
}
