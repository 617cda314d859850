//! The replacement's side: one claim, nothing handed over unproven, and the gate always opens.

use super::Checks;
use evacuation::effect::{Action, RestoreOutcome};
use evacuation::event::{FailureKind, Outcome};
use evacuation::pod::PodUid;

/// How far one restore is, by the answers so far.
#[derive(Debug, Default)]
pub struct Progress {
    claimed: Option<String>,
    fetched: bool,
    proven: bool,
    mismatch: bool,
    free_since: Option<u64>,
}

impl Progress {
    pub fn answered(&mut self, action: &Action, outcome: &Outcome) {
        let done = matches!(outcome, Outcome::Done(_));
        match action {
            Action::Claim { lineage, .. } if done => self.claimed = Some(lineage.clone()),
            Action::Fetch { .. } => self.fetched = done,
            Action::Prove { .. } if done => self.proven = true,
            Action::Prove { .. } | Action::HandOver { .. } => {
                self.mismatch |= matches!(outcome, Outcome::Failed { kind: FailureKind::Mismatch, .. });
            }
            _ => {}
        }
    }
}

impl Checks {
    pub(super) fn restores(&mut self, uid: &PodUid, action: &Action) {
        let open = self.open.values().any(|open| {
            open.action.pod() == Some(uid)
                && std::mem::discriminant(&open.action) == std::mem::discriminant(action)
        });
        let Some(pod) = self.pods.get_mut(&uid.0) else {
            return self.violations.push(format!("{action:?} for a pod that was never seen"));
        };
        let progress = &mut pod.restore;
        let mut wrong = Vec::new();
        if open {
            wrong.push("while the same is open");
        }
        if pod.restored && !matches!(action, Action::OpenGate { .. }) {
            wrong.push("although its restore is decided");
        }
        match action {
            Action::Claim { lineage, .. }
                if progress.claimed.as_ref().is_some_and(|claimed| claimed != lineage) =>
            {
                wrong.push("while it holds another claim");
            }
            Action::Fetch { .. } if progress.claimed.is_none() => wrong.push("without a claim"),
            Action::Prove { .. } if !progress.fetched => wrong.push("before anything is fetched"),
            Action::HandOver { .. } => {
                if progress.claimed.is_none() || !progress.fetched || !progress.proven {
                    wrong.push("before claim, fetch and proof");
                }
                if progress.mismatch {
                    wrong.push("although it does not fit");
                }
            }
            Action::OpenGate { outcome, .. } => {
                if progress.mismatch && *outcome != RestoreOutcome::Refused {
                    wrong.push("although it was refused");
                }
                pod.restored = true;
            }
            _ => {}
        }
        for why in wrong {
            self.wrong(format!("{action:?} {why}"));
        }
    }

    /// Every gate is opened in time, unless the pod leaves.
    pub(super) fn gates(&mut self, now: u64) {
        let evacuation = self.notices.evacuation.as_ref();
        let stays_for_now = evacuation.is_none_or(|it| it.hibernates || it.withdrawn.is_some());
        let limit = self.policy.restore_timeout.as_millis() + 1_000;
        let mut wrong = Vec::new();
        for (uid, pod) in &mut self.pods {
            let waits = pod.facts.engine.is_some() && !pod.restored && !pod.gone && !pod.asked;
            let free = waits && stays_for_now && pod.facts.terminating.is_none() && pod.began.is_none();
            if !free {
                pod.restore.free_since = None;
            } else if now > *pod.restore.free_since.get_or_insert(now) + limit {
                wrong.push(format!("the gate of {uid} is still closed at {now}"));
            }
        }
        self.violations.extend(wrong);
    }
}
