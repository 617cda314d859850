//! The replacement's side: effects about a new pod whose state may be in the store.
//!
//! ```text
//!   find ─► claim ─► fetch into .lifeboat/restore/… ─► prove ─► install, hand over ─► verify ─► finish
//!            │  renewed meanwhile, by itself; while a commit is waited for, the generation before it is fetched
//!
//!   recall ─► prove ─► hand over ─► verify      after a restart of the container: from the pod's own volume
//! ```

use crate::kube::{About, ClusterError, NamedPod};
use crate::node::executor::commit::claim_request;
use crate::node::executor::failure::EffectFailure;
use crate::node::executor::pod_context::{Baseline, FetchedGeneration, Material, PodContext, Prefetched};
use crate::node::executor::{Clients, ProgressTeller, opened, store};
use crate::node::store::Opened;
use crate::pods::reader::PodRecord;
use crate::runtime::metrics::labels::TokenStage;
use crate::volume::kept::Kept;
use crate::volume::restored;
use checkpoint::claim::ClaimState;
use checkpoint::dispatcher::Dispatcher;
use checkpoint::generation;
use checkpoint::intent::IntentState as Intent;
use checkpoint::key::{GenerationNumber, LineageId};
use checkpoint::lineage::{self, LineageState};
use checkpoint::manifest::{self, Manifest};
use checkpoint::path::OURS;
use checkpoint::restore::{self as state, Earlier, FetchProgress, FetchRequest, Verify};
use checkpoint::store::{Store, StoreError};
use checkpoint::verdict::{self, Refusal, Shown};
use evacuation::effect::{RestoreAction, RestoreOutcome};
use evacuation::event::{Candidate, Done, FailureKind, IntentState, Source, Verification};
use evacuation::moment::{Moment, Span};
use host::{clock, small_file};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn perform(
    clients: &Clients,
    context: &PodContext,
    action: RestoreAction,
    deadline: Moment,
    teller: &ProgressTeller,
) -> Result<Done, EffectFailure> {
    match action {
        RestoreAction::FindLineage => find(clients, context, deadline).await,
        RestoreAction::Claim { lineage } => claim(clients, context, &lineage, deadline).await,
        RestoreAction::RenewClaim { .. } => {
            let mut held = context.claim.lock().await;
            let held = held.as_mut().ok_or_else(not_held)?;
            held.renew(clock::instant(deadline)).await?;
            Ok(Done::Nothing)
        }
        RestoreAction::Prefetch { lineage, generation } => {
            let wanted = WantedGeneration::read(clients, context, &lineage, &generation, deadline).await?;
            prefetch(clients, context, wanted, teller).await
        }
        RestoreAction::Fetch { lineage, generation } => {
            let wanted = WantedGeneration::read(clients, context, &lineage, &generation, deadline).await?;
            teller.bytes_came().await;
            fetch(clients, context, wanted, teller).await
        }
        RestoreAction::ReloadLocal => recall(clients, context).await,
        RestoreAction::CheckFingerprint => prove(clients, context, deadline).await,
        RestoreAction::ImportState => hand_over(clients, context, deadline).await,
        RestoreAction::Verify => verify(clients, context, deadline).await,
        RestoreAction::FinishClaim { .. } => finish(context, deadline).await,
        RestoreAction::RecordVerdict { not_used } => {
            record_verdict(clients, context, not_used, deadline).await
        }
        RestoreAction::GiveBackClaim { .. } => {
            // Not held by this life of the agent: it runs out.
            if let Some(mut held) = context.claim.lock().await.take() {
                held.give_back(clock::instant(deadline)).await?;
            }
            Ok(Done::Nothing)
        }
        RestoreAction::OpenGate { outcome, message } => {
            open_gate(clients, context, outcome, &message, deadline).await
        }
    }
}

