//! The context of one pod: what the shell must remember between two effects about it.
//!
//! None of it is truth. A restarted agent begins with an empty context and finds everything again: in the
//! pod, in its volume and in the store.

use super::Clients;
use super::failure::EffectFailure;
use crate::pods::PodRef;
use crate::pods::annotations::EngineSettings;
use crate::pods::reader::PodRecord;
use crate::volume;
use checkpoint::claim::HeldClaim;
use checkpoint::dispatcher::Rank;
use checkpoint::fingerprint::Fingerprint;
use checkpoint::folder::Folder;
use checkpoint::key::{GenerationNumber, LineageId, Workload};
use checkpoint::manifest::{Manifest, Parent, Source};
use checkpoint::reuse::Reusable;
use checkpoint::save::{BlockIndex, Saved, SourceFile};
use engines::{Engine, EngineTarget, Scheme};
use evacuation::event::FailureKind;
use evacuation::moment::Moment;
use host::clock;
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// One pod's context.
pub(crate) struct PodContext {
    first_seen: Moment,
    record: RwLock<PodRecord>,
    changed: Notify,
    gone: AtomicBool,
    engine: Mutex<Option<(EngineKey, Arc<dyn Engine>)>>,
    folder: Mutex<Option<Arc<Folder>>>,
    fingerprint: Mutex<Option<Fingerprint>>,
    /// The source's side; held for the length of a flush, save or commit, so that these never overlap.
    pub(crate) source: tokio::sync::Mutex<SourceSide>,
    /// The replacement's side.
    pub(crate) restore: tokio::sync::Mutex<Option<Material>>,
    /// The generation that is fetched while the next one is waited for.
    pub(crate) prefetched: tokio::sync::Mutex<Option<Prefetched>>,
    /// Apart, so that it can be renewed while state is fetched.
    pub(crate) claim: tokio::sync::Mutex<Option<HeldClaim>>,
    unsaved: AtomicBool,
    /// Whether engines use its states, as the store last said.
    pub(crate) doubt: Mutex<Option<KnownDoubt>>,
    /// The place of its save on the link, while one is under way.
    pub(crate) rank: Rank,
}

/// What the store said of states with one fingerprint.
#[derive(Clone, Debug)]
pub(crate) struct KnownDoubt {
    /// The fingerprint's digest.
    pub(crate) digest: String,
    pub(crate) asked: Moment,
    /// Why they are doubtful, if they are.
    pub(crate) why: Option<String>,
}

/// An engine client is made for one address and one life of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EngineKey {
    ip: IpAddr,
    port: u16,
    restarts: u32,
    /// What it is known by: not there before the container was created.
    image: Option<String>,
}

/// What the source's side has so far.
#[derive(Debug, Default)]
pub(crate) struct SourceSide {
    pub(crate) flushed: Option<FlushedState>,
    pub(crate) saved: Option<Saved>,
    /// The newest manifest that the next save is compared with, and where it is committed.
    pub(crate) baseline: Option<Baseline>,
    /// The store was asked for a baseline.
    pub(crate) looked_back: bool,
    /// What the store has that may be built on, as last listed.
    pub(crate) reusable: Option<Reusable>,
    /// The epoch under which this pod writes, once it is known.
    pub(crate) epoch: Option<u64>,
    /// The departure that the intent names.
    pub(crate) departure: Option<String>,
    /// The final generation, committed; its intent may still have to be told.
    pub(crate) final_commit: Option<(GenerationNumber, u64)>,
}

/// A committed manifest.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) lineage: LineageId,
    pub(crate) number: GenerationNumber,
    /// What the save of it saw.
    pub(crate) round: Arc<BlockIndex>,
    /// The pod wrote it, or was given it and uses it: what it saves next continues it. Of any other, only the packs are
    /// built on.
    pub(crate) is_continued: bool,
}

impl Baseline {
    /// A generation that was found in the store, by the pod of this uid. A lineage with a name outlives its pods: the newest
    /// may be of the pod before, of which this one has nothing.
    pub(crate) fn found(manifest: Manifest, number: GenerationNumber, uid: &str) -> Self {
        Self {
            is_continued: manifest.source.uid == uid,
            lineage: manifest.lineage.clone(),
            manifest: Arc::new(manifest),
            number,
            round: Arc::default(),
        }
    }

