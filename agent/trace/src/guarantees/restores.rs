//! The replacement's side: one claim, and nothing handed over unproven (guarantee 6).
//!
//! Knows a restore by its answers. It must not know what is in a lineage.

use super::Checker;
use evacuation::effect::{Action, RestoreAction, RestoreOutcome};
use evacuation::event::{Done, FailureKind, Outcome, Verification};
use evacuation::pod::{PodUid, RestoreMode};

/// How far one restore is, by the answers so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    claimed: Option<String>,
    fetched: bool,
    fingerprint_matches: bool,
    mismatch: bool,
    /// Bytes of what was fetched, and what the engine held of its own when it was looked at.
    bytes: u64,
    own_state: u64,
    /// The engine showed that it does not use what it took.
    not_used: bool,
    /// It was asked to take it.
    handed_over: bool,
    /// The claim was given back.
    given_back: bool,
    /// The engine was restarted, and its state is read from its own volume.
    restarted: bool,
    reloads: bool,
}

impl Progress {
    /// The lineage whose claim it has.
    pub(super) fn lineage(&self) -> Option<&str> {
        self.claimed.as_deref()
    }

    /// Another life of the engine: what the one before it was shown to be counts no more.
    pub(super) fn restarted(&mut self) {
        (self.restarted, self.reloads, self.fingerprint_matches) = (true, false, false);
    }

    /// What the engine holds is less than a twentieth of what was saved.
    fn holds_a_warm_up(&self) -> bool {
        self.own_state.saturating_mul(20) < self.bytes
    }

    pub(super) fn answered(&mut self, action: &Action, outcome: &Outcome) {
        let done = matches!(outcome, Outcome::Done(_));
        match action {
            Action::Restore { action: RestoreAction::Claim { lineage, .. }, .. } if done => {
                self.claimed = Some(lineage.clone());
                self.handed_over |= matches!(outcome, Outcome::Done(Done::Claimed { resumed: true, .. }));
            }
            Action::Restore { action: RestoreAction::Fetch { .. }, .. } => {
                self.fetched = done;
                if let Outcome::Done(Done::Fetched { bytes }) = outcome {
                    self.bytes = *bytes;
                }
            }
            Action::Restore { action: RestoreAction::Verify, .. } if !self.restarted => {
                self.not_used =
                    matches!(outcome, Outcome::Done(Done::Verified(Verification::NotUsed { .. })));
            }
            Action::Restore { action: RestoreAction::ReloadLocal, .. } => self.reloads = done,
            Action::Restore { action: RestoreAction::CheckFingerprint, .. } if done => {
                self.fingerprint_matches = true;
                if let Outcome::Done(Done::FingerprintMatches { state_bytes }) = outcome {
                    self.own_state = *state_bytes;
                }
            }
            Action::Restore {
                action: RestoreAction::CheckFingerprint | RestoreAction::ImportState, ..
            } if self.reloads => {
                self.reloads = !matches!(outcome, Outcome::Failed { kind: FailureKind::Mismatch, .. });
            }
            Action::Restore {
                action: RestoreAction::CheckFingerprint | RestoreAction::ImportState, ..
            } => {
                self.mismatch |= matches!(outcome, Outcome::Failed { kind: FailureKind::Mismatch, .. });
            }
            _ => {}
        }
    }
}

impl Checker {
    pub(super) fn restores(&mut self, uid: &PodUid, action: &Action) {
        let open = self
            .open
            .values()
            .any(|open| open.action.pod() == Some(uid) && open.action.name() == action.name());
        match action {
            Action::Restore { action: RestoreAction::OpenGate { outcome, .. }, .. } => {
                self.given_up(uid, *outcome);
            }
            Action::Restore { action: RestoreAction::Fetch { .. }, .. } => self.fetches(uid),
            _ => {}
        }
        let Some(pod) = self.pods.get_mut(uid) else {
            return self.wrong(6, format!("{action:?} for a pod that was never seen"));
        };
        let gated =
            pod.facts.engine.as_ref().is_some_and(|it| it.restore == RestoreMode::Gate) && !pod.restored;
        let progress = &mut pod.restore;
        let mut wrong = Vec::new();
        let mut say = |why: &str| wrong.push((6, why.to_owned()));
        if open {
            say("while the same is open");
        }
        let of_a_reload = progress.reloads
            && matches!(
                action,
                Action::Restore {
                    action: RestoreAction::CheckFingerprint
                        | RestoreAction::ImportState
                        | RestoreAction::Verify,
                    ..
                }
            );
        let may_go_on = of_a_reload
            || matches!(
                action,
                Action::Restore { action: RestoreAction::OpenGate { .. } | RestoreAction::ReloadLocal, .. }
            );
        let decided = pod.restored && !may_go_on;
        if decided {
            say("although its restore is decided");
        }
        match action {
            _ if decided => {}
            Action::Restore { action: RestoreAction::Claim { lineage, .. }, .. }
                if progress.claimed.as_ref().is_some_and(|claimed| claimed != lineage) =>
            {
                say("while it holds another claim");
            }
            Action::Restore {
                action: RestoreAction::Fetch { .. } | RestoreAction::Prefetch { .. }, ..
            } if progress.claimed.is_none() => {
                say("without a claim");
            }
            Action::Restore { action: RestoreAction::ReloadLocal, .. } => {
                if !progress.restarted {
                    say("although its engine was not restarted");
                }
                if !pod.restored {
                    say("before its restore is decided");
                }
                // Asked again of an engine that has what it was given.
                (progress.restarted, progress.fingerprint_matches) = (true, false);
            }
            Action::Restore { action: RestoreAction::CheckFingerprint, .. }
                if !progress.fetched && !of_a_reload =>
            {
                say("before anything is fetched")
            }
            Action::Restore { action: RestoreAction::ImportState, .. } => {
                progress.handed_over = true;
                let found = progress.claimed.is_some() && progress.fetched;
                if !(found || of_a_reload) || !progress.fingerprint_matches {
                    say("before claim, fetch and proof");
                }
                if progress.mismatch && !of_a_reload {
                    say("although it does not fit");
                }
                if progress.own_state > 0 && (of_a_reload || !gated || !progress.holds_a_warm_up()) {
                    say("into an engine that has state of its own");
                }
            }
            Action::Restore { action: RestoreAction::GiveBackClaim { .. }, .. } => {
                if progress.handed_over {
                    say("although the engine may hold its state");
                }
                (progress.given_back, progress.claimed, progress.fetched) = (true, None, false);
            }
            Action::Restore { action: RestoreAction::OpenGate { outcome, .. }, .. } => {
                if progress.mismatch && *outcome != RestoreOutcome::Refused {
                    say("although it was refused");
                }
                let restored =
                    matches!(outcome, RestoreOutcome::Restored | RestoreOutcome::RestoredUnverified);
                if progress.not_used && restored {
                    say("although the engine does not use it");
                }
                if *outcome == RestoreOutcome::HadState {
                    if gated && progress.holds_a_warm_up() {
                        say("although that is the warm-up of an engine that served nobody");
                    }
                    if !(progress.given_back || progress.handed_over) {
                        say("and its claim is kept");
                    }
                }
                pod.restored = true;
            }
            _ => {}
        }
        self.all_wrong(format!("{action:?}"), wrong);
    }
}