/// The condition by which the pod becomes ready, with the reason.
async fn open_gate(
    clients: &Clients,
    context: &PodContext,
    outcome: RestoreOutcome,
    message: &str,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let (pod, reason) = (context.pod_ref(), outcome.as_str());
    tell_the_pod(clients, context, reason, message).await;
    clients.cluster.open_gate(&pod, outcome, message, deadline).await?;
    let bytes = context.restore.lock().await.as_ref().map_or(0, |material| material.bytes);
    clients.metrics.restore(outcome, clock::now().since(context.first_seen()), bytes);
    let ordinary = matches!(outcome, RestoreOutcome::Restored | RestoreOutcome::NothingToRestore);
    let note = format!("restore: {reason}: {message}");
    // The condition says it already: an Event that is not written is no failure.
    let _ = clients.cluster.publish(About::Pod(&pod), reason, &note, !ordinary, deadline).await;
    Ok(Done::Nothing)
}

fn not_held() -> EffectFailure {
    EffectFailure::new(FailureKind::Refused, "the claim is not held: the agent was restarted")
}

fn nothing_fetched() -> EffectFailure {
    EffectFailure::new(FailureKind::Transient, "nothing is fetched: the agent was restarted")
}

/// Tells an init container that waits for the state (`lifeboat wait`) that there is an agent here. Without it that one waits
/// for nobody for a minute; a failure is no more than that.
async fn announce(clients: &Clients, context: &PodContext) {
    if context.settings().is_ok_and(|settings| !settings.engine.has_api())
        && let Ok(folder) = context.folder(clients)
        && let Err(error) = small_file::write(&folder, OURS, restored::RESTORING, Vec::new()).await
    {
        tracing::debug!(%error, "the pod is not told that its state is looked for");
    }
}

/// Tells it how it ended.
async fn tell_the_pod(clients: &Clients, context: &PodContext, outcome: &str, message: &str) {
    if context.settings().map_or(true, |settings| settings.engine.has_api()) {
        return;
    }
    let decision = restored::RestoreDecision { outcome: outcome.to_owned(), message: message.to_owned() };
    let written = async {
        let bytes = serde_json::to_vec(&decision).unwrap_or_default();
        Ok::<_, EffectFailure>(
            small_file::write(&context.folder(clients)?, OURS, restored::RESTORED, bytes).await?,
        )
    };
    if let Err(failure) = written.await {
        tracing::warn!(why = %failure.why, "the pod is not told how its restore ended: its init container waits in vain");
    }
}

/// A look whose time was over before the store said anything: opening the store may have taken all of it. That is no answer.
pub(super) fn unheard(error: StoreError) -> EffectFailure {
    let silent = matches!(error, StoreError::TimedOut { answered: false, .. });
    let failure = EffectFailure::from(error);
    if silent { EffectFailure { kind: FailureKind::Unreachable, ..failure } } else { failure }
}

/// So long before its deadline a look ends by itself.
const TOLD_BEFORE: Span = Span::from_millis(250);

