//! How long a gate may stay closed, by what was heard of the store (guarantee 11).
//!
//! Knows a wait by the answers it got. It must not know what is asked for next.

use super::Checker;
use evacuation::effect::{Action, EffectId, PodAction, RestoreAction, RestoreOutcome};
use evacuation::event::{Done, FailureKind, IntentState, Outcome};
use evacuation::pod::PodUid;
use evacuation::policy::Policy;

/// What a limit may be exceeded by, ms: the core is woken at it.
const SLACK: u64 = 1_000;

/// The wait of one pod whose gate is closed. Times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    since: u64,
    /// The store has answered a look of this pod, or a request for a claim was answered.
    answered: bool,
    /// The claim is taken: when something of the state was last heard of.
    sign: Option<u64>,
    /// The checkpoint that is waited for is overdue then.
    due: Option<u64>,
    /// It is on this node.
    fetched: bool,
}

/// Whether the store answers, as the journal shows it.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<u64>,
}

/// How an answer of the store counts: it came, it did not, or it tells nothing of the store.
enum Heard {
    Yes,
    No,
    Unknown,
}

fn heard(action: &Action, outcome: &Outcome) -> Heard {
    let look = matches!(action, Action::Restore { action: RestoreAction::FindLineage, .. });
    let transfer = matches!(
        action,
        Action::Restore { action: RestoreAction::Fetch { .. } | RestoreAction::Prefetch { .. }, .. }
            | Action::Pod {
                action: PodAction::WriteIntent { .. } | PodAction::Save { .. } | PodAction::Commit { .. },
                ..
            }
    );
    match outcome {
        _ if !look && !transfer => Heard::Unknown,
        Outcome::Failed { kind: FailureKind::Unreachable, .. } => Heard::No,
        Outcome::TimedOut if look => Heard::No,
        Outcome::TimedOut | Outcome::Panicked => Heard::Unknown,
        Outcome::Failed { kind, .. } if !look && *kind != FailureKind::Throttled => Heard::Unknown,
        Outcome::Done(_) | Outcome::Failed { .. } => Heard::Yes,
    }
}

impl Silence {
    fn hears(&mut self, now: u64, action: &Action, outcome: &Outcome) {
        match heard(action, outcome) {
            Heard::Yes => self.since = None,
            Heard::No => self.since = self.since.or(Some(now)),
            Heard::Unknown => {}
        }
    }
}

impl Wait {
    const fn new(now: u64) -> Self {
        Self { since: now, answered: false, sign: None, due: None, fetched: false }
    }

    fn answered(&mut self, now: u64, action: &RestoreAction, outcome: &Outcome) {
        let came = !matches!(
            outcome,
            Outcome::TimedOut | Outcome::Panicked | Outcome::Failed { kind: FailureKind::Unreachable, .. }
        );
        match (action, outcome) {
            (RestoreAction::FindLineage, _) if came => {
                self.answered = true;
                self.sign = self.sign.map(|_| now);
            }
            (RestoreAction::Claim { .. }, Outcome::Done(_)) => (self.answered, self.sign) = (true, Some(now)),
            (RestoreAction::Claim { .. }, _) if came => self.answered = true,
            (RestoreAction::Fetch { .. }, Outcome::Done(_)) => self.fetched = true,
            // Another generation is asked for.
            (
                RestoreAction::Fetch { .. },
                Outcome::Failed { kind: FailureKind::Mismatch | FailureKind::NotFound, .. },
            ) => self.sign = Some(now),
            _ => {}
        }
    }