    /// It as the parent of what the pod saves next; `None` if that does not continue it.
    pub(crate) fn as_parent(&self) -> Option<Parent> {
        let parent = Parent { lineage: self.lineage.clone(), generation: self.number };
        Some(parent).filter(|_| self.is_continued)
    }
}

/// What the engine flushed: opened at once, so that it survives the volume.
#[derive(Debug)]
pub(crate) struct FlushedState {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) facts: Map<String, Value>,
    pub(crate) missing: Vec<String>,
}

/// State that is put back, wherever it comes from.
#[derive(Debug)]
pub(crate) struct Material {
    /// What the engine must be.
    pub(crate) fingerprint: Fingerprint,
    /// What it must be told.
    pub(crate) facts: Map<String, Value>,
    /// Its files, in the state volume.
    pub(crate) files: Vec<String>,
    pub(crate) bytes: u64,
    /// The generation it is; `None` for what has never left the pod's own volume.
    pub(crate) fetched: Option<FetchedGeneration>,
}

/// A generation whose fetch was begun.
#[derive(Clone, Debug)]
pub(crate) struct Prefetched {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) staging: String,
}

/// A generation fetched for this pod.
#[derive(Debug)]
pub(crate) struct FetchedGeneration {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) lineage: LineageId,
    pub(crate) number: GenerationNumber,
    pub(crate) staging: String,
    pub(crate) installed: bool,
    /// The engine took it and showed that it does not use it.
    pub(crate) is_refused: bool,
}

impl std::fmt::Debug for PodContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench").field("pod", &self.display_name()).finish_non_exhaustive()
    }
}

impl PodContext {
    pub(super) fn new(record: PodRecord) -> Self {
        Self {
            first_seen: clock::now(),
            record: RwLock::new(record),
            changed: Notify::new(),
            gone: AtomicBool::new(false),
            engine: Mutex::default(),
            folder: Mutex::default(),
            fingerprint: Mutex::default(),
            source: tokio::sync::Mutex::default(),
            restore: tokio::sync::Mutex::default(),
            prefetched: tokio::sync::Mutex::default(),
            claim: tokio::sync::Mutex::default(),
            unsaved: AtomicBool::new(false),
            doubt: Mutex::default(),
            rank: Rank::default(),
        }
    }

    pub(super) fn seen(&self, record: PodRecord) {
        *self.record.write() = record;
        self.changed.notify_waiters();
    }

    /// Waits until the pod has an address, and if `with_image` also the digest of its image, which a container that was
    /// never created does not show: state is often fetched while the image is still being pulled, or between two crashes.
    /// Without end; the caller is under its effect's deadline.
    pub(crate) async fn has_started(&self, with_image: bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before the look, or a change between the two would be missed.
            changed.as_mut().enable();
            let record = self.record();
            if record.pod_ip.is_some() && (record.image_id.is_some() || !with_image) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Flushed bytes that are not committed yet.
    pub(super) fn has_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unsaved(&self, unsaved: bool) {
        self.unsaved.store(unsaved, Ordering::Relaxed);
    }

    /// When this agent first saw the pod.
    pub(crate) const fn first_seen(&self) -> Moment {
        self.first_seen
    }

    /// The pod as last seen.
    pub(crate) fn record(&self) -> PodRecord {
        self.record.read().clone()
    }

    pub(crate) fn display_name(&self) -> String {
        self.record().facts.display_name()
    }

    pub(crate) fn pod_ref(&self) -> PodRef {
        PodRef::from(&self.record().facts)
    }

    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint.lock().clone()
    }

    pub(crate) fn set_fingerprint(&self, fingerprint: Fingerprint) {
        *self.fingerprint.lock() = Some(fingerprint);
    }

    pub(crate) fn settings(&self) -> Result<EngineSettings, EffectFailure> {
        self.record().settings.ok_or_else(|| {
            EffectFailure::new(FailureKind::Permanent, "the pod is not opted in (lifeboat.dev/engine)")
        })
    }

