//! The replacement's side: effects about a new pod whose state may be in the store.
//!
//! ```text
//!   find ─► claim ─► fetch into .lifeboat/restore/… ─► prove ─► install, hand over ─► verify ─► finish
//!            │  renewed meanwhile, by itself; while a commit is waited for, the generation before it is fetched
//!
//!   recall ─► prove ─► hand over ─► verify      after a restart of the container: from the pod's own volume
//! ```

use crate::node::executor::Tools;
use crate::node::executor::commit::claim_request;
use crate::node::executor::failure::Failure;
use crate::node::executor::pod::{opened, store};
use crate::node::executor::pod_context::{Baseline, Bench, Fetched, Material, Prefetched};
use crate::node::store::Opened;
use crate::pods::reader::PodRecord;
use crate::volume::kept::Kept;
use crate::volume::restored;
use checkpoint::claim::ClaimState;
use checkpoint::generation;
use checkpoint::intent::IntentState as Intent;
use checkpoint::key::{GenerationNumber, LineageId};
use checkpoint::lineage::{self, LineageState};
use checkpoint::manifest::{self, Manifest};
use checkpoint::path::OURS;
use checkpoint::restore::{self as state, Earlier, FetchProgress, FetchRequest, Verify};
use checkpoint::store::Store;
use evacuation::choose;
use evacuation::effect::Action;
use evacuation::event::{Candidate, Done, FailureKind, IntentState, Source};
use evacuation::moment::{Moment, Span};
use host::clock;
use host::small_file;
use std::sync::Arc;

pub(crate) async fn perform(
    tools: &Tools,
    bench: &Bench,
    action: Action,
    deadline: Moment,
) -> Result<Done, Failure> {
    match action {
        Action::FindLineage { .. } => find(tools, bench, deadline).await,
        Action::Claim { lineage, .. } => claim(tools, bench, &lineage, deadline).await,
        Action::RenewClaim { .. } => {
            let mut held = bench.claim.lock().await;
            let held = held.as_mut().ok_or_else(not_held)?;
            held.renew(clock::instant(deadline)).await?;
            Ok(Done::Nothing)
        }
        Action::Prefetch { lineage, generation, .. } => {
            let wanted = Wanted::read(tools, bench, &lineage, &generation, deadline).await?;
            prefetch(tools, bench, wanted).await
        }
        Action::Fetch { lineage, generation, .. } => {
            let wanted = Wanted::read(tools, bench, &lineage, &generation, deadline).await?;
            fetch(tools, bench, wanted).await
        }
        Action::ReloadLocal { .. } => recall(tools, bench).await,
        Action::CheckFingerprint { .. } => prove(tools, bench, deadline).await,
        Action::ImportState { .. } => hand_over(tools, bench, deadline).await,
        Action::Verify { .. } => verify(tools, bench, deadline).await,
        Action::FinishClaim { .. } => finish(bench, deadline).await,
        other => {
            let why = format!("{} is no effect about a restore", other.name());
            Err(Failure::new(FailureKind::Permanent, why))
        }
    }
}

fn not_held() -> Failure {
    Failure::new(FailureKind::Refused, "the claim is not held: the agent was restarted")
}

fn nothing_fetched() -> Failure {
    Failure::new(FailureKind::Transient, "nothing is fetched: the agent was restarted")
}

/// Tells an init container that waits for the state (`lifeboat wait`) that there is an agent here. Without it that one waits
/// for nobody for a minute; a failure is no more than that.
async fn announce(tools: &Tools, bench: &Bench) {
    if bench.settings().is_ok_and(|settings| !settings.engine.is_asked())
        && let Ok(folder) = bench.folder(tools)
        && let Err(error) = small_file::write(&folder, OURS, restored::RESTORING, Vec::new()).await
    {
        tracing::debug!(%error, "the pod is not told that its state is looked for");
    }
}

/// Tells it how it ended.
pub(crate) async fn tell_the_pod(tools: &Tools, bench: &Bench, outcome: &str, message: &str) {
    if bench.settings().map_or(true, |settings| settings.engine.is_asked()) {
        return;
    }
    let decision = restored::Decision { outcome: outcome.to_owned(), message: message.to_owned() };
    let written = async {
        let bytes = serde_json::to_vec(&decision).unwrap_or_default();
        Ok::<_, Failure>(small_file::write(&bench.folder(tools)?, OURS, restored::RESTORED, bytes).await?)
    };
    if let Err(failure) = written.await {
        tracing::warn!(why = %failure.why, "the pod is not told how its restore ended: its init container waits in vain");
    }
}

