//! What happens around a collector: replicas that save and restore, and a reference that remembers what they committed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::memory::{Crash, Memory, User};
use crate::{
    claim::{ClaimRequest, Claims, Holder},
    fixture::{World, soon},
    garbage::{self, Collected, Policy},
    generation::{self, Generation},
    hash::{ContentHash, Crc64},
    key::{GenerationNumber, LineageId, Workload},
    manifest::{Extent, FileEntry, Manifest, Parent},
    preflight::Conditions,
    restore, retry,
    reuse::{self, GOOD_FOR, NotReusable},
    store::{Condition, Remover, Store},
};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Blocks that one pack holds.
const PACK: usize = 3;

pub(super) fn policy() -> Policy {
    Policy { keep: 2, retention: 24 * 60 * MINUTE, restored: 12 * 60 * MINUTE, ..Policy::default() }
}

/// What was committed, and when.
struct Committed {
    bytes: Vec<u8>,
    at: Timestamp,
}

pub(super) struct History {
    pub(super) memory: Arc<Memory>,
    pub(super) workload: Workload,
    world: World,
    committed: std::sync::Mutex<BTreeMap<(LineageId, GenerationNumber), Committed>>,
}

pub(super) fn lineage(number: u8) -> LineageId {
    LineageId::new(&format!("llama-{number}")).unwrap()
}