    /// Its state volume. Opened once, and kept open: the pod may be gone before its bytes are.
    pub(crate) fn folder(&self, clients: &Clients) -> Result<Arc<Folder>, EffectFailure> {
        let mut kept = self.folder.lock();
        if let Some(folder) = &*kept {
            return Ok(Arc::clone(folder));
        }
        let record = self.record();
        let volume = self.settings()?.state_volume.ok_or_else(|| {
            EffectFailure::new(
                FailureKind::Permanent,
                "lifeboat.dev/state-volume is missing: name an emptyDir of the pod",
            )
        })?;
        let folder = clients.volumes.state_folder(&record.facts.uid.0, &volume.name)?;
        *kept = Some(Arc::clone(&folder));
        Ok(folder)
    }

    /// Closes a state volume in memory when nobody works on it: while a descriptor is open in our mount namespace, the
    /// kubelet's unmount fails with EBUSY and the pod stays Terminating. (Its bytes end with the pod in any case.)
    pub(crate) fn close_memory(&self) {
        let volume = self.settings().ok().and_then(|settings| settings.state_volume);
        if !volume.is_some_and(|volume| volume.in_memory) {
            return;
        }
        let mut engine = self.engine.lock();
        if engine.as_ref().is_none_or(|(_, engine)| Arc::strong_count(engine) == 1) {
            *engine = None;
            *self.folder.lock() = None;
        }
    }

    /// Its engine.
    pub(crate) async fn engine(&self, clients: &Clients) -> Result<Arc<dyn Engine>, EffectFailure> {
        let record = self.record();
        let settings = self.settings()?;
        let not_yet = || EffectFailure::new(FailureKind::Transient, "the pod has no IP yet");
        // One that is never dialled needs no address, and its files outlive its container.
        let nowhere = || (!settings.engine.has_api()).then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let ip = nowhere().or(record.pod_ip).ok_or_else(not_yet)?;
        let (restarts, image) = match settings.engine.has_api() {
            true => (record.restarts, record.image_id.clone()),
            false => (0, None),
        };
        let key = EngineKey { ip, port: settings.port, restarts, image };
        if let Some((made_for, engine)) = &*self.engine.lock()
            && *made_for == key
        {
            return Ok(Arc::clone(engine));
        }
        let folder = self.folder(clients)?;
        let token = match &settings.auth_file {
            Some(path) => Some(volume::auth_token(&folder, &path.to_string_lossy()).await?),
            None => None,
        };
        let image = record.image_id.iter().map(|id| ("image".to_owned(), id.clone()));
        let target = EngineTarget {
            ip,
            port: settings.port,
            scheme: Scheme::Http,
            token,
            folder,
            flush_timeout: settings.flush_timeout,
            max_bytes: settings.max_bytes,
            facts: image.collect::<BTreeMap<_, _>>(),
            compat_key: settings.compat_key.clone(),
            life: format!("{}/{}/{}", record.facts.uid, record.restarts, clients.boot),
            allow_loopback: clients.allow_loopback,
        };
        let engine = engines::connect(settings.engine, target)?;
        *self.engine.lock() = Some((key, Arc::clone(&engine)));
        Ok(engine)
    }

    /// Its workload in the store. The namespace is the pod's own: no annotation changes it.
    pub(crate) fn workload(&self, clients: &Clients) -> Result<Workload, EffectFailure> {
        let record = self.record();
        Ok(Workload::new(&clients.cluster_name, &record.facts.namespace, &record.workload.name)?)
    }

    /// The lineage it writes.
    pub(crate) fn lineage(&self) -> Result<LineageId, EffectFailure> {
        Ok(LineageId::new(&self.record().workload.lineage)?)
    }

    /// Itself, as the source of what it writes.
    pub(crate) fn as_source(&self, clients: &Clients) -> Source {
        let facts = self.record().facts;
        Source { namespace: facts.namespace, name: facts.name, uid: facts.uid.0, node: clients.node.clone() }
    }
}