    /// Until when the gate may stay closed, and why no longer.
    fn ends(&self, silent: Option<u64>, policy: &Policy) -> (u64, &'static str) {
        let find = policy.find_timeout.as_millis();
        let last = (self.since + policy.restore_timeout.as_millis(), "its restore has taken too long");
        let sooner = match self.sign {
            _ if self.fetched => return last,
            Some(sign) => (sign + policy.restore_stall.as_millis(), "nothing of its state comes"),
            None if self.answered => {
                (self.since + policy.find_patience.as_millis(), "it found nothing that it may take")
            }
            None => {
                let known = policy.find_timeout_known_away.as_millis();
                let away = silent.map_or(u64::MAX, |silent| (silent + find).max(self.since + known));
                ((self.since + find).min(away), "the store does not answer")
            }
        };
        sooner.min(last)
    }
}

impl Checker {
    /// What an answer tells of the store and of the wait of its pod.
    pub(super) fn hears_of_the_store(&mut self, action: &Action, outcome: &Outcome) {
        let now = self.now;
        self.silence.hears(now, action, outcome);
        let Action::Restore { uid, action } = action else { return };
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let claimed = pod.restore.lineage().map(str::to_owned);
        let Some(wait) = &mut pod.wait else { return };
        wait.answered(now, action, outcome);
        if let Outcome::Done(Done::Lineages { candidates, .. }) = outcome {
            for candidate in candidates.iter().filter(|one| Some(&one.lineage) == claimed.as_ref()) {
                wait.due = match candidate.intent {
                    IntentState::Coming { left } => Some(now + left.as_millis()),
                    IntentState::None | IntentState::Abandoned => None,
                };
            }
        }
    }

    /// Something of what an effect fetches has come.
    pub(super) fn bytes_came(&mut self, id: EffectId) {
        let Some(open) = self.open.get(&id) else { return };
        let Action::Restore { uid, action: RestoreAction::Fetch { .. } } = &open.action else { return };
        self.silence.since = None;
        if let Some(wait) = self.pods.get_mut(uid).and_then(|pod| pod.wait.as_mut()) {
            wait.sign = Some(self.now);
        }
    }

    /// A generation is fetched: no other is waited for.
    pub(super) fn fetches(&mut self, uid: &PodUid) {
        if let Some(wait) = self.pods.get_mut(uid).and_then(|pod| pod.wait.as_mut()) {
            wait.due = None;
        }
    }

    /// A gate is opened because nobody answered.
    pub(super) fn given_up(&mut self, uid: &PodUid, outcome: RestoreOutcome) {
        let Some(wait) = self.pods.get(uid).and_then(|pod| pod.wait) else { return };
        if outcome != RestoreOutcome::StoreUnreachable {
            return;
        }
        if wait.answered {
            self.wrong(11, format!("the gate of {uid} says that the store did not answer, and it did"));
        }
        let (by, _) = wait.ends(self.silence.since, &self.policy);
        if self.now < by {
            self.wrong(11, format!("the gate of {uid} was opened {} ms too early", by - self.now));
        }
    }

    /// Every gate is opened in time, unless the pod leaves.
    pub(super) fn gates(&mut self) {
        let (now, silent) = (self.now, self.silence.since);
        let evacuation = self.notices.evacuation.as_ref();
        let stays_for_now = evacuation.is_none_or(|it| it.hibernates || it.withdrawn.is_some());
        let call = self.policy.call_timeout.as_millis();
        let mut wrong = Vec::new();
        for pod in self.pods.values_mut() {
            let waits = pod.facts.engine.is_some() && !pod.restored && !pod.gone && !pod.asked;
            let free = waits && stays_for_now && pod.facts.terminating.is_none() && pod.began.is_none();
            if !free {
                pod.wait = None;
                continue;
            }
            let wait = *pod.wait.get_or_insert(Wait::new(now));
            let (by, why) = wait.ends(silent, &self.policy);
            if now > by + SLACK {
                wrong.push(format!("the gate of {} is still closed: {why}", pod.name()));
            }
            let overdue = wait.due.is_some_and(|due| now > due + call + SLACK);
            if overdue && wait.sign.is_some() {
                wrong.push(format!("{} still waits for a checkpoint that is overdue", pod.name()));
            }
        }
        for what in wrong {
            self.wrong(11, what);
        }
    }
}
