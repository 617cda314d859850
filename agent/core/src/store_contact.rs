//! Since when the store has answered nobody on this node.
//!
//! Decides nothing: it reads it from the answers. It must not know what anybody waits for.

use crate::effect::{Action, PodAction, RestoreAction};
use crate::event::{FailureKind, Outcome};
use crate::moment::Moment;

/// What the answers of one effect tell of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nothing: it asks the store nothing, or something else besides.
    Nothing,
    /// A look: whatever it ends with, the store has answered, or has not.
    Look,
    /// A transfer: it may fail before it reaches the store.
    Transfer,
}

impl Asks {
    pub(crate) const fn of(action: &Action) -> Self {
        match action {
            Action::Restore { action: RestoreAction::FindLineage, .. } => Asks::Look,
            Action::Restore {
                action: RestoreAction::Fetch { .. } | RestoreAction::Prefetch { .. }, ..
            }
            | Action::Pod {
                action: PodAction::WriteIntent { .. } | PodAction::Save { .. } | PodAction::Commit { .. },
                ..
            } => Asks::Transfer,
            // Claims may be Leases of the API server, and a report may be in the journal alone.
            Action::Restore { .. }
            | Action::Pod { .. }
            | Action::Node(_)
            | Action::Cancel { .. }
            | Action::Anomaly { .. } => Asks::Nothing,
        }
    }
}

/// Whether the store answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreContact {
    silent_since: Option<Moment>,
}

impl StoreContact {
    /// Takes an answer to what `asks`.
    pub(crate) fn answered(&mut self, asks: Asks, outcome: &Outcome, now: Moment) {
        match (asks, outcome) {
            (Asks::Nothing, _) => {}
            (Asks::Look | Asks::Transfer, Outcome::Failed { kind: FailureKind::Unreachable, .. })
            | (Asks::Look, Outcome::TimedOut) => {
                self.silent_since.get_or_insert(now);
            }
            (Asks::Look, Outcome::Done(_) | Outcome::Failed { .. })
            | (Asks::Transfer, Outcome::Done(_) | Outcome::Failed { kind: FailureKind::Throttled, .. }) => {
                self.silent_since = None;
            }
            (Asks::Look | Asks::Transfer, Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Panicked) => {
            }
        }
    }

    /// Something has come from it.
    pub(crate) const fn bytes_came(&mut self) {
        self.silent_since = None;
    }

    /// The first try that nobody answered, since the last one that somebody did.
    pub(crate) const fn silent_since(&self) -> Option<Moment> {
        self.silent_since
    }
}
