//! Hold files: never further ahead than the departure, and released when the save is over (guarantee 11).
//!
//! Knows of a file what was acknowledged. It must not know why a pod is held.

use super::Checker;
use evacuation::effect::{Action, Hold, PodAction};
use evacuation::event::{FailureKind, Outcome};
use evacuation::pod::PodUid;
use std::collections::BTreeMap;

/// What the hold files of the node's pods say, where that is known. They outlive the agent.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<PodUid, Hold>);

impl Files {
    pub(super) fn answered(&mut self, pod: &PodUid, hold: Hold, outcome: &Outcome) {
        match outcome {
            Outcome::Done(_) => {
                self.0.insert(pod.clone(), hold);
            }
            // Nothing was written.
            Outcome::Failed { kind: FailureKind::Permanent | FailureKind::NotFound, .. } => {}
            Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked => self.unknown(pod),
        }
    }

    /// It may have been written or not.
    pub(super) fn unknown(&mut self, pod: &PodUid) {
        self.0.remove(pod);
    }

    /// The file of this pod keeps it until then; 0 where it does not, or where that is not known.
    pub(super) fn until(&self, pod: &PodUid) -> u64 {
        match self.0.get(pod) {
            Some(Hold::Until(until)) => until.as_millis(),
            Some(Hold::Released) | None => 0,
        }
    }
}

impl Checker {
    /// A hold is never longer than the departure, nor than a few seconds without one.
    pub(super) fn sets_hold(&mut self, uid: &PodUid, hold: Hold) {
        let evacuation = self.notices.evacuation.as_ref().map_or(0, |evacuation| evacuation.deadline);
        let Some(pod) = self.pods.get_mut(uid) else { return };
        pod.hold = Some(hold);
        let ends = pod.facts.terminating.map_or(0, |ends| ends.as_millis());
        let most = (self.now + self.policy.hold_ahead.as_millis()).max(evacuation).max(ends);
        if let Hold::Until(until) = hold
            && until.as_millis() > most
        {
            let what = format!("{} is held until {} ms, beyond {most} ms", pod.name(), until.as_millis());
            self.wrong(11, what);
        }
    }

    /// A pod whose save is over is released.
    pub(super) fn held_too_long(&mut self) {
        let now = self.now;
        let serves =
            self.notices.evacuation.as_ref().is_none_or(|it| it.withdrawn.is_some() || it.hibernates);
        let mut wrong = Vec::new();
        for (uid, pod) in &self.pods {
            // Under a withdrawn notice or a hibernation it may serve again, and is then kept a few seconds ahead, until somebody deletes it.
            let again = pod.deleted_since.filter(|_| serves).unwrap_or(0);
            let since = pod.over_since.map(|since| since.max(again));
            let Some(since) = since.filter(|since| now > since + 2_500) else { continue };
            let serves = serves && pod.facts.terminating.is_none();
            let holds = pod.facts.engine.as_ref().is_some_and(|engine| engine.holds);
            if pod.gone || serves || !holds || pod.hold == Some(Hold::Released) {
                continue;
            }
            let tries = self
                .open
                .values()
                .any(|open| matches!(&open.action, Action::Pod { uid: pod, action: PodAction::SetHold { .. } } if pod == uid));
            if self.holds.until(uid) > now && !tries {
                wrong.push(format!("{} is still held, its save is over since {since} ms", pod.name()));
            }
        }
        for what in wrong {
            self.wrong(11, what);
        }
    }
}
