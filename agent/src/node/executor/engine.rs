//! What is asked of the engine of a pod that serves or leaves: looks, the flush, the probe beside the upload.

use super::failure::EffectFailure;
use super::flushed_files;
use crate::node::executor::pod_context::{FlushedState, KnownDoubt, PodContext};
use crate::node::executor::{Clients, store};
use crate::runtime::metrics::labels::TokenStage;
use crate::volume::kept::Kept;
use checkpoint::fingerprint::Fingerprint;
use checkpoint::verdict;
use evacuation::effect::FlushKind;
use evacuation::event::{Done, FailureKind};
use evacuation::moment::{Moment, Span};
use host::clock;
use std::sync::Arc;

/// How often the store is asked whether engines use such states, and how long that may take.
const DOUBT_ASKED_EVERY: Span = Span::from_secs(300);
const DOUBT_TAKES: Span = Span::from_secs(2);
/// How long an engine may take to say how large its state is, before it is flushed.
const LOOK_FIRST: Span = Span::from_secs(2);

pub(super) async fn look(
    clients: &Clients,
    context: &PodContext,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let looked = context.engine(clients).await?.look(deadline).await?;
    let doubt = doubt(clients, context, &looked.fingerprint, deadline).await;
    context.set_fingerprint(looked.fingerprint);
    clients.metrics.tokens(TokenStage::Found, looked.tokens_found);
    Ok(Done::Inspected { state_bytes: looked.state_bytes, busy: looked.busy, doubt })
}

/// Why a state of this engine is doubtful. The store is asked now and then; what it said last counts until it answers.
async fn doubt(
    clients: &Clients,
    context: &PodContext,
    fingerprint: &Fingerprint,
    deadline: Moment,
) -> Option<String> {
    let (now, digest) = (clock::now(), fingerprint.digest());
    let known = context.doubt.lock().clone().filter(|known| known.digest == digest);
    let is_due = known.as_ref().is_none_or(|known| now >= known.asked + DOUBT_ASKED_EVERY);
    // A look under a notice has no time for it.
    if !is_due || deadline < now + DOUBT_TAKES {
        return known.and_then(|known| known.why);
    }
    let mut why = known.and_then(|known| known.why);
    let asked = async {
        let (store, workload) = (store(clients).await?, context.workload(clients)?);
        let until = clock::instant(now + DOUBT_TAKES);
        Ok::<_, EffectFailure>(verdict::doubt(store.as_ref(), &workload, fingerprint, until).await?)
    };
    match tokio::time::timeout_at(clock::instant(now + DOUBT_TAKES), asked).await {
        Ok(Ok(answer)) => why = answer,
        Ok(Err(failure)) => tracing::debug!(why = %failure.why, "whether its states are used is not known"),
        Err(_) => tracing::debug!("whether its states are used is not known: the store did not answer"),
    }
    *context.doubt.lock() = Some(KnownDoubt { digest, asked: now, why: why.clone() });
    why
}

pub(super) async fn flush(
    clients: &Clients,
    context: &PodContext,
    kind: FlushKind,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let mut side = context.source.lock().await;
    let engine = context.engine(clients).await?;
    if context.fingerprint().is_none() {
        // Without evidence of the weights nothing can be restored; but the state comes first.
        let short = deadline.min(clock::now() + Span::from_secs(2));
        match engine.look(short).await {
            Ok(looked) => context.set_fingerprint(looked.fingerprint),
            Err(error) => tracing::warn!(%error, "no fingerprint: the checkpoint will carry no evidence"),
        }
    }
    // The same for every attempt of one round of one departure: the engine writes once.
    let name = match kind {
        FlushKind::PreCopy => format!("{}-{}", context.record().facts.uid, clock::now().as_millis()),
        FlushKind::Final => {
            let departure = side.departure.as_deref().unwrap_or("final");
            format!("{}-{}", context.record().facts.uid, &blake3::hash(departure.as_bytes()).to_hex()[..16])
        }
    };
    let folder = context.folder(clients)?;
    let settings = context.settings()?;
    // The files of one that is not asked are there already.
    if let Some(volume) = settings.state_volume.filter(|_| settings.engine.has_api())
        // How much it will be is only known from the engine. One that does not say flushes all the same.
        && let Ok(looked) = engine.look(deadline.min(clock::now() + LOOK_FIRST)).await
    {
        let folder = Arc::clone(&folder);
        // A pod may have filled its volume with files: listing them is not for the thread that everything waits on.
        let checked = tokio::task::spawn_blocking(move || {
            crate::node::executor::disk_room::check(
                &volume.name,
                volume.size_limit,
                &folder,
                looked.state_bytes,
            )
        });
        checked.await.map_err(|error| EffectFailure::new(FailureKind::Transient, error.to_string()))??;
    }
    let mut flushed = engine.flush(kind, &name, deadline).await?;
    let files = flushed_files::open(&folder, &mut flushed, !settings.engine.has_api())?;
    let bytes = flushed.bytes;
    if let Some(tokens) = flushed.facts.get("tokens").and_then(serde_json::Value::as_u64) {
        clients.metrics.tokens(TokenStage::Saved, tokens);
    }
    if !flushed.missing.is_empty() {
        tracing::warn!(missing = ?flushed.missing, "the flush is partial");
    }
    if let Some(fingerprint) =
        context.fingerprint().filter(|_| settings.engine.has_api() && !files.is_empty())
    {
        let paths = files.iter().map(|file| file.path.clone()).collect();
        Kept::record(&folder, fingerprint, flushed.facts.clone(), paths).await;
    }
    side.saved = None;
    side.flushed = Some(FlushedState { files, facts: flushed.facts, missing: flushed.missing });
    context.set_unsaved(kind == FlushKind::Final);
    let evidence = context.fingerprint().is_some_and(|fingerprint| fingerprint.has_evidence());
    Ok(Done::Flushed { bytes, evidence })
}

/// The state is opened and the pod leaves: its engine may compute in what was flushed.
pub(super) async fn probe(
    clients: &Clients,
    context: &PodContext,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let fingerprint = context.engine(clients).await?.evidence(deadline).await?;
    if !fingerprint.has_evidence() {
        return Err(EffectFailure::new(FailureKind::NotFound, "the engine shows nothing of its weights"));
    }
    let folder = context.folder(clients)?;
    if let Ok(kept) = Kept::read(&folder).await {
        // A restarted engine is to be proven by it, too.
        Kept::record(&folder, fingerprint.clone(), kept.facts.clone(), kept.paths()).await;
    }
    context.set_fingerprint(fingerprint);
    Ok(Done::Probed)
}
