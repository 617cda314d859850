//! What the store holds for a new pod, and what is wrong with it.

use crate::scenario::pick;
use evacuation::event::{Candidate, Done, FailureKind, IntentState, Outcome, Source, Verification};
use evacuation::moment::Span;
use fastrand::Rng;
use std::collections::BTreeMap;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    Nothing,
    Committed,
    /// Several pods may want the same one.
    Shared,
    Coming,
    ComingThenAbandoned,
    Taken,
    Living,
    OtherSpec,
    /// Claimed by a pod that is gone, until its claim runs out.
    Orphaned,
}

/// What is wrong with it, or with the new engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    OtherWeights,
    NeverStarts,
    HasState,
    RefusesState,
    ShowsNothing,
    UsesNothing,
    WarmedUp,
    HangsAtTheEnd,
    ClaimIsLost,
    Fenced,
    NoAccess,
    /// Bytes stop coming in the middle of a fetch.
    Stalls,
}

/// The past of one workload.
#[derive(Clone, Debug)]
pub struct Past {
    pub lineage: Lineage,
    pub generations: usize,
    /// How many of the newest do not verify.
    pub corrupt: usize,
    /// When an announced checkpoint is committed or abandoned, after the first look.
    pub comes_after: u64,
    pub fetch_takes: u64,
    pub starts_after: u64,
    pub flaw: Flaw,
}

impl Past {
    pub fn draw(rng: &mut Rng) -> Self {
        use Flaw::{
            ClaimIsLost, Fenced, HangsAtTheEnd, HasState, NeverStarts, NoAccess, None, OtherWeights,
            RefusesState, ShowsNothing, Stalls, UsesNothing, WarmedUp,
        };
        use Lineage::{
            Coming, ComingThenAbandoned, Committed, Living, Nothing, Orphaned, OtherSpec, Shared, Taken,
        };
        Self {
            lineage: pick(
                rng,
                &[
                    Nothing,
                    Committed,
                    Committed,
                    Committed,
                    Shared,
                    Coming,
                    Coming,
                    ComingThenAbandoned,
                    Taken,
                    Living,
                    OtherSpec,
                    Orphaned,
                ],
            ),
            generations: rng.usize(0..4),
            corrupt: pick(rng, &[0, 0, 0, 1, 2]),
            comes_after: rng.u64(0..40_000),
            fetch_takes: rng.u64(10..20_000),
            starts_after: rng.u64(0..10_000),
            flaw: pick(
                rng,
                &[
                    None,
                    None,
                    None,
                    None,
                    None,
                    OtherWeights,
                    NeverStarts,
                    HasState,
                    RefusesState,
                    ShowsNothing,
                    ShowsNothing,
                    UsesNothing,
                    ShowsNothing,
                    UsesNothing,
                    UsesNothing,
                    WarmedUp,
                    HangsAtTheEnd,
                    ClaimIsLost,
                    Fenced,
                    NoAccess,
                    Stalls,
                ],
            ),
        }
    }
}

/// The claims of the store, and how far each new pod is.
#[derive(Debug, Default)]
pub struct Restores {
    claims: BTreeMap<String, String>,
    finished: BTreeMap<String, String>,
    first_look: BTreeMap<String, u64>,
    lost: BTreeMap<String, ()>,
    pub holds_state: BTreeMap<String, u64>,
}

impl Restores {
    pub fn lineage_of(pod: &str, past: &Past) -> String {
        if past.lineage == Lineage::Shared { "shared".into() } else { format!("before-{pod}") }
    }

    /// Who holds the claim, or has restored it.
    pub fn holder(&self, lineage: &str) -> Option<&String> {
        self.finished.get(lineage).or_else(|| self.claims.get(lineage))
    }

    pub fn find(&mut self, pod: &str, past: &Past, now: u64) -> Outcome {
        if past.flaw == Flaw::NoAccess {
            return failed(FailureKind::Permanent, "403 from the store");
        }
        let first = *self.first_look.entry(pod.to_owned()).or_insert(now);
        let lineage = Self::lineage_of(pod, past);
        let taken_by_another = self.holder(&lineage).is_some_and(|holder| holder != pod);
        let mut count = past.generations.max(1);
        let mut intent = IntentState::None;
        let come = now >= first + past.comes_after;
        match past.lineage {
            Lineage::Nothing => {
                return Outcome::Done(Done::Lineages { candidates: Vec::new(), worth_waiting_for: None });
            }
            Lineage::Coming if !come => {
                count = past.generations;
                intent = IntentState::Coming { left: Span::from_millis(first + past.comes_after - now) };
            }
            Lineage::ComingThenAbandoned => {
                count = past.generations;
                intent = if come {
                    IntentState::Abandoned
                } else {
                    IntentState::Coming { left: Span::from_secs(60) }
                };
            }
            Lineage::Coming => count = past.generations + 1,
            Lineage::Committed
            | Lineage::Shared
            | Lineage::Taken
            | Lineage::Living
            | Lineage::OtherSpec
            | Lineage::Orphaned => {}
        }
        let orphaned = past.lineage == Lineage::Orphaned && !come;
        let worth_waiting_for = orphaned.then(|| "its claim is held by a pod that is gone".to_owned());
        let candidate = Candidate {
            generations: (0..count).rev().map(|number| format!("{lineage}/1-{number}")).collect(),
            own_name: false,
            spec_matches: past.lineage != Lineage::OtherSpec,
            newest_unix_ms: 1,
            source: if past.lineage == Lineage::Living { Source::Living } else { Source::Gone },
            intent,
            taken: past.lineage == Lineage::Taken
                || orphaned
                || taken_by_another
                || self.lost.contains_key(pod),
            lineage,
        };
        // An elder one, for whoever cannot have the first.
        let elder = Candidate {
            lineage: format!("elder-{pod}"),
            generations: vec![format!("elder-{pod}/1-0")],
            newest_unix_ms: 0,
            intent: IntentState::None,
            taken: false,
            ..candidate.clone()
        };
        let mut found = vec![candidate];
        found.extend((past.generations > 1 && past.lineage != Lineage::Orphaned).then_some(elder));
        Outcome::Done(Done::Lineages { candidates: found, worth_waiting_for })
    }

