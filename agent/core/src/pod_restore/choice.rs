//! Which of the lineages of a workload a new pod takes.
//!
//! Decides it by what is known of each alone. It must not know how far the restore is.

use crate::event::{Candidate, IntentState, Source};

/// Which lineage a new pod may take: of its own spec key, not taken, with something in it or coming,
/// and whose source is not alive; its own name first, then the newest.
pub(super) fn choose(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates
        .iter()
        .filter(|candidate| candidate.spec_matches && !candidate.taken)
        .filter(|candidate| candidate.source != Source::Living)
        .filter(|candidate| {
            !candidate.generations.is_empty() || matches!(candidate.intent, IntentState::Coming { .. })
        })
        .max_by_key(|candidate| (candidate.own_name, candidate.newest_unix_ms, &candidate.lineage))
}

/// Says why none of the lineages may be taken.
pub(super) fn why_nothing(found: &[Candidate]) -> String {
    if found.is_empty() {
        return "this workload has no checkpoint".into();
    }
    let count = |reject: fn(&Candidate) -> bool| found.iter().filter(|candidate| reject(candidate)).count();
    format!(
        "of {} lineages {} are of another pod template, {} have a living source, {} are taken",
        found.len(),
        count(|candidate| !candidate.spec_matches),
        count(|candidate| candidate.source == Source::Living),
        count(|candidate| candidate.taken),
    )
}
