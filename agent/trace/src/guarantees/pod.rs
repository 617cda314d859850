//! What one life of the agent has seen of one pod and done with it, by the events and effects so far.
//!
//! Judges nothing by itself. It must not know other pods.

use super::patience::Wait;
use super::restores::Progress;
use evacuation::effect::{Action, FlushKind, Hold, PodAction};
use evacuation::event::{Done, FailureKind, Outcome};
use evacuation::pod::{EvictWhen, Owner, PodFacts};
use evacuation::policy::Policy;

/// One pod, in one life.
#[derive(Debug)]
pub(super) struct JudgedPod {
    pub(super) facts: PodFacts,
    pub(super) gone: bool,
    /// It was to stay on its node, at some time.
    pub(super) stayed: bool,
    /// Its gate is decided, as far as this life knows.
    pub(super) restored: bool,
    /// The departure that its intent names.
    pub(super) departure: Option<String>,
    /// The intent of a departure under the notice was asked for.
    pub(super) announced: bool,
    /// An intent was asked for, and was written.
    pub(super) intended: bool,
    pub(super) intent_written: bool,
    /// When its engine was quiesced.
    pub(super) began: Option<u64>,
    /// When its engine was ready for the final flush; whether it was asked for, and was done.
    pub(super) flush_ready: Option<u64>,
    pub(super) flush_asked: bool,
    pub(super) flushed: bool,
    /// Since when the flush could begin, but for more important ones.
    pub(super) could_flush: Option<u64>,
    /// Since when it serves to the end, with a state of its own.
    pub(super) could_save: Option<u64>,
    /// Bytes of state that the final flush wrote, and that the engine last said it has.
    pub(super) bytes: u64,
    pub(super) state_bytes: u64,
    /// Engines that took such a state did not use it.
    pub(super) doubted: bool,
    /// A save of the final round ended: `Some(true)` with all of it. The same of a pre-copy.
    pub(super) saved: Option<bool>,
    pub(super) copied: Option<bool>,
    /// Bytes of the last save that was answered, of either round; and of the newest generation that is known.
    pub(super) in_store: u64,
    pub(super) newest: Option<u64>,
    /// A commit found packs of it endangered, and nothing was saved since; and so often it was saved again for that.
    pub(super) endangered: bool,
    pub(super) resaves: u32,
    pub(super) committed: bool,
    /// The commit said that it is partial; `None` where an earlier life made it.
    pub(super) partial: Option<bool>,
    /// Whether anything shows the weights of what was flushed last, and whether a probe was asked for since.
    pub(super) evidence: bool,
    pub(super) probed: bool,
    pub(super) given_up: bool,
    pub(super) over_since: Option<u64>,
    /// It was first seen to be deleted at this moment.
    pub(super) deleted_since: Option<u64>,
    pub(super) refused_at: Option<u64>,
    pub(super) slots_were_full: bool,
    /// An eviction or a delete was asked for, under this notice; and in this life.
    pub(super) asked: bool,
    pub(super) ever_asked: bool,
    /// The newest hold that was asked for.
    pub(super) hold: Option<Hold>,
    pub(super) hold_failed: bool,
    /// What this life has written to its hold file, ms; 0 for released or nothing.
    pub(super) held_until: u64,
    pub(super) restore: Progress,
    /// Its gate is closed, and nothing but its restore keeps it so.
    pub(super) wait: Option<Wait>,
}

impl JudgedPod {
    pub(super) fn new(facts: PodFacts) -> Self {
        Self {
            restored: facts.restore_decided,
            facts,
            gone: false,
            stayed: false,
            departure: None,
            announced: false,
            intended: false,
            intent_written: false,
            began: None,
            flush_ready: None,
            flush_asked: false,
            flushed: false,
            could_flush: None,
            could_save: None,
            bytes: 0,
            state_bytes: 0,
            doubted: false,
            saved: None,
            copied: None,
            in_store: 0,
            newest: None,
            endangered: false,
            resaves: 0,
            committed: false,
            partial: None,
            evidence: true,
            probed: false,
            given_up: false,
            over_since: None,
            deleted_since: None,
            refused_at: None,
            slots_were_full: false,
            asked: false,
            ever_asked: false,
            hold: None,
            hold_failed: false,
            held_until: 0,
            restore: Progress::default(),
            wait: None,
        }
    }

    pub(super) fn seen(&mut self, facts: &PodFacts, now: u64) {
        if facts.terminating.is_some() {
            self.deleted_since.get_or_insert(now);
        }
        self.restored |= facts.restore_decided;
        if facts.restarts != self.facts.restarts {
            self.restore.restarted();
        }
        self.stayed |= facts.stays().is_some();
        // A termination never ends: a list that shows the pod without it is older.
        let terminating = facts.terminating.or(self.facts.terminating);
        self.facts = PodFacts { terminating, ..facts.clone() };
        if facts.terminating.is_some() || facts.stays().is_some() {
            self.refused_at = None;
        }
    }

    /// A departure begins with its intent, and knows nothing of an earlier one.
    pub(super) fn intends(&mut self, departure: &str) {
        self.departure = Some(departure.to_owned());
        self.intended = true;
        self.announced = departure != "deleted";
        (self.intent_written, self.flushed, self.saved) = (false, false, None);
        (self.flush_ready, self.flush_asked, self.could_flush, self.bytes) = (None, false, None, 0);
        (self.committed, self.partial, self.given_up) = (false, None, false);
        (self.over_since, self.began) = (None, None);
        (self.endangered, self.resaves) = (false, 0);
        (self.evidence, self.probed) = (true, false);
    }

