//! Effects about a pod of this node that serves or leaves: hold, look, flush, save, commit, evict.

use super::Clients;
use super::commit::{CommitRequest, commit};
use super::failure::EffectFailure;
use super::flushed_files;
use crate::kube::About;
use crate::node::executor::pod_context::{Baseline, FlushedState, KnownDoubt, PodContext, SourceSide};
use crate::node::store::Opened;
use crate::runtime::metrics::labels::TokenStage;
use crate::volume::kept::Kept;
use checkpoint::dispatcher::{Class, Rank};
use checkpoint::fingerprint::Fingerprint;
use checkpoint::generation::ReadError;
use checkpoint::intent::{FoundIntent, Intent, IntentState};
use checkpoint::key::{LineageId, Workload};
use checkpoint::reuse::{self, Reusable};
use checkpoint::save::{self, Identity, Progress, SaveRequest, SourceFile};
use checkpoint::store::Store;
use checkpoint::verdict;
use checkpoint::{generation, intent, restore};
use evacuation::effect::{FlushKind, KubeEvent, PodAction};
use evacuation::event::{Done, FailureKind};
use evacuation::moment::{Moment, Span};
use host::{clock, hold};
use std::sync::Arc;

/// A save ends this much before its effect does, so that it can say what is whole.
const TO_ANSWER: Span = Span::from_millis(300);
/// How often the store is asked whether engines use such states, and how long that may take.
const DOUBT_ASKED_EVERY: Span = Span::from_secs(300);
const DOUBT_TAKES: Span = Span::from_secs(2);
/// How long an engine may take to say how large its state is, before it is flushed.
const LOOK_FIRST: Span = Span::from_secs(2);

pub(super) async fn perform(
    clients: &Clients,
    context: &PodContext,
    action: PodAction,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let pod = context.pod_ref();
    match action {
        PodAction::SetHold { hold } => hold::write_hold(&context.folder(clients)?, hold).await?,
        PodAction::InspectEngine => return look(clients, context, deadline).await,
        PodAction::WriteIntent { departure, by } => {
            return intend(clients, context, &departure, by, deadline).await;
        }
        PodAction::AbandonIntent { why } => abandon(clients, context, why, deadline).await?,
        PodAction::Quiesce => context.engine(clients).await?.quiesce(deadline).await?,
        PodAction::Resume => context.engine(clients).await?.resume(deadline).await?,
        PodAction::Flush { kind } => return flush(clients, context, kind, deadline).await,
        PodAction::ProbeEngine => return probe(clients, context, deadline).await,
        PodAction::Save { kind, rank } => {
            context.rank.set(rank);
            return save(clients, context, kind, deadline).await;
        }
        PodAction::Reprioritise { rank } => context.rank.set(rank),
        PodAction::Commit { kind, partial, without_endangered } => {
            return commit(clients, context, CommitRequest { kind, partial, without_endangered }, deadline)
                .await;
        }
        PodAction::Evict { grace } => clients.cluster.evict(&pod, grace, deadline).await?,
        PodAction::MarkDisrupted => {
            clients.cluster.mark_disrupted(&pod, "the Spot instance is being interrupted", deadline).await?;
        }
        PodAction::DeletePod { grace } => clients.cluster.delete(&pod, grace, deadline).await?,
        PodAction::Publish(KubeEvent { reason, note, warning }) => {
            clients.cluster.publish(About::Pod(&pod), &reason, &note, warning, deadline).await?;
        }
    }
    Ok(Done::Nothing)
}

async fn look(clients: &Clients, context: &PodContext, deadline: Moment) -> Result<Done, EffectFailure> {
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

pub(crate) async fn store(clients: &Clients) -> Result<Store, EffectFailure> {
    Ok(clients.store.get().await?)
}

pub(crate) async fn opened(clients: &Clients) -> Result<Opened, EffectFailure> {
    Ok(clients.store.opened().await?)
}

async fn intend(
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

async fn abandon(
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

async fn flush(
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
async fn probe(clients: &Clients, context: &PodContext, deadline: Moment) -> Result<Done, EffectFailure> {
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

async fn save(
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
fn newest(side: &SourceSide, lineage: &LineageId) -> Option<(String, u64)> {
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
        Some(Baseline {
            // A lineage with a name outlives its pods: the newest may be of the pod before, of which this one has nothing.
            is_continued: manifest.source.uid == context.record().facts.uid.0,
            manifest: Arc::new(manifest),
            lineage: lineage.clone(),
            number,
            round: Arc::default(),
        })
    };
    side.baseline = found.await;
}