/// The lineages of the pod's workload.
async fn find(clients: &Clients, context: &PodContext, deadline: Moment) -> Result<Done, EffectFailure> {
    announce(clients, context).await;
    let Opened { store, claims, .. } = opened(clients).await?;
    let workload = context.workload(clients)?;
    // Before the effect's own deadline: what the store did is told in its words, not as a timeout.
    let until = clock::instant(deadline - TOLD_BEFORE);
    let states = lineage::survey(store.as_ref(), &claims, &workload, until).await.map_err(unheard)?;
    let record = context.record();
    let mut candidates = Vec::with_capacity(states.len());
    let mut fitting = Vec::new();
    let mut worth_waiting_for = None;
    for found in states {
        let own_name = record.workload.named && found.id.as_str() == record.workload.lineage;
        // What this very pod wrote is in this very pod.
        let of_this_pod = found.head.as_ref().is_some_and(|head| head.source.uid == record.facts.uid.0);
        if of_this_pod && !own_name {
            continue;
        }
        for unreadable in &found.unreadable {
            tracing::warn!(lineage = %found.id, unreadable, "passed over");
        }
        if let Some(why) = found.unanswered.as_ref().filter(|_| own_name) {
            // Its own lineage comes before all others: none of those is taken in its place.
            let why = format!("its own lineage {} cannot be read: {why}", found.id);
            return Err(EffectFailure::new(FailureKind::Throttled, why));
        }
        if let Some(why) = &found.unanswered {
            // What it holds is not known: it is neither taken nor given up yet.
            worth_waiting_for.get_or_insert_with(|| format!("lineage {} cannot be read: {why}", found.id));
            continue;
        }
        let spec_matches = spec_key(&found) == Some(record.workload.spec_key.as_str());
        candidates.push(Candidate {
            own_name,
            spec_matches,
            generations: found.head.iter().chain(&found.older).map(|g| g.number.to_string()).collect(),
            newest_unix_ms: found
                .head
                .as_ref()
                .map_or(0, |head| u64::try_from(head.created.as_millisecond()).unwrap_or(0)),
            source: source(clients, &found, &record.facts.uid.0, deadline).await?,
            intent: intent(&found),
            taken: is_taken(&found, &record.facts.uid.0, own_name),
            lineage: found.id.to_string(),
        });
        if spec_matches {
            fitting.push(found);
        }
    }
    // A replacement died in the middle of its restore. Its claim runs out soon: until then there is something to wait for.
    for found in &fitting {
        if worth_waiting_for.is_some() {
            break;
        }
        worth_waiting_for = orphan(clients, found, &record, deadline).await;
    }
    Ok(Done::Lineages { candidates, worth_waiting_for })
}

/// Why a lineage will be free soon: the pod that is to restore it is gone, and nobody renews its claim.
async fn orphan(
    clients: &Clients,
    found: &LineageState,
    record: &PodRecord,
    deadline: Moment,
) -> Option<String> {
    let claim = found.claim.as_ref()?;
    let holder = &claim.claim.holder;
    let left = claim.expires_in.filter(|_| holder.pod_uid != record.facts.uid.0)?;
    let namespace = &record.facts.namespace;
    match clients.cluster.named_pod(namespace, &holder.pod_name, deadline).await {
        Ok(Some(pod)) if pod.uid.0 == holder.pod_uid && !pod.finished && !pod.terminating => None,
        Ok(_) => {
            let left = left.as_millis();
            Some(format!("lineage {} is held by {holder}, which is gone, for {left} ms more", found.id))
        }
        // As of a living one: what is passed over would be lost.
        Err(error) => {
            Some(format!("cannot tell whether {holder} lives, which claimed {}: {error}", found.id))
        }
    }
}

fn spec_key(found: &LineageState) -> Option<&str> {
    match (&found.intent, &found.head) {
        (_, Some(head)) => Some(&head.spec_key),
        (Some(intent), None) => Some(&intent.intent.spec_key),
        (None, None) => None,
    }
}

fn written_by(found: &LineageState) -> Option<&manifest::Source> {
    match (&found.intent, &found.head) {
        (Some(intent), _) => Some(&intent.intent.source),
        (None, Some(head)) => Some(&head.source),
        (None, None) => None,
    }
}

fn intent(found: &LineageState) -> IntentState {
    let Some(intent) = &found.intent else { return IntentState::None };
    match (&intent.intent.state, intent.time_left()) {
        (Intent::Coming, Some(left)) => IntentState::Coming {
            left: Span::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        },
        (Intent::Coming, None) | (Intent::Abandoned { .. }, _) => IntentState::Abandoned,
        (Intent::Committed { .. }, _) => IntentState::None,
    }
}

