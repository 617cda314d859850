//! What an answer means for one pod's restore.
//!
//! Decides whether the step is done, tried again, or the gate opened. It must not know how the next step is asked for.

use super::choice::why_nothing;
use super::{PodRestore, RestoreStep, choose};
use crate::effect::{Action, KubeEvent, PodAction, RestoreOutcome};
use crate::event::{Candidate, Done, FailureKind, IntentState, Outcome, Verification};
use crate::moment::Span;
use crate::open_effects::{Attempts, Context};
use crate::pod::PodUid;

impl PodRestore {
    /// Takes an answer.
    pub(crate) fn answered(&mut self, pod: &PodUid, outcome: Outcome, ctx: &mut Context<'_>) {
        self.tries.open = None;
        let step = self.step.clone();
        if matches!(step, RestoreStep::Find | RestoreStep::Claim | RestoreStep::AwaitCommit) {
            self.patience.looked(&outcome, ctx.now);
        }
        match (step, outcome) {
            (RestoreStep::Find, Outcome::Done(Done::Lineages { candidates, worth_waiting_for })) => {
                self.found(&candidates, worth_waiting_for, ctx);
            }
            (RestoreStep::AwaitCommit, Outcome::Done(Done::Lineages { candidates, .. })) => {
                self.awaited(&candidates, ctx);
            }
            (RestoreStep::Claim, Outcome::Done(Done::Claimed { resumed, .. })) => {
                self.holds_claim = true;
                self.was_asked |= resumed;
                self.renewal.not_before = ctx.now + ctx.policy.claim_renewal;
                let coming = self
                    .chosen
                    .as_ref()
                    .is_some_and(|chosen| matches!(chosen.intent, IntentState::Coming { .. }));
                self.go(if coming { RestoreStep::AwaitCommit } else { RestoreStep::Fetch });
            }
            // Somebody else was quicker: look again, there may be another lineage.
            (
                RestoreStep::Claim,
                Outcome::Failed { kind: FailureKind::Refused | FailureKind::Mismatch, .. },
            ) => {
                self.chosen = None;
                self.go(RestoreStep::Find);
                self.tries.not_before = ctx.now + Span::from_millis(200);
            }
            (RestoreStep::Fetch, Outcome::Done(done)) => {
                if let Done::Fetched { bytes } = done {
                    self.bytes = bytes;
                }
                self.go(RestoreStep::CheckFingerprint);
            }
            (
                RestoreStep::Fetch,
                Outcome::Failed { kind: FailureKind::Mismatch | FailureKind::NotFound, why },
            ) => {
                self.corrupt(pod, why, ctx);
            }
            (RestoreStep::CheckFingerprint, Outcome::Done(Done::FingerprintMatches { state_bytes })) => {
                if state_bytes > 0 && !self.is_warm_up(state_bytes) {
                    let message = format!("the engine already holds {state_bytes} bytes of state of its own");
                    self.open(RestoreOutcome::HadState, message, ctx);
                } else {
                    self.go(RestoreStep::ImportState);
                }
            }
            (RestoreStep::ImportState, Outcome::Done(Done::Tokens { count })) => {
                self.taken = count;
                self.go(RestoreStep::Verify);
            }
            (
                RestoreStep::CheckFingerprint | RestoreStep::ImportState,
                Outcome::Failed { kind: FailureKind::Mismatch, why },
            ) => {
                self.open(RestoreOutcome::Refused, why, ctx);
            }
            (RestoreStep::Verify, outcome) => self.verified(outcome),
            (
                RestoreStep::Finish,
                Outcome::Failed { kind: FailureKind::Refused | FailureKind::Mismatch, why },
            ) => {
                self.open(RestoreOutcome::Fenced, why, ctx);
            }
            (RestoreStep::Finish, Outcome::Done(_)) => self.finish(ctx),
            (RestoreStep::Finish, _) if self.tries.made >= 5 => self.finish(ctx),
            (
                RestoreStep::Open { .. },
                Outcome::Done(_) | Outcome::Failed { kind: FailureKind::NotFound, .. },
            ) => {
                self.go(RestoreStep::Decided);
            }
            (
                RestoreStep::Find
                | RestoreStep::Claim
                | RestoreStep::Fetch
                | RestoreStep::CheckFingerprint
                | RestoreStep::ImportState,
                Outcome::Failed { kind: FailureKind::Permanent, why },
            ) => self.open(RestoreOutcome::Failed, why, ctx),
            (RestoreStep::ImportState, Outcome::Failed { why, .. }) if self.tries.made >= 3 => {
                self.open(RestoreOutcome::Failed, why, ctx);
            }
            (
                RestoreStep::Find
                | RestoreStep::AwaitCommit
                | RestoreStep::Claim
                | RestoreStep::Fetch
                | RestoreStep::CheckFingerprint
                | RestoreStep::ImportState
                | RestoreStep::Finish
                | RestoreStep::Open { .. },
                _,
            ) => self.tries.failed(ctx.now, Span::from_secs(1)),
            (RestoreStep::Idle | RestoreStep::Decided, outcome) => {
                ctx.fire(Action::Anomaly { what: format!("a restore answer nobody asked for: {outcome:?}") });
            }
        }
    }

