//! The announcement of a departing pod's checkpoint: written, taken back, settled.

use super::failure::EffectFailure;
use crate::node::executor::pod_context::PodContext;
use crate::node::executor::{Clients, store};
use checkpoint::generation::ReadError;
use checkpoint::intent::{FoundIntent, Intent, IntentState};
use checkpoint::key::{LineageId, Workload};
use checkpoint::store::Store;
use checkpoint::{generation, intent, restore};
use evacuation::event::Done;
use evacuation::moment::Moment;
use host::clock;

pub(super) async fn intend(
    clients: &Clients,
    context: &PodContext,
    departure: &str,
    by: Moment,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let mut side = context.source.lock().await;
    // What this life of the agent has committed under this name: the pod was taken back since, and has served.
    let again = side.final_commit.take().is_some() && side.departure.as_deref() == Some(departure);
    side.departure = Some(departure.to_owned());
    let store = store(clients).await?;
    let (workload, lineage) = (context.workload(clients)?, context.lineage()?);
    let until = clock::instant(deadline);
    let source = context.as_source(clients);
    // The agent may have been restarted after the commit of this very departure.
    if let Some(found) = announced(&store, &workload, &lineage, until).await?
        && let IntentState::Committed { number } = found.intent.state
        && found.intent.notice_id.as_deref() == Some(departure)
        && found.intent.writer == source.uid
        && !again
    {
        let generation = generation::read(store.as_ref(), &workload, &lineage, number, until).await?;
        let manifest =
            restore::load_manifest(&store, &workload, generation.manifest, clients.mac_key.as_ref(), until)
                .await?;
        let committed = Some((format!("{lineage}/{number}"), manifest.bytes_total()));
        return Ok(Done::IntentWritten { committed, evidence: manifest.fingerprint.has_evidence() });
    }
    let packs = side.baseline.iter().flat_map(|baseline| baseline.manifest.packs()).collect();
    let mut intent = Intent {
        format: intent::FORMAT,
        lineage,
        writer: source.uid.clone(),
        source,
        nonce: String::new(),
        notice_id: Some(departure.to_owned()),
        time_left_ms: by.left(clock::now()).as_millis(),
        spec_key: context.record().workload.spec_key,
        packs,
        state: IntentState::Coming,
    };
    intent.put(store.as_ref(), &workload, until).await?;
    Ok(Done::IntentWritten { committed: None, evidence: true })
}

/// The intent of this lineage. One that cannot be read is as good as none, and is written over: what is saved and
/// committed beside it does not hang on it.
pub(super) async fn announced(
    store: &Store,
    workload: &Workload,
    lineage: &LineageId,
    until: tokio::time::Instant,
) -> Result<Option<FoundIntent>, ReadError> {
    match Intent::read(store.as_ref(), workload, lineage, until).await {
        Err(error @ (ReadError::Document(_) | ReadError::Misplaced { .. })) => {
            tracing::warn!(%error, %lineage, "its intent cannot be read");
            Ok(None)
        }
        found => found,
    }
}

pub(super) async fn abandon(
    clients: &Clients,
    context: &PodContext,
    why: String,
    deadline: Moment,
) -> Result<(), EffectFailure> {
    settle_intent(clients, context, IntentState::Abandoned { reason: why }, deadline).await
}

/// Tells whoever waits for the announced checkpoint how it ended.
pub(super) async fn settle_intent(
    clients: &Clients,
    context: &PodContext,
    state: IntentState,
    deadline: Moment,
) -> Result<(), EffectFailure> {
    let store = store(clients).await?;
    let (workload, lineage) = (context.workload(clients)?, context.lineage()?);
    let until = clock::instant(deadline);
    let Some(found) = announced(&store, &workload, &lineage, until).await? else { return Ok(()) };
    if found.intent.writer != context.record().facts.uid.0 {
        return Ok(());
    }
    let mut intent = found.intent;
    intent.state = state;
    intent.put(store.as_ref(), &workload, until).await?;
    Ok(())
}