/// Whether the pod that wrote it still needs it: by its intent, else by looking for that very pod.
async fn source(
    clients: &Clients,
    found: &LineageState,
    own_uid: &str,
    deadline: Moment,
) -> Result<Source, EffectFailure> {
    if let Some(intent) = &found.intent
        && !matches!(intent.intent.state, Intent::Abandoned { .. })
        && intent.intent.writer != own_uid
    {
        return Ok(Source::Leaving);
    }
    let Some(writer) = written_by(found) else { return Ok(Source::Living) };
    if writer.uid == own_uid {
        return Ok(Source::Living);
    }
    let named = clients.cluster.named_pod(&writer.namespace, &writer.name, deadline).await;
    standing(named, writer).map_err(|error| {
        let why =
            format!("cannot tell whether {} lives, which wrote lineage {}: {error}", writer.name, found.id);
        EffectFailure::new(FailureKind::Transient, why)
    })
}

/// What the API server's answer says of the pod that wrote a lineage.
///
/// # Errors
/// Taking the state of a pod that lives would be worse than not restoring, and passing a lineage over would lose it: it is
/// asked again until the restore's own time is over. Also after a 403: an API server that has just started answers so for
/// a moment.
pub(super) fn standing(
    named: Result<Option<NamedPod>, ClusterError>,
    writer: &manifest::Source,
) -> Result<Source, ClusterError> {
    match named {
        Ok(None) => Ok(Source::Gone),
        Ok(Some(pod)) if pod.uid.0 != writer.uid || pod.finished => Ok(Source::Gone),
        Ok(Some(pod)) if pod.terminating => Ok(Source::Leaving),
        Ok(Some(_)) => Ok(Source::Living),
        // It will never be told, and the other lineages of the workload must not wait for it.
        Err(error @ ClusterError::Name { .. }) => {
            tracing::warn!(%error, "a lineage is passed over: no pod can have the name of its writer");
            Ok(Source::Living)
        }
        Err(error) => Err(error),
    }
}

fn is_taken(found: &LineageState, own_uid: &str, own_name: bool) -> bool {
    let Some(claim) = &found.claim else { return false };
    let own = claim.claim.holder.pod_uid == own_uid;
    match claim.claim.state {
        ClaimState::Restoring => !own && !claim.expired(),
        // Restored once; only a name that comes again may follow.
        ClaimState::Done => own || !own_name,
    }
}

async fn claim(
    clients: &Clients,
    context: &PodContext,
    lineage: &str,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let Opened { store, claims, .. } = opened(clients).await?;
    let workload = context.workload(clients)?;
    let request = claim_request(clients, context, LineageId::new(lineage)?);
    let named = request.named;
    let held = claims.take(store.as_ref(), &workload, &request, clock::instant(deadline)).await?;
    let (epoch, resumed) = (held.epoch(), held.was_resumed());
    if named {
        // The lineage goes on under this pod: what it commits is of this epoch.
        context.source.lock().await.epoch = Some(epoch);
    }
    *context.claim.lock().await = Some(held);
    Ok(Done::Claimed { epoch, resumed })
}

/// A generation that is to be fetched.
struct WantedGeneration {
    store: Store,
    lineage: LineageId,
    number: GenerationNumber,
    manifest: Arc<Manifest>,
    until: tokio::time::Instant,
}

impl WantedGeneration {
    async fn read(
        clients: &Clients,
        context: &PodContext,
        lineage: &str,
        generation: &str,
        deadline: Moment,
    ) -> Result<Self, EffectFailure> {
        let store = store(clients).await?;
        let workload = context.workload(clients)?;
        let lineage = LineageId::new(lineage)?;
        let number = GenerationNumber::parse(generation).ok_or_else(|| {
            EffectFailure::new(FailureKind::Mismatch, format!("{generation:?} is no generation's number"))
        })?;
        let until = clock::instant(deadline);
        let found = generation::read(store.as_ref(), &workload, &lineage, number, until).await?;
        let manifest =
            state::load_manifest(&store, &workload, found.manifest, clients.mac_key.as_ref(), until).await?;
        Ok(Self { store, lineage, number, manifest: Arc::new(manifest), until })
    }

