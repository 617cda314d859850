//! How a lineage stands, in one word and one sentence, from its intent, its claim and its newest generation.

use crate::commands::page::short;
use checkpoint::claim::{ClaimState, FoundClaim};
use checkpoint::generation::Generation;
use checkpoint::intent::{FoundIntent, IntentState};
use serde::Serialize;

/// One word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub(super) enum LineagePhase {
    /// Nothing was committed and nothing is announced.
    Empty,
    /// A checkpoint is being saved.
    Coming,
    /// One was announced, and its source's deadline has passed without a word.
    Overdue,
    /// The announced one will not come.
    Abandoned,
    /// There is one, and nobody holds it.
    Committed,
    /// Somebody restores it.
    Claimed,
    /// It was restored, and nothing was committed since.
    Restored,
}

/// How a lineage stands.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LineageStatus {
    pub(super) state: LineagePhase,
    /// Who, why, how long still.
    pub(super) note: String,
}

impl LineagePhase {
    pub(super) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Judges. A claim that is held comes first; then what the newest writer announced; then what is there.
pub(super) fn judge(
    head: Option<&Generation>,
    intent: Option<&FoundIntent>,
    claim: Option<&FoundClaim>,
) -> LineageStatus {
    let standing = |state, note| LineageStatus { state, note };
    let holder = claim.map(|found| (found, &found.claim.holder));
    if let Some((found, holder)) = holder
        && let (ClaimState::Restoring, Some(left)) = (found.claim.state, found.expires_in)
    {
        return standing(LineagePhase::Claimed, format!("by {holder}, for {} unless renewed", short(left)));
    }
    // A claim may be taken while the checkpoint is still coming; then both have one epoch, and only a commit of the
    // holder itself is newer than its restore.
    let restored = holder.filter(|(found, holder)| {
        let before = |head: &Generation| {
            let (is, epoch) = (head.number.epoch, found.claim.epoch);
            is < epoch || (is == epoch && head.source.uid != holder.pod_uid)
        };
        found.claim.state == ClaimState::Done && head.is_none_or(before)
    });
    // An intent of another pod than the one that restored the lineage is older than the restore.
    let spoken =
        intent.filter(|found| restored.is_none_or(|(_, holder)| holder.pod_uid == found.intent.source.uid));
    if let Some(found) = spoken {
        let source = &found.intent.source;
        let from = format!("from pod {} on node {}", source.name, source.node);
        match (&found.intent.state, found.time_left()) {
            (IntentState::Coming, Some(left)) => {
                return standing(LineagePhase::Coming, format!("{from}, {} left", short(left)));
            }
            (IntentState::Coming, None) => {
                return standing(
                    LineagePhase::Overdue,
                    format!("{from}, announced {} ago", short(found.age)),
                );
            }
            (IntentState::Abandoned { reason }, _) => {
                return standing(LineagePhase::Abandoned, format!("{from}: {reason}"));
            }
            (IntentState::Committed { .. }, _) => {}
        }
    }
    if let Some((_, holder)) = restored {
        return standing(LineagePhase::Restored, format!("by {holder}"));
    }
    let lapsed = holder.filter(|(found, _)| found.expired());
    let note = lapsed.map(|(_, holder)| format!("the claim of {holder} ran out")).unwrap_or_default();
    standing(if head.is_some() { LineagePhase::Committed } else { LineagePhase::Empty }, note)
}