fn block(id: u8) -> Vec<u8> {
    format!("block {id:03} of a state").into_bytes()
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        let world = World::new();
        Self {
            memory: Memory::new(seed),
            workload: world.workload.clone(),
            world,
            committed: std::sync::Mutex::default(),
        }
    }

    pub(super) fn reader(&self) -> Store {
        User::new(&self.memory, Crash::Never)
    }

    pub(super) async fn collect(&self, store: &Remover) -> Collected {
        garbage::collect(store, &self.workload, &policy(), "test", soon())
            .await
            .unwrap_or_else(|error| Collected { failed: Some(error), ..Collected::default() })
    }

    /// One whole pass.
    pub(super) async fn pass(&self) -> Collected {
        let store: Remover = User::new(&self.memory, Crash::Never);
        let collected = self.collect(&store).await;
        assert!(collected.failed.is_none(), "{:?}", collected.failed);
        collected
    }

    /// Saves as a node does: what the parent has and may be named again is not sent. `pauses` are taken before the packs
    /// are sent and before the commit.
    pub(super) async fn save(&self, of: u8, parent: Option<u8>, blocks: &[u8], pauses: [Duration; 2]) {
        let store = self.reader();
        let workload = &self.workload;
        let mut listed_at = self.memory.now();
        let mut reusable = reuse::list(store.as_ref(), workload, None, soon()).await.unwrap();
        let parent = match parent {
            Some(parent) => self.head(&store, &lineage(parent)).await,
            None => None,
        };
        let mut created: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        for _ in 0..5 {
            let mut known: HashMap<ContentHash, Extent> = HashMap::new();
            for extent in
                parent.iter().flat_map(|(_, manifest)| &manifest.files).flat_map(|file| &file.extents)
            {
                if reusable.packs().contains_key(&extent.pack) {
                    known.insert(extent.blake3.unwrap(), extent.clone());
                }
            }
            self.pause(pauses[0]).await;
            let new: Vec<u8> = blocks
                .iter()
                .copied()
                .filter(|id| !known.contains_key(&ContentHash::of(&block(*id))))
                .collect();
            for ids in new.chunks(PACK) {
                let mut bytes: Vec<u8> = ids.iter().flat_map(|id| block(*id)).collect();
                if reusable.is_condemned(ContentHash::of(&bytes)) {
                    bytes.extend(reuse::salt().into_bytes());
                }
                let pack = ContentHash::of(&bytes);
                for (place, id) in ids.iter().enumerate() {
                    let (bytes, len) = (block(*id), block(*id).len() as u64);
                    let extent = Extent {
                        offset: 0,
                        len,
                        pack,
                        pack_offset: place as u64 * len,
                        crc64: Crc64::of(&bytes),
                        blake3: Some(ContentHash::of(&bytes)),
                    };
                    known.insert(ContentHash::of(&bytes), extent);
                }
                if !reusable.packs().contains_key(&pack) {
                    retry::put(store.as_ref(), &workload.pack(pack), bytes, Condition::Always, soon())
                        .await
                        .unwrap();
                }
            }
            let mut offset = 0;
            let extents: Vec<Extent> = blocks
                .iter()
                .map(|id| {
                    let extent = Extent { offset, ..known[&ContentHash::of(&block(*id))].clone() };
                    offset += extent.len;
                    extent
                })
                .collect();
            let files = vec![FileEntry { path: "state".into(), size: offset, mode: 0o600, extents }];
            let parent_of = parent.as_ref().map(|(generation, _)| Parent {
                lineage: generation.lineage.clone(),
                generation: generation.number,
            });
            let mut manifest = self.world.manifest(files);
            (manifest.lineage, manifest.parent, manifest.created) = (lineage(of), parent_of, created);
            self.pause(pauses[1]).await;
            let (_, name) = manifest.encode(None).unwrap();
            let (before, elapsed) = (self.memory.now(), self.memory.since(listed_at));
            match reusable.confirm_after(elapsed, store.as_ref(), &manifest, name, soon()).await {
                Ok(()) => {
                    let epoch = self.epoch(&store, of).await;
                    let done = generation::commit(
                        store.as_ref(),
                        &manifest,
                        epoch,
                        "writer",
                        None,
                        &Conditions::Decided,
                        soon(),
                    )
                    .await;
                    let number = done.unwrap().number;
                    let bytes = blocks.iter().flat_map(|id| block(*id)).collect();
                    let committed = Committed { bytes, at: self.memory.now() };
                    self.committed.lock().unwrap().insert((lineage(of), number), committed);
                    return;
                }
                Err(NotReusable::Packs { .. }) => {}
                Err(NotReusable::Manifest(_)) => created += Duration::from_secs(1),
                Err(NotReusable::Store(error)) => panic!("{error}"),
            }
            if elapsed >= GOOD_FOR {
                listed_at = before;
            }
        }
        panic!("a save was sent back five times");
    }

    /// Lets time pass, and others do something in it.
    async fn pause(&self, time: Duration) {
        self.memory.advance(time);
        for _ in 0..time.as_secs() {
            tokio::task::yield_now().await;
        }
    }

    async fn epoch(&self, store: &Store, of: u8) -> u64 {
        let newest = generation::newest(store.as_ref(), &self.workload, &lineage(of), soon()).await.unwrap();
        newest.map_or(1, |number| number.epoch)
    }

    async fn head(&self, store: &Store, id: &LineageId) -> Option<(Generation, Manifest)> {
        let number = generation::newest(store.as_ref(), &self.workload, id, soon()).await.unwrap()?;
        // A collector may be removing it just now: then there is nothing to build on.
        let generation = generation::read(store.as_ref(), &self.workload, id, number, soon()).await.ok()?;
        let manifest =
            restore::load_manifest(store, &self.workload, generation.manifest, None, soon()).await.ok()?;
        Some((generation, manifest))
    }

    /// Claims a lineage as a replacement does, and finishes.
    pub(super) async fn hand_over(&self, of: u8) {
        let store = self.reader();
        let holder = Holder { pod_uid: "replacement".into(), pod_name: "r".into(), node: "n".into() };
        let (lease, named) = (Duration::from_secs(30), true);
        let request = ClaimRequest { lineage: lineage(of), holder, lease, named };
        if let Ok(mut held) =
            Claims::in_store(store.clone()).take(store.as_ref(), &self.workload, &request, soon()).await
        {
            let _ = held.finish(soon()).await;
        }
    }

    /// Every generation that can be found is what was committed, byte by byte; and the newest ones of each lineage are
    /// there as long as no rule lets the lineage go.
    pub(super) fn check(&self, when: &str) {
        let committed = self.committed.lock().unwrap();
        for key in self.memory.keys("/gen/") {
            let (id, number) = self.parse(&key);
            let generation: Generation = serde_json::from_slice(&self.memory.bytes(&key).unwrap()).unwrap();
            let name = self.workload.manifest(generation.manifest);
            let manifest =
                self.memory.bytes(&name).unwrap_or_else(|| panic!("{when}: {key}: its manifest is gone"));
            let manifest = Manifest::parse(&manifest, None).unwrap();
            let mut bytes = Vec::new();
            for extent in &manifest.files[0].extents {
                let pack = self.memory.bytes(&self.workload.pack(extent.pack));
                let pack = pack.unwrap_or_else(|| panic!("{when}: {key}: pack {} is gone", extent.pack));
                let start = extent.pack_offset as usize;
                bytes.extend_from_slice(&pack[start..start + extent.len as usize]);
            }
            // A commit whose save is still running is not in the reference yet.
            if let Some(expected) = committed.get(&(id, number)) {
                assert_eq!(bytes, expected.bytes, "{when}: {key}");
            }
        }
        let there: BTreeSet<_> = self.memory.keys("/gen/").iter().map(|key| self.parse(key)).collect();
        for id in (0..4).map(lineage) {
            let mut own: Vec<_> = committed.iter().filter(|((of, _), _)| *of == id).collect();
            own.sort_by_key(|(_, committed)| std::cmp::Reverse(committed.at));
            // A lineage may have gone and come back: nothing is demanded from before a long silence.
            let mut later = self.memory.now();
            for (key, committed) in own.into_iter().take(policy().keep) {
                if later.duration_since(committed.at) >= policy().restored.try_into().unwrap() {
                    break;
                }
                assert!(there.contains(key), "{when}: {} of {id} should have been kept", key.1);
                later = committed.at;
            }
        }
    }

    fn parse(&self, key: &str) -> (LineageId, GenerationNumber) {
        let rest = key.strip_prefix(&self.workload.lineages()).unwrap();
        let (id, number) = rest.split_once("/gen/").unwrap();
        (LineageId::new(id).unwrap(), GenerationNumber::parse(number).unwrap())
    }

    /// Passes until nothing is left to do: then there is nothing that no generation names.
    pub(super) async fn settle(&self, when: &str) {
        for _ in 0..12 {
            self.memory.advance(policy().grace + 2 * MINUTE);
            self.pass().await;
            self.check(when);
        }
        let mut named = BTreeSet::new();
        for key in self.memory.keys("/gen/") {
            let generation: Generation = serde_json::from_slice(&self.memory.bytes(&key).unwrap()).unwrap();
            let name = self.workload.manifest(generation.manifest);
            let manifest = Manifest::parse(&self.memory.bytes(&name).unwrap(), None).unwrap();
            named.extend(manifest.packs().into_iter().map(|pack| self.workload.pack(pack)));
            named.insert(name);
        }
        let mut there: BTreeSet<String> = self.memory.keys("/pack/").into_iter().collect();
        there.extend(self.memory.keys("/manifest/"));
        let left: Vec<_> = there.difference(&named).collect();
        assert!(left.is_empty(), "{when}: nobody names {left:?}");
        assert_eq!(self.memory.keys("/tombstone/"), Vec::<String>::new(), "{when}");
    }
}