    /// Into a folder of its own, with what is there of the one before it.
    async fn fetch(
        &self,
        clients: &Clients,
        context: &PodContext,
        before: Option<&Prefetched>,
        announced: bool,
        teller: &ProgressTeller,
    ) -> Result<(), EffectFailure> {
        let folder = context.folder(clients)?;
        let request = FetchRequest {
            manifest: &self.manifest,
            folder: &folder,
            into: &state::staging(self.number),
            earlier: before.map(|it| Earlier { manifest: &it.manifest, staging: &it.staging }),
            verify: if clients.mac_key.is_some() { Verify::Names } else { Verify::Checksums },
            // Those of a higher priority first.
            rank: u64::from(i32::MAX.abs_diff(context.record().facts.priority)),
            deadline: self.until,
        };
        let progress = Arc::new(FetchProgress::default());
        let done = tokio::select! {
            done = state::fetch(&self.store, request, &clients.dispatcher, &progress) => done,
            never = tell_progress(&clients.dispatcher, &progress, teller) => match never {},
        };
        let (fetched, kept) = (progress.bytes_fetched(), progress.bytes_kept());
        tracing::info!(generation = %self.number, announced, fetched, kept, "fetched");
        clients.metrics.fetched(announced, fetched);
        Ok(done?)
    }
}

/// How often the core is told that bytes come: it gives a fetch up after a minute without any.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Tells, for as long as a fetch is not stuck: something came, or what it waits for is the disk, or its turn while others'
/// bytes move.
async fn tell_progress(
    dispatcher: &Dispatcher,
    progress: &FetchProgress,
    teller: &ProgressTeller,
) -> Infallible {
    let mut told = (0, dispatcher.bytes_moved());
    loop {
        tokio::time::sleep(TOLD_EVERY).await;
        let now = (progress.bytes_that_came(), dispatcher.bytes_moved());
        let turn_comes = progress.is_queued() && now.1 != told.1;
        if now.0 != told.0 || turn_comes || progress.is_on_disk() {
            teller.bytes_came().await;
        }
        told = now;
    }
}

/// What is committed already of a checkpoint that is still coming.
async fn prefetch(
    clients: &Clients,
    context: &PodContext,
    wanted: WantedGeneration,
    teller: &ProgressTeller,
) -> Result<Done, EffectFailure> {
    let (manifest, staging) = (Arc::clone(&wanted.manifest), state::staging(wanted.number));
    // Before it begins: a part of it counts too.
    *context.prefetched.lock().await = Some(Prefetched { manifest, staging });
    wanted.fetch(clients, context, None, true, teller).await?;
    Ok(Done::Fetched { bytes: wanted.manifest.bytes_total() })
}

async fn fetch(
    clients: &Clients,
    context: &PodContext,
    wanted: WantedGeneration,
    teller: &ProgressTeller,
) -> Result<Done, EffectFailure> {
    let before = context.prefetched.lock().await.clone();
    wanted.fetch(clients, context, before.as_ref(), false, teller).await?;
    let WantedGeneration { lineage, number, manifest, .. } = wanted;
    let bytes = manifest.bytes_total();
    *context.restore.lock().await = Some(Material {
        fingerprint: manifest.fingerprint.clone(),
        facts: manifest.engine.clone(),
        files: manifest.files.iter().map(|file| file.path.clone()).collect(),
        bytes,
        fetched: Some(FetchedGeneration {
            manifest,
            lineage,
            number,
            staging: state::staging(number),
            installed: false,
            is_refused: false,
        }),
    });
    Ok(Done::Fetched { bytes })
}

/// What the engine's own last flush left in its pod's volume.
async fn recall(clients: &Clients, context: &PodContext) -> Result<Done, EffectFailure> {
    if !context.settings()?.engine.has_api() {
        // Its files are where it left them.
        return Err(EffectFailure::new(FailureKind::NotFound, "nothing has to be handed to it"));
    }
    let kept = Kept::read(&context.folder(clients)?).await?;
    let (files, bytes) = (kept.paths(), kept.bytes());
    let Kept { fingerprint, facts, .. } = kept;
    *context.restore.lock().await = Some(Material { fingerprint, facts, files, bytes, fetched: None });
    Ok(Done::Fetched { bytes })
}