    fn found(&mut self, found: &[Candidate], worth_waiting_for: Option<String>, ctx: &mut Context<'_>) {
        let chosen = choose(found);
        self.waits_for = worth_waiting_for.filter(|_| chosen.is_none());
        if self.waits_for.is_some() {
            return self.tries.failed(ctx.now, Span::from_secs(1));
        }
        self.looks += 1;
        if let Some(chosen) = chosen {
            self.generation = chosen.generations.first().cloned();
            self.patience.announced(chosen, ctx.now);
            self.chosen = Some(chosen.clone());
            self.go(RestoreStep::Claim);
        } else if self.looks < 2 {
            // A source may be about to announce itself: its eviction waits for its intent for one
            // second only.
            self.tries = Attempts { not_before: ctx.now + ctx.policy.second_look, ..Attempts::default() };
        } else {
            self.open(RestoreOutcome::NothingToRestore, why_nothing(found), ctx);
        }
    }

    fn awaited(&mut self, found: &[Candidate], ctx: &mut Context<'_>) {
        let lineage = self.chosen.as_ref().map(|chosen| &chosen.lineage);
        let now = found.iter().find(|candidate| Some(&candidate.lineage) == lineage);
        let Some(now) = now else {
            return self.tries.failed(ctx.now, Span::from_secs(1));
        };
        self.patience.announced(now, ctx.now);
        if matches!(now.intent, IntentState::Coming { .. }) {
            self.tries = Attempts { not_before: ctx.now + ctx.policy.intent_poll, ..Attempts::default() };
            return;
        }
        if let Some(open) = self.prefetch.open.take() {
            // What has arrived counts.
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
        self.generation = now.generations.first().cloned();
        self.chosen = Some(now.clone());
        if self.generation.is_some() {
            self.go(RestoreStep::Fetch);
        } else {
            let message = "a checkpoint was announced, abandoned, and none was committed before it";
            self.open(RestoreOutcome::NothingToRestore, message, ctx);
        }
    }

    fn corrupt(&mut self, pod: &PodUid, why: String, ctx: &mut Context<'_>) {
        let Some(chosen) = &self.chosen else {
            return self.open(RestoreOutcome::Corrupt, why, ctx);
        };
        self.patience.bytes_came(ctx.now);
        let bad = self.generation.take().unwrap_or_default();
        let note = format!("generation {bad} of lineage {} is refused: {why}", chosen.lineage);
        let event = KubeEvent::warning("CheckpointRefused", note);
        ctx.fire(Action::Pod { uid: pod.clone(), action: PodAction::Publish(event) });
        self.refused.push(bad);
        let next = chosen.generations.iter().find(|generation| !self.refused.contains(generation)).cloned();
        match next {
            Some(next) => {
                self.generation = Some(next);
                self.go(RestoreStep::Fetch);
            }
            None => self.open(RestoreOutcome::Corrupt, why, ctx),
        }
    }

    fn verified(&mut self, outcome: Outcome) {
        let from = self.generation.clone().unwrap_or_default();
        let taken = self.taken.map_or(String::new(), |taken| format!(", {taken} tokens taken"));
        self.outcome = Some(match outcome {
            Outcome::Done(Done::Verified(Verification::Used { tokens })) => {
                self.verdict = Some(None);
                (RestoreOutcome::Restored, format!("{from}{taken}, {tokens} tokens shown in cache"))
            }
            Outcome::Done(Done::Verified(Verification::NotUsed { why })) => {
                self.verdict = Some(Some(why.clone()));
                (RestoreOutcome::Refused, format!("{from}{taken}, and the engine does not use it: {why}"))
            }
            Outcome::Done(Done::Verified(Verification::NotShown { why })) => (
                RestoreOutcome::RestoredUnverified,
                format!("{from}{taken}, reuse could not be shown: {why}"),
            ),
            Outcome::Failed { why, .. } => (
                RestoreOutcome::RestoredUnverified,
                format!("{from}{taken}, reuse could not be shown: {why}"),
            ),
            Outcome::Done(_) | Outcome::TimedOut | Outcome::Panicked => {
                (RestoreOutcome::RestoredUnverified, format!("{from}{taken}, reuse could not be shown"))
            }
        });
        self.go(RestoreStep::Finish);
    }

    /// Opens the gate with what the verification said.
    pub(super) fn finish(&mut self, ctx: &mut Context<'_>) {
        let (outcome, message) =
            self.outcome.clone().unwrap_or((RestoreOutcome::RestoredUnverified, String::new()));
        self.open(outcome, message, ctx);
    }
}
