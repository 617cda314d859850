//! What is there to restore: every lineage of a workload, in one look.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    claim::{Claims, FoundClaim},
    generation::{self, Generation, ReadError},
    intent::{FoundIntent, Intent, IntentState},
    key::{GenerationNumber, LineageId, Workload},
    retry,
    store::{ObjectStore, StoreError},
};

/// The most generations read behind the head.
pub const OLDER_MAX: usize = 8;
/// The most lineages read, the most recently written first: a Deployment leaves one behind for every pod it had.
pub const LINEAGES_MAX: usize = 256;
/// Lineages read at the same time.
const PARALLEL: usize = 16;

/// One lineage as it was found.
#[derive(Debug, Clone)]
pub struct LineageState {
    /// Which.
    pub id: LineageId,
    /// The newest generation that can be read.
    pub head: Option<Generation>,
    /// The ones before it, newest first, at most [`OLDER_MAX`]: what to offer when the head does not verify.
    pub older: Vec<Generation>,
    /// Whether a checkpoint is coming.
    pub intent: Option<FoundIntent>,
    /// Whether somebody restores it.
    pub claim: Option<FoundClaim>,
    /// What could not be read, each with its reason. Such a claim or intent is missing above: be careful with this lineage.
    pub unreadable: Vec<String>,
    /// Why one of these may be readable a moment later: the store asked for patience, or did not answer.
    pub unanswered: Option<String>,
}

/// The parts of a lineage that a listing shows.
#[derive(Default)]
pub(crate) struct Present {
    pub(crate) generations: Vec<GenerationNumber>,
    pub(crate) intent: bool,
    pub(crate) claim: bool,
    pub(crate) modified: Option<Timestamp>,
}

/// Looks at every lineage of `workload`, the most recently written first: one LIST, then the documents it shows, and
/// the claims where `claims` has them.
///
/// What cannot be read spoils only its own lineage.
///
/// # Errors
/// Store errors of the listing. An empty list is no error.
pub async fn survey(
    store: &dyn ObjectStore,
    claims: &Claims,
    workload: &Workload,
    deadline: Instant,
) -> Result<Vec<LineageState>, StoreError> {
    let prefix = workload.lineages();
    let mut present: BTreeMap<LineageId, Present> = BTreeMap::new();
    for object in retry::list(store, &prefix, deadline).await? {
        let Some((id, rest)) = object.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let Ok(id) = LineageId::new(id) else { continue };
        let lineage = present.entry(id).or_default();
        match rest.strip_prefix("gen/").map(GenerationNumber::parse) {
            Some(Some(number)) => lineage.generations.push(number),
            None if rest == "intent" => lineage.intent = true,
            None if rest == "claim" => lineage.claim = true,
            _ => continue,
        }
        lineage.modified = lineage.modified.max(Some(object.modified));
    }
    let mut newest_first: Vec<_> = present.into_iter().collect();
    newest_first.sort_by_key(|(_, lineage)| std::cmp::Reverse(lineage.modified));
    if newest_first.len() > LINEAGES_MAX {
        tracing::warn!(%workload, lineages = newest_first.len(), "only the newest {LINEAGES_MAX} lineages are looked at");
        newest_first.truncate(LINEAGES_MAX);
    }
    let states = stream::iter(newest_first)
        .map(|(id, present)| look(store, claims, workload, id, present, deadline))
        .buffered(PARALLEL)
        .collect()
        .await;
    Ok(states)
}

pub(crate) async fn look(
    store: &dyn ObjectStore,
    claims: &Claims,
    workload: &Workload,
    id: LineageId,
    mut present: Present,
    deadline: Instant,
) -> LineageState {
    let mut unreadable = Vec::new();
    present.generations.sort_unstable_by(|a, b| b.cmp(a));
    present.generations.truncate(OLDER_MAX + 1);
    let mut numbers = present.generations;
    let generations = futures::future::join_all(
        numbers.iter().map(|number| generation::read(store, workload, &id, *number, deadline)),
    );
    let intent =
        async { if present.intent { Intent::read(store, workload, &id, deadline).await } else { Ok(None) } };
    // Elsewhere than in the store only a look tells whether there is one.
    let claimed = present.claim || !claims.are_listed();
    let claim = async { if claimed { claims.read(workload, &id, deadline).await } else { Ok(None) } };
    let (generations, intent, claim) = futures::join!(generations, intent, claim);

    let mut unanswered = None;
    let mut note = |what: &str, error: ReadError| {
        let text = format!("{what}: {error}");
        if let ReadError::Store(error) = &error
            && (error.is_retryable() || matches!(error, StoreError::TimedOut { .. }))
        {
            unanswered.get_or_insert_with(|| text.clone());
        }
        unreadable.push(text);
    };
    let mut read = Vec::new();
    for (number, generation) in numbers.iter().zip(generations) {
        match generation {
            Ok(generation) => read.push(generation),
            Err(error) => note(&format!("gen/{number}"), error),
        }
    }
    let intent = intent.unwrap_or_else(|error| {
        note("intent", error);
        None
    });
    let claim = claim.unwrap_or_else(|error| {
        note("claim", error);
        None
    });
    // Committed after the list was made: the intent names it. Without this the lineage would look abandoned.
    if let Some(IntentState::Committed { number }) = intent.as_ref().map(|found| &found.intent.state)
        && !numbers.contains(number)
    {
        match generation::read(store, workload, &id, *number, deadline).await {
            Ok(generation) => {
                let place = numbers.iter().take_while(|listed| *listed > number).count();
                numbers.insert(place, *number);
                read.insert(place.min(read.len()), generation);
            }
            Err(error) => note(&format!("gen/{number}"), error),
        }
    }
    let mut read = read.into_iter();
    LineageState { head: read.next(), older: read.collect(), id, intent, claim, unreadable, unanswered }
}
