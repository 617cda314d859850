//! What was flushed goes to the store.

use super::failure::EffectFailure;
use crate::node::executor::pod_context::{Baseline, PodContext, SourceSide};
use crate::node::executor::{Clients, store};
use checkpoint::dispatcher::{Class, Rank};
use checkpoint::key::{LineageId, Workload};
use checkpoint::reuse::{self, Reusable};
use checkpoint::save::{self, Identity, Progress, SaveRequest, SourceFile};
use checkpoint::store::Store;
use checkpoint::{generation, restore};
use evacuation::effect::FlushKind;
use evacuation::event::{Done, FailureKind};
use evacuation::moment::{Moment, Span};
use host::clock;
use std::sync::Arc;

/// A save ends this much before its effect does, so that it can say what is whole.
const TO_ANSWER: Span = Span::from_millis(300);

pub(super) async fn save(
    clients: &Clients,
    context: &PodContext,
    kind: FlushKind,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let mut side = context.source.lock().await;
    let store = store(clients).await?;
    let workload = context.workload(clients)?;
    let until = clock::instant((deadline - TO_ANSWER).max(clock::now() + Span::from_millis(50)));
    look_back(clients, context, &store, &workload, &mut side, until).await;
    if !side.reusable.as_ref().is_some_and(Reusable::is_good) {
        // What may be built on: also packs that an earlier life of this agent had sent, and nothing that is being removed.
        // Without it the parent is trusted, as it was committed: the store has other troubles then.
        let listed = reuse::list(store.as_ref(), &workload, clients.lifecycle, until).await;
        let listed =
            listed.inspect_err(|error| tracing::warn!(%error, "what the store has could not be listed"));
        side.reusable = listed.ok();
    }
    let (bytes, sent, left_out) =
        save_flushed(clients, &mut side, &store, &workload, (kind, &context.rank), until).await?;
    Ok(Done::Saved { bytes, sent, left_out, newest: newest(&side, &context.lineage()?) })
}

/// The newest generation of `lineage` that is known. What a restored pod took of another lineage does not count: nobody
/// finds that one any more.
pub(super) fn newest(side: &SourceSide, lineage: &LineageId) -> Option<(String, u64)> {
    let continued = side.baseline.as_ref().filter(|baseline| baseline.is_continued);
    let baseline = continued.filter(|baseline| baseline.lineage == *lineage)?;
    Some((format!("{lineage}/{}", baseline.number), baseline.manifest.bytes_total()))
}

/// Saves what is flushed, and keeps the account in `side`.
async fn save_flushed(
    clients: &Clients,
    side: &mut SourceSide,
    store: &Store,
    workload: &Workload,
    (kind, rank): (FlushKind, &Rank),
    until: tokio::time::Instant,
) -> Result<(u64, u64, Option<String>), EffectFailure> {
    let Some(flushed) = &side.flushed else {
        return Err(EffectFailure::new(
            FailureKind::Transient,
            "nothing is flushed: the agent was restarted in between",
        ));
    };
    let mut files = Vec::with_capacity(flushed.files.len());
    for file in &flushed.files {
        let again =
            file.file.try_clone().map_err(|e| EffectFailure::new(FailureKind::Transient, e.to_string()))?;
        files.push(SourceFile {
            path: file.path.clone(),
            mode: file.mode,
            size: file.size,
            file: again,
            chunking: file.chunking,
        });
    }
    let baseline = side.baseline.clone();
    let request = SaveRequest {
        workload,
        files,
        parent: baseline.as_ref().map(|baseline| baseline.manifest.as_ref()),
        known_packs: side.reusable.as_ref().map(|reusable| reusable.packs().clone()),
        condemned: side.reusable.as_ref().map(Reusable::condemned_packs).unwrap_or_default(),
        round: baseline.as_ref().map(|baseline| baseline.round.as_ref()),
        remember: kind == FlushKind::PreCopy,
        identity: Identity::Blake3,
        pack_size: usize::try_from(clients.pack_size).unwrap_or(save::PACK_SIZE),
        class: match kind {
            FlushKind::PreCopy => Class::PreCopy,
            FlushKind::Final => Class::Drain,
        },
        rank: rank.clone(),
        deadline: until,
    };
    let progress = Arc::new(Progress::default());
    let saved = match save::save(store, request, &clients.dispatcher, &progress).await {
        Ok(saved) => saved,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the save is not whole");
            error.into_partial()
        }
    };
    let left_out: Vec<String> =
        saved.failed.iter().map(ToString::to_string).chain(flushed.missing.iter().cloned()).collect();
    let whole = saved.is_whole() && flushed.missing.is_empty();
    // Into the report, which people read: the first few are enough.
    let left_out = (!whole).then(|| match left_out.is_empty() {
        true if saved.set_back => {
            "its time was over: at the measured rate it would not have been in time, and what would went before".to_owned()
        }
        true => "its time was over".to_owned(),
        false => left_out.iter().take(4).map(String::as_str).collect::<Vec<_>>().join("; "),
    });
    if let Some(rate) = progress.read_rate() {
        clients.metrics.read_rate(rate);
    }
    let bytes = saved.files.iter().map(|file| file.size).sum();
    let sent = saved.bytes_sent;
    for failed in &saved.failed {
        tracing::warn!(file = %failed, "left out");
    }
    if let Some(reusable) = &mut side.reusable {
        reusable.sent(&saved.acknowledged);
    }
    side.saved = Some(saved);
    Ok((bytes, sent, left_out))
}

/// The newest generation of this lineage, if this life of the agent does not know it yet: what it
/// names is not sent again.
async fn look_back(
    clients: &Clients,
    context: &PodContext,
    store: &Store,
    workload: &Workload,
    side: &mut SourceSide,
    until: tokio::time::Instant,
) {
    if side.looked_back || side.baseline.is_some() {
        side.looked_back = true;
        return;
    }
    side.looked_back = true;
    let Ok(lineage) = context.lineage() else { return };
    let found = async {
        let number = generation::newest(store.as_ref(), workload, &lineage, until).await.ok()??;
        let generation = generation::read(store.as_ref(), workload, &lineage, number, until).await.ok()?;
        let manifest =
            restore::load_manifest(store, workload, generation.manifest, clients.mac_key.as_ref(), until)
                .await
                .ok()?;
        Some(Baseline::found(manifest, number, &context.record().facts.uid.0))
    };
    side.baseline = found.await;
}