/// The lineages of the pod's workload.
async fn find(tools: &Tools, bench: &Bench, deadline: Moment) -> Result<Done, Failure> {
    announce(tools, bench).await;
    let Opened { store, claims, .. } = opened(tools).await?;
    let workload = bench.workload(tools)?;
    let states = lineage::survey(store.as_ref(), &claims, &workload, clock::instant(deadline)).await?;
    let record = bench.record();
    let mut candidates = Vec::with_capacity(states.len());
    let mut fitting = Vec::new();
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
        let spec_matches = spec_key(&found) == Some(record.workload.spec_key.as_str());
        candidates.push(Candidate {
            own_name,
            spec_matches,
            generations: found.head.iter().chain(&found.older).map(|g| g.number.to_string()).collect(),
            newest_unix_ms: found
                .head
                .as_ref()
                .map_or(0, |head| u64::try_from(head.created.as_millisecond()).unwrap_or(0)),
            source: source(tools, &found, &record.facts.uid.0, deadline).await?,
            intent: intent(&found),
            taken: is_taken(&found, &record.facts.uid.0, own_name),
            lineage: found.id.to_string(),
        });
        if spec_matches {
            fitting.push(found);
        }
    }
    if choose(&candidates).is_none() {
        // A replacement died in the middle of its restore. Its claim runs out soon: until then there is something to wait for.
        for found in &fitting {
            if let Some(why) = orphan(tools, found, &record, deadline).await {
                return Err(Failure::new(FailureKind::Transient, why));
            }
        }
    }
    Ok(Done::Lineages(candidates))
}