    pub(super) fn answered(&mut self, now: u64, action: &Action, outcome: &Outcome) {
        let done = matches!(outcome, Outcome::Done(_));
        match (action, outcome) {
            (
                Action::Pod { action: PodAction::WriteIntent { .. }, .. },
                Outcome::Done(Done::IntentWritten { committed: Some(_), .. }),
            ) => {
                self.intent_written = true;
                (self.committed, self.over_since) = (true, Some(now));
            }
            (Action::Pod { action: PodAction::WriteIntent { .. }, .. }, _) => self.intent_written = done,
            (
                Action::Pod { action: PodAction::InspectEngine, .. },
                Outcome::Done(Done::Inspected { state_bytes, doubt, .. }),
            ) => {
                self.doubted = doubt.is_some();
                self.state_bytes = *state_bytes;
            }
            // An engine that cannot be quiesced is flushed as it is.
            (Action::Pod { action: PodAction::Quiesce, .. }, _) => self.flush_ready = Some(now),
            (
                Action::Pod { action: PodAction::Flush { kind: FlushKind::Final, .. }, .. },
                Outcome::Done(done),
            ) => {
                self.flushed = true;
                if let Done::Flushed { bytes, evidence } = done {
                    self.bytes = *bytes;
                    (self.evidence, self.probed) = (*evidence, false);
                }
            }
            (Action::Pod { action: PodAction::ProbeEngine, .. }, _) => self.evidence |= done,
            (
                Action::Pod { action: PodAction::Save { kind, .. }, .. },
                Outcome::Done(Done::Saved { bytes, left_out, newest, .. }),
            ) => {
                self.in_store = *bytes;
                self.newest = newest.as_ref().map(|(_, held)| *held).or(self.newest);
                match kind {
                    FlushKind::Final => self.saved = Some(left_out.is_none()),
                    FlushKind::PreCopy => self.copied = Some(left_out.is_none()),
                }
            }
            // What was sent so far may be committed as partial.
            (Action::Pod { action: PodAction::Save { kind: FlushKind::Final, .. }, .. }, _) => {
                self.saved.get_or_insert(false);
            }
            (
                Action::Pod { action: PodAction::Commit { kind: FlushKind::PreCopy, .. }, .. },
                Outcome::Done(Done::Committed { bytes, .. }),
            ) => self.newest = Some(*bytes),
            (
                Action::Pod { action: PodAction::Commit { kind: FlushKind::Final, .. }, .. },
                Outcome::Failed { kind: FailureKind::Endangered, .. },
            ) => self.endangered = true,
            (
                Action::Pod { action: PodAction::Commit { kind: FlushKind::Final, partial, .. }, .. },
                Outcome::Done(Done::Committed { .. }),
            ) => {
                (self.committed, self.partial) = (true, Some(*partial));
                self.over_since = Some(now);
            }
            (
                Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. },
                Outcome::Failed { kind, .. },
            ) => {
                self.gone |= *kind == FailureKind::NotFound;
            }
            (Action::Pod { action: PodAction::SetHold { hold, .. }, .. }, _) => {
                self.hold_failed |= !done;
                self.held_until = match hold {
                    Hold::Until(until) if done => until.as_millis(),
                    Hold::Until(_) | Hold::Released => 0,
                };
            }
            _ => self.restore.answered(action, outcome),
        }
    }

    pub(super) fn is_shed(&self, policy: &Policy) -> bool {
        self.facts.role.is_shed() || self.facts.priority < policy.shed_below
    }

    /// It is not evicted, and its processes run until the node ends.
    pub(super) fn runs_on(&self) -> bool {
        matches!(self.facts.owner, Owner::Bare { .. } | Owner::Daemon { .. })
            && self.facts.stays().is_some()
            && self.facts.terminating.is_none()
    }

    /// It can wait inside its own eviction for its save.
    pub(super) fn can_be_held(&self) -> bool {
        self.facts.owner != Owner::Named
            && self
                .facts
                .engine
                .as_ref()
                .is_some_and(|engine| engine.holds && engine.evict != EvictWhen::Last)
    }

    /// It departs, and its state is neither in the store nor given up.
    pub(super) fn is_unsaved(&self) -> bool {
        self.intended && !(self.committed || self.given_up || self.gone)
    }

    /// The earliest moment that may be taken for its cut-off: its grace (15 s at most), a StatefulSet's lead of 15 s
    /// and the commit's 2 s before the deadline, each within its share of a short window.
    pub(super) fn cutoff(&self, policy: &Policy, began: u64, deadline: u64) -> u64 {
        let window = deadline.saturating_sub(began);
        if self.facts.is_late() {
            let lead = policy.late_lead.as_millis().min(window / 4);
            return deadline - lead + lead / 2;
        }
        let grace = self.facts.grace.as_millis().min(policy.grace_after_save.as_millis()).min(window / 4);
        let named = match self.facts.owner {
            Owner::Named => policy.named_lead.as_millis().min(window / 4),
            _ => 0,
        };
        let reserve = policy.commit_reserve.as_millis().min(window / 10);
        // A held pod needs a second to end, not its grace.
        let after = if self.can_be_held() { grace.max((window / 10).min(1_000)) } else { grace };
        deadline.saturating_sub(after + named + reserve).max(began)
    }

    /// For people: which pod.
    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.facts.display_name(), self.facts.uid)
    }
}