async fn prove(clients: &Clients, context: &PodContext, deadline: Moment) -> Result<Done, EffectFailure> {
    let expected = {
        let fetched = context.restore.lock().await;
        fetched.as_ref().ok_or_else(nothing_fetched)?.fingerprint.clone()
    };
    if context.settings()?.engine.has_api() {
        // What is not known yet is no mismatch.
        context.has_started(expected.facts.contains_key("image")).await;
    }
    let proven = context.engine(clients).await?.prove(&expected, deadline).await?;
    context.set_fingerprint(proven.fingerprint);
    Ok(Done::FingerprintMatches { state_bytes: proven.state_bytes })
}

async fn hand_over(clients: &Clients, context: &PodContext, deadline: Moment) -> Result<Done, EffectFailure> {
    let mut material = context.restore.lock().await;
    let material = material.as_mut().ok_or_else(nothing_fetched)?;
    let folder = context.folder(clients)?;
    if let Some(fetched) = material.fetched.as_mut().filter(|fetched| !fetched.installed) {
        state::install(folder.as_ref(), &fetched.staging, &fetched.manifest).await?;
        fetched.installed = true;
    }
    let count = context.engine(clients).await?.hand_over(&material.facts, &material.files, deadline).await?;
    if let Some(tokens) = count {
        clients.metrics.tokens(TokenStage::Restored, tokens);
    }
    if material.fetched.is_some() {
        // From here on its container can be restarted without the store.
        let (facts, files) = (material.facts.clone(), material.files.clone());
        Kept::record(&folder, material.fingerprint.clone(), facts, files).await;
    }
    Ok(Done::Tokens { count })
}

async fn verify(clients: &Clients, context: &PodContext, deadline: Moment) -> Result<Done, EffectFailure> {
    let mut material = context.restore.lock().await;
    let material = material.as_mut().ok_or_else(nothing_fetched)?;
    let verification = context.engine(clients).await?.verify(&material.facts, deadline).await?;
    if let Verification::Used { tokens } = verification {
        clients.metrics.tokens(TokenStage::Verified, tokens);
    }
    if let Some(fetched) = &mut material.fetched {
        fetched.is_refused = matches!(verification, Verification::NotUsed { .. });
    }
    Ok(Done::Verified(verification))
}

async fn record_verdict(
    clients: &Clients,
    context: &PodContext,
    not_used: Option<String>,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let fingerprint = {
        let material = context.restore.lock().await;
        material.as_ref().ok_or_else(nothing_fetched)?.fingerprint.clone()
    };
    let facts = context.record().facts;
    let shown = match not_used {
        None => Shown::Used,
        Some(why) => Shown::NotUsed(Refusal { pod_uid: facts.uid.0, pod_name: facts.name, why }),
    };
    let (store, workload) = (store(clients).await?, context.workload(clients)?);
    verdict::record(store.as_ref(), &workload, &fingerprint, &shown, clock::instant(deadline)).await?;
    Ok(Done::Nothing)
}

async fn finish(context: &PodContext, deadline: Moment) -> Result<Done, EffectFailure> {
    {
        let mut held = context.claim.lock().await;
        held.as_mut().ok_or_else(not_held)?.finish(clock::instant(deadline)).await?;
    }
    let material = context.restore.lock().await;
    let fetched = material.as_ref().and_then(|material| material.fetched.as_ref());
    let fetched = fetched.ok_or_else(nothing_fetched)?;
    // The pod's own first generation names this one as its parent, and shares its packs.
    let mut side = context.source.lock().await;
    side.baseline = Some(Baseline {
        manifest: Arc::clone(&fetched.manifest),
        lineage: fetched.lineage.clone(),
        number: fetched.number,
        round: Arc::default(),
        is_continued: !fetched.is_refused,
    });
    Ok(Done::Nothing)
}