/// Why a lineage will be free soon: the pod that is to restore it is gone, and nobody renews its claim.
async fn orphan(tools: &Tools, found: &LineageState, record: &PodRecord, deadline: Moment) -> Option<String> {
    let claim = found.claim.as_ref()?;
    let holder = &claim.claim.holder;
    let left = claim.expires_in.filter(|_| holder.pod_uid != record.facts.uid.0)?;
    let namespace = &record.facts.namespace;
    match tools.cluster.named_pod(namespace, &holder.pod_name, deadline).await {
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
    tools: &Tools,
    found: &LineageState,
    own_uid: &str,
    deadline: Moment,
) -> Result<Source, Failure> {
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
    Ok(match tools.cluster.named_pod(&writer.namespace, &writer.name, deadline).await {
        Ok(None) => Source::Gone,
        Ok(Some(pod)) if pod.uid.0 != writer.uid || pod.finished => Source::Gone,
        Ok(Some(pod)) if pod.terminating => Source::Leaving,
        Ok(Some(_)) => Source::Living,
        // Taking the state of a pod that lives would be worse than not restoring, and passing this lineage over would
        // lose it: it is asked again until the restore's own time is over. Also after a 403: an API server that has
        // just started answers so for a moment.
        Err(error) => {
            let why = format!(
                "cannot tell whether {} lives, which wrote lineage {}: {error}",
                writer.name, found.id
            );
            return Err(Failure::new(FailureKind::Transient, why));
        }
    })
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

async fn claim(tools: &Tools, bench: &Bench, lineage: &str, deadline: Moment) -> Result<Done, Failure> {
    let Opened { store, claims, .. } = opened(tools).await?;
    let workload = bench.workload(tools)?;
    let request = claim_request(tools, bench, LineageId::new(lineage)?);
    let named = request.named;
    let held = claims.take(store.as_ref(), &workload, &request, clock::instant(deadline)).await?;
    let epoch = held.epoch();
    if named {
        // The lineage goes on under this pod: what it commits is of this epoch.
        bench.source.lock().await.epoch = Some(epoch);
    }
    *bench.claim.lock().await = Some(held);
    Ok(Done::Claimed { epoch })
}

/// A generation that is to be fetched.
struct Wanted {
    store: Store,
    lineage: LineageId,
    number: GenerationNumber,
    manifest: Arc<Manifest>,
    until: tokio::time::Instant,
}

impl Wanted {
    async fn read(
        tools: &Tools,
        bench: &Bench,
        lineage: &str,
        generation: &str,
        deadline: Moment,
    ) -> Result<Self, Failure> {
        let store = store(tools).await?;
        let workload = bench.workload(tools)?;
        let lineage = LineageId::new(lineage)?;
        let number = GenerationNumber::parse(generation).ok_or_else(|| {
            Failure::new(FailureKind::Mismatch, format!("{generation:?} is no generation's number"))
        })?;
        let until = clock::instant(deadline);
        let found = generation::read(store.as_ref(), &workload, &lineage, number, until).await?;
        let manifest =
            state::load_manifest(&store, &workload, found.manifest, tools.mac_key.as_ref(), until).await?;
        Ok(Self { store, lineage, number, manifest: Arc::new(manifest), until })
    }

    /// Into a folder of its own, with what is there of the one before it.
    async fn fetch(
        &self,
        tools: &Tools,
        bench: &Bench,
        before: Option<&Prefetched>,
        announced: bool,
    ) -> Result<(), Failure> {
        let folder = bench.folder(tools)?;
        let request = FetchRequest {
            manifest: &self.manifest,
            folder: &folder,
            into: &state::staging(self.number),
            earlier: before.map(|it| Earlier { manifest: &it.manifest, staging: &it.staging }),
            verify: if tools.mac_key.is_some() { Verify::Names } else { Verify::Checksums },
            // Those of a higher priority first.
            rank: u64::from(i32::MAX.abs_diff(bench.record().facts.priority)),
            deadline: self.until,
        };
        let progress = Arc::new(FetchProgress::default());
        let done = state::fetch(&self.store, request, &tools.dispatcher, &progress).await;
        let (fetched, kept) = (progress.bytes_fetched(), progress.bytes_kept());
        tracing::info!(generation = %self.number, announced, fetched, kept, "fetched");
        tools.metrics.fetched(announced, fetched);
        Ok(done?)
    }
}

/// What is committed already of a checkpoint that is still coming.
async fn prefetch(tools: &Tools, bench: &Bench, wanted: Wanted) -> Result<Done, Failure> {
    let (manifest, staging) = (Arc::clone(&wanted.manifest), state::staging(wanted.number));
    // Before it begins: a part of it counts too.
    *bench.prefetched.lock().await = Some(Prefetched { manifest, staging });
    wanted.fetch(tools, bench, None, true).await?;
    Ok(Done::Fetched { bytes: wanted.manifest.bytes_total() })
}

async fn fetch(tools: &Tools, bench: &Bench, wanted: Wanted) -> Result<Done, Failure> {
    let before = bench.prefetched.lock().await.clone();
    wanted.fetch(tools, bench, before.as_ref(), false).await?;
    let Wanted { lineage, number, manifest, .. } = wanted;
    let bytes = manifest.bytes_total();
    *bench.restore.lock().await = Some(Material {
        fingerprint: manifest.fingerprint.clone(),
        facts: manifest.engine.clone(),
        files: manifest.files.iter().map(|file| file.path.clone()).collect(),
        bytes,
        fetched: Some(Fetched {
            manifest,
            lineage,
            number,
            staging: state::staging(number),
            installed: false,
        }),
    });
    Ok(Done::Fetched { bytes })
}

/// What the engine's own last flush left in its pod's volume.
async fn recall(tools: &Tools, bench: &Bench) -> Result<Done, Failure> {
    if !bench.settings()?.engine.is_asked() {
        // Its files are where it left them.
        return Err(Failure::new(FailureKind::NotFound, "nothing has to be handed to it"));
    }
    let kept = Kept::read(&bench.folder(tools)?).await?;
    let (files, bytes) = (kept.paths(), kept.bytes());
    let Kept { fingerprint, facts, .. } = kept;
    *bench.restore.lock().await = Some(Material { fingerprint, facts, files, bytes, fetched: None });
    Ok(Done::Fetched { bytes })
}

async fn prove(tools: &Tools, bench: &Bench, deadline: Moment) -> Result<Done, Failure> {
    let expected = {
        let fetched = bench.restore.lock().await;
        fetched.as_ref().ok_or_else(nothing_fetched)?.fingerprint.clone()
    };
    if bench.settings()?.engine.is_asked() {
        // What is not known yet is no mismatch.
        bench.has_started(expected.facts.contains_key("image")).await;
    }
    let proven = bench.engine(tools).await?.prove(&expected, deadline).await?;
    bench.set_fingerprint(proven.fingerprint);
    Ok(Done::FingerprintMatches { state_bytes: proven.state_bytes })
}

async fn hand_over(tools: &Tools, bench: &Bench, deadline: Moment) -> Result<Done, Failure> {
    let mut material = bench.restore.lock().await;
    let material = material.as_mut().ok_or_else(nothing_fetched)?;
    let folder = bench.folder(tools)?;
    if let Some(fetched) = material.fetched.as_mut().filter(|fetched| !fetched.installed) {
        state::install(folder.as_ref(), &fetched.staging, &fetched.manifest).await?;
        fetched.installed = true;
    }
    let count = bench.engine(tools).await?.hand_over(&material.facts, &material.files, deadline).await?;
    if let Some(tokens) = count {
        tools.metrics.tokens_restored(tokens);
    }
    if material.fetched.is_some() {
        // From here on its container can be restarted without the store.
        let (facts, files) = (material.facts.clone(), material.files.clone());
        Kept::record(&folder, material.fingerprint.clone(), facts, files).await;
    }
    Ok(Done::Tokens { count })
}

async fn verify(tools: &Tools, bench: &Bench, deadline: Moment) -> Result<Done, Failure> {
    let material = bench.restore.lock().await;
    let material = material.as_ref().ok_or_else(nothing_fetched)?;
    let count = bench.engine(tools).await?.verify(&material.facts, deadline).await?;
    if let Some(tokens) = count {
        tools.metrics.tokens_verified(tokens);
    }
    Ok(Done::Tokens { count })
}

async fn finish(bench: &Bench, deadline: Moment) -> Result<Done, Failure> {
    {
        let mut held = bench.claim.lock().await;
        held.as_mut().ok_or_else(not_held)?.finish(clock::instant(deadline)).await?;
    }
    let material = bench.restore.lock().await;
    let fetched = material.as_ref().and_then(|material| material.fetched.as_ref());
    let fetched = fetched.ok_or_else(nothing_fetched)?;
    // The pod's own first generation names this one as its parent, and shares its packs.
    let mut side = bench.source.lock().await;
    side.baseline = Some(Baseline {
        manifest: Arc::clone(&fetched.manifest),
        lineage: fetched.lineage.clone(),
        number: fetched.number,
        round: Arc::default(),
    });
    Ok(Done::Nothing)
}