    pub fn claim(&mut self, pod: &str, lineage: &str, past: &Past) -> Outcome {
        if past.flaw == Flaw::ClaimIsLost && lineage == Self::lineage_of(pod, past) {
            self.lost.insert(pod.to_owned(), ());
            return failed(FailureKind::Refused, "another pod was quicker");
        }
        if self.holder(lineage).is_some_and(|holder| holder != pod) {
            return failed(FailureKind::Refused, "held by another");
        }
        let before = self.claims.insert(lineage.to_owned(), pod.to_owned());
        Outcome::Done(Done::Claimed { epoch: 2, resumed: before.as_deref() == Some(pod) })
    }

    pub fn renew(&mut self, pod: &str, lineage: &str, past: &Past) -> Outcome {
        if past.flaw == Flaw::Fenced {
            self.lost.insert(pod.to_owned(), ());
            self.claims.insert(lineage.to_owned(), "another".into());
            return failed(FailureKind::Mismatch, "the claim is another's");
        }
        if self.holder(lineage).is_some_and(|holder| holder == pod) {
            Outcome::Done(Done::Nothing)
        } else {
            failed(FailureKind::Refused, "the claim is another's")
        }
    }

    pub fn finish(&mut self, pod: &str, lineage: &str, past: &Past) -> Outcome {
        let outcome = self.renew(pod, lineage, past);
        if matches!(outcome, Outcome::Done(_)) {
            self.finished.insert(lineage.to_owned(), pod.to_owned());
        }
        outcome
    }

    pub fn give_back(&mut self, pod: &str, lineage: &str, past: &Past) -> Outcome {
        let outcome = self.renew(pod, lineage, past);
        if matches!(outcome, Outcome::Done(_)) {
            self.claims.remove(lineage);
        }
        outcome
    }

    pub fn fetch(past: &Past, generation: &str) -> Option<Outcome> {
        if past.flaw == Flaw::Stalls {
            return None;
        }
        let number = generation.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
        let count = match past.lineage {
            Lineage::Coming => past.generations + 1,
            Lineage::ComingThenAbandoned => past.generations,
            _ => past.generations.max(1),
        };
        Some(match number {
            Some(number) if number + past.corrupt < count => Outcome::Done(Done::Fetched { bytes: 1_000 }),
            _ => failed(FailureKind::Mismatch, "a checksum differs"),
        })
    }

    pub fn prove(&self, pod: &str, past: &Past) -> Option<Outcome> {
        let own = self.holds_state.get(pod).copied().unwrap_or(0);
        match past.flaw {
            Flaw::NeverStarts => None,
            Flaw::OtherWeights => Some(failed(FailureKind::Mismatch, "the probe's first token differs")),
            Flaw::HasState => Some(Outcome::Done(Done::FingerprintMatches { state_bytes: 77 })),
            Flaw::WarmedUp => Some(Outcome::Done(Done::FingerprintMatches { state_bytes: 3 })),
            _ => Some(Outcome::Done(Done::FingerprintMatches { state_bytes: own })),
        }
    }

    pub fn hand_over(&mut self, pod: &str, past: &Past) -> Outcome {
        if past.flaw == Flaw::RefusesState {
            return failed(FailureKind::Transient, "500 from the engine");
        }
        self.holds_state.insert(pod.to_owned(), 1_000);
        Outcome::Done(Done::Tokens { count: (past.generations != 1).then_some(512) })
    }

    pub fn verify(past: &Past) -> Option<Outcome> {
        match past.flaw {
            Flaw::HangsAtTheEnd => None,
            Flaw::ShowsNothing => Some(verified(Verification::NotShown { why: "it is busy".into() })),
            Flaw::UsesNothing => Some(verified(Verification::NotUsed { why: "0 of 500 tokens".into() })),
            _ => Some(verified(Verification::Used { tokens: 500 })),
        }
    }
}

fn verified(verification: Verification) -> Outcome {
    Outcome::Done(Done::Verified(verification))
}

pub fn failed(kind: FailureKind, why: &str) -> Outcome {
    Outcome::Failed { kind, why: why.to_owned() }
}
