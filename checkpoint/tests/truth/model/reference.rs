//! The reference, and the world that it is compared with.
//!
//! ```text
//!   operation ──► faults ──► witness ──► directory            the reference remembers: bytes by generation,
//!       │                                    │                 who holds the claim, the last intent
//!       └──────────── what it said ──────────┴──► compared
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use checkpoint::{
    chunk::Chunking,
    claim::{ClaimError, ClaimState, HeldClaim},
    generation::{CommitError, Generation},
    hash::ContentHash,
    intent::IntentState,
    key::GenerationNumber,
    lineage::OLDER_MAX,
    manifest::Manifest,
    restore::RestoreError,
    save::SaveError,
    store::{
        Store, StoreError,
        directory::DirectoryStore,
        faulty::{FaultPlan, FaultyStore},
    },
};
use tokio::time::Instant;

use super::operations::{Change, Damage, Operation};
use crate::{
    replica::{EXPIRED, Files, How, Replica, contents, lay_out, noise, soon},
    witness::Witness,
};

const PATHS: [&str; 4] = ["slots/0.bin", "slots/1.bin", "a/b/c", "top"];
/// The source, and those that may come after it.
const WRITERS: [&str; 3] = ["source", "pod-0", "pod-1"];
/// A file never grows beyond it, in bytes.
const FILE_MAX: usize = 4 << 20;

/// What can come of an operation and must come of some.
pub const EVENTS: [&str; 15] = [
    "saved",
    "saved in part",
    "commit fenced",
    "unanswered and there",
    "announced",
    "claimed",
    "taken over",
    "resumed",
    "held",
    "finished",
    "renewed",
    "renewal fenced",
    "head restored",
    "older restored",
    "refused",
];
/// How often each came.
pub type Tally = BTreeMap<&'static str, u32>;

/// A commit that was made.
struct Kept {
    generation: Generation,
    manifest: Manifest,
    files: Files,
    /// The commit as it was written: it has no checksum of its own.
    document: Vec<u8>,
}

struct Claimed {
    pod: usize,
    epoch: u64,
    state: ClaimState,
    /// Grows with each write of the claim: of all handles only that with the newest still counts.
    serial: u64,
    expired: bool,
}

pub struct World {
    root: tempfile::TempDir,
    witness: Arc<Witness>,
    replica: Replica,
    state: Files,
    kept: BTreeMap<GenerationNumber, Kept>,
    newest: Option<GenerationNumber>,
    claimed: Option<Claimed>,
    handles: [Option<(HeldClaim, u64)>; 2],
    intent: Option<IntentState>,
    /// Commits whose document had one bit flipped: they may pass for whole, and then must lead to the same bytes.
    flipped: BTreeSet<GenerationNumber>,
    restores: usize,
    tally: Tally,
}

impl World {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["store", "state"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let store: Store = Arc::new(DirectoryStore::open(root.path().join("store")).unwrap());
        let witness = Witness::new(store);
        let replica = Replica::new(witness.clone(), WRITERS[0]);
        let mut world = Self {
            root,
            witness,
            replica,
            state: Files::new(),
            kept: BTreeMap::new(),
            newest: None,
            claimed: None,
            handles: [None, None],
            intent: None,
            flipped: BTreeSet::new(),
            restores: 0,
            tally: Tally::new(),
        };
        world.state.insert(PATHS[0].into(), noise(1 << 20, 0));
        world
    }

    pub async fn perform(&mut self, operation: &Operation) {
        match *operation {
            Operation::Change { file, change, seed } => self.change(PATHS[file], change, seed),
            Operation::Save { chunking, on_parent, listed, by, faults } => {
                self.save(chunking, on_parent, listed, by, faults).await;
            }
            Operation::SavePart { from } => self.save_part(from).await,
            Operation::CommitUnanswered => self.commit_unanswered().await,
            Operation::Intent { abandoned, faults } => self.announce(abandoned, faults).await,
            Operation::Claim { pod, named, faults } => self.claim(pod, named, faults).await,
            Operation::Renew { pod, faults } => self.renew(pod, faults, false).await,
            Operation::Finish { pod, faults } => self.renew(pod, faults, true).await,
            Operation::Wait => {
                if let Some(claimed) = &mut self.claimed {
                    let key = self.replica.workload.claim(&self.replica.lineage);
                    self.witness.age(&key, EXPIRED).await;
                    claimed.expired = claimed.state == ClaimState::Restoring;
                }
            }
            Operation::Restore { faults } => self.restore(faults).await,
            Operation::Damage { object, way } => self.damage(object, way),
        }
    }

    fn note(&mut self, event: &'static str) {
        assert!(EVENTS.contains(&event), "{event}");
        *self.tally.entry(event).or_default() += 1;
    }

    fn with(&self, faults: &str, writer: usize) -> Replica {
        let plan = FaultPlan::parse(faults).unwrap();
        let store = FaultyStore::new(self.witness.clone(), plan);
        self.replica.on(Arc::new(store), WRITERS[writer])
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn object(&self, key: &str) -> PathBuf {
        self.root.path().join("store/objects").join(key)
    }

    // ---- the source ------------------------------------------------------------------------------------------------

    fn change(&mut self, path: &str, change: Change, seed: u64) {
        let mut bytes = self.state.remove(path).unwrap_or_default();
        match change {
            Change::Replace(len) => bytes = noise(len, seed),
            Change::Flip(_) if bytes.is_empty() => bytes = noise(10, seed),
            Change::Flip(at) => {
                let at = at % bytes.len();
                bytes[at] ^= 1;
            }
            Change::Append(len) => bytes.extend(noise(len, seed)),
            Change::Remove => return,
        }
        bytes.truncate(FILE_MAX);
        self.state.insert(path.to_owned(), bytes);
    }

    async fn save(&mut self, chunking: Chunking, on_parent: bool, listed: bool, by: usize, faults: &str) {
        let epoch = match by {
            0 => 1,
            pod => match &self.handles[pod - 1] {
                Some((held, _)) => held.epoch(),
                None => return,
            },
        };
        lay_out(&self.folder(), &self.state);
        let whole = self.whole_packs();
        let known = if listed { Some(self.replica.known_packs().await.unwrap()) } else { None };
        let parent = self.newest.and_then(|newest| self.kept.get(&newest)).filter(|_| on_parent);
        let (of, on) = (parent.map(|kept| &kept.manifest), parent.map(|kept| kept.generation.clone()));
        self.witness.written();
        let writer = self.with(faults, by);
        let how = How { chunking, parent: of, known, deadline: soon() };
        let saved = writer.save(&self.folder(), how).await.unwrap();
        assert!(saved.is_whole() && saved.files.len() == self.state.len(), "{:?}", saved.failed);
        if listed {
            for key in self.witness.written() {
                let again = whole.iter().any(|pack| self.replica.workload.pack(*pack) == key);
                assert!(!again, "{key} was listed, is whole, and was sent again");
            }
        }
        let manifest = writer.manifest(saved.files, false, on.as_ref());
        let expected = self.may_commit(by, epoch);
        let outcome = writer.commit(&manifest, epoch, soon()).await;
        self.settle(expected, outcome, manifest, self.state.clone());
    }

    async fn save_part(&mut self, from: u64) {
        lay_out(&self.folder(), &self.state);
        let refusing = self.with(&format!("put:pack=denied@{from}"), 0);
        let saved = match refusing.save(&self.folder(), How::default()).await {
            Ok(saved) => saved,
            Err(error @ SaveError::Store { source: StoreError::Denied { .. }, .. }) => error.into_partial(),
            Err(error) => panic!("{error}"),
        };
        let partial = !saved.is_whole();
        let file = |path: &String| (path.clone(), self.state[path].clone());
        let files: Files = saved.files.iter().map(|one| file(&one.path)).collect();
        let manifest = self.replica.manifest(saved.files, partial, None);
        let expected = self.may_commit(0, 1);
        let outcome = self.replica.commit(&manifest, 1, soon()).await;
        self.settle(expected, outcome, manifest, files);
    }

    /// Its writer is told that time is up; whether the commit is there only the store knows.
    async fn commit_unanswered(&mut self) {
        lay_out(&self.folder(), &self.state);
        let saved = self.replica.save(&self.folder(), How::default()).await.unwrap();
        let manifest = self.replica.manifest(saved.files, false, None);
        let expected = self.may_commit(0, 1);
        let Expected::Number(number) = expected else { return };
        // It looks at the newest first if that is of its own epoch; then it asks what became of its own.
        let asks = if self.listed().last().is_some_and(|newest| newest.epoch == 1) { 2 } else { 1 };
        let deaf = self.with(&format!("put:gen=lost,get:gen=gone@{asks}"), 0);
        let error = deaf.commit(&manifest, 1, Instant::now() + Duration::from_millis(150)).await.unwrap_err();
        assert!(matches!(error, CommitError::Store(StoreError::TimedOut { .. })), "{error}");
        if self.listed().contains(&number) {
            let found = self.replica.survey().await.unwrap();
            let generation = found.head.unwrap();
            assert_eq!(generation.number, number);
            self.keep(generation, manifest, self.state.clone());
            self.note("unanswered and there");
        }
    }

    async fn announce(&mut self, abandoned: bool, faults: &str) {
        let state =
            if abandoned { IntentState::Abandoned { reason: "test".into() } } else { IntentState::Coming };
        self.with(faults, 0).announce(state.clone()).await.unwrap();
        self.intent = Some(state);
        self.note("announced");
    }

    fn may_commit(&self, by: usize, epoch: u64) -> Expected {
        let Some(newest) = self.listed().last().copied() else {
            return Expected::Number(GenerationNumber { epoch, n: 1 });
        };
        if newest.epoch > epoch {
            return Expected::Fenced;
        }
        if newest.epoch == epoch {
            if !self.intact(newest) {
                return Expected::Anything;
            }
            if self.kept[&newest].generation.writer != WRITERS[by] {
                return Expected::Fenced;
            }
        }
        Expected::Number(GenerationNumber { epoch, n: newest.n + 1 })
    }

    fn settle(
        &mut self,
        expected: Expected,
        outcome: Result<Generation, CommitError>,
        manifest: Manifest,
        files: Files,
    ) {
        match (expected, outcome) {
            (Expected::Number(number), Ok(generation)) => {
                assert_eq!(generation.number, number);
                self.note(if manifest.partial { "saved in part" } else { "saved" });
                self.keep(generation, manifest, files);
            }
            (Expected::Anything, Ok(generation)) => self.keep(generation, manifest, files),
            (Expected::Fenced, Err(CommitError::Fenced { .. })) => self.note("commit fenced"),
            (Expected::Anything, Err(_)) => {}
            (expected, outcome) => panic!("{expected:?} was expected, it was {outcome:?}"),
        }
    }

    fn keep(&mut self, generation: Generation, manifest: Manifest, files: Files) {
        let number = generation.number;
        let document = fs::read(self.object(&self.commit_key(number))).unwrap();
        self.flipped.remove(&number);
        self.newest = Some(number);
        self.kept.insert(number, Kept { generation, manifest, files, document });
    }

    // ---- those that come after it ------------------------------------------------------------------------------------

    async fn claim(&mut self, pod: usize, named: bool, faults: &str) {
        let claimant = self.with(faults, pod + 1);
        let floor = self.listed().last().map_or(0, |newest| newest.epoch) + 1;
        let expected = match &self.claimed {
            None => Ok(floor),
            Some(found) if found.pod == pod && found.state == ClaimState::Restoring => Ok(found.epoch),
            Some(found) if found.pod == pod => Err("finished"),
            Some(found) if found.expired || (found.state == ClaimState::Done && named) => {
                Ok(floor.max(found.epoch + 1))
            }
            Some(_) => Err("held"),
        };
        let serial = self.claimed.as_ref().map_or(0, |found| found.serial) + 1;
        match (claimant.claim(named).await, expected) {
            (Ok(held), Ok(epoch)) => {
                assert_eq!(held.epoch(), epoch);
                self.note(match &self.claimed {
                    None => "claimed",
                    Some(before) if before.pod == pod && before.state == ClaimState::Restoring => "resumed",
                    Some(_) => "taken over",
                });
                self.claimed =
                    Some(Claimed { pod, epoch, state: ClaimState::Restoring, serial, expired: false });
                self.handles[pod] = Some((held, serial));
            }
            (Err(ClaimError::Finished { .. }), Err("finished")) => self.note("finished"),
            (Err(ClaimError::Held { by, .. }), Err("held")) => {
                let holder = self.claimed.as_ref().unwrap().pod;
                assert_eq!(by.pod_uid, WRITERS[holder + 1]);
                self.note("held");
            }
            (outcome, expected) => panic!("{expected:?} was expected, it was {outcome:?}"),
        }
    }

    async fn renew(&mut self, pod: usize, faults: &str, finish: bool) {
        let Some((held, serial)) = &mut self.handles[pod] else { return };
        if held.claim().state == ClaimState::Done {
            return;
        }
        // A claim keeps the store in which it was taken: the trouble must come to it there.
        self.witness.trouble(faults);
        let outcome = if finish { held.finish(soon()).await } else { held.renew(soon()).await };
        self.witness.trouble("");
        let claimed = self.claimed.as_mut().unwrap();
        if *serial == claimed.serial {
            outcome.unwrap();
            claimed.serial += 1;
            *serial = claimed.serial;
            claimed.expired = false;
            claimed.state = if finish { ClaimState::Done } else { ClaimState::Restoring };
            self.note("renewed");
        } else {
            let error = outcome.expect_err("two hold one claim");
            assert!(matches!(error, ClaimError::Fenced { .. }), "{error}");
            self.note("renewal fenced");
        }
    }

    // ---- what readers get -------------------------------------------------------------------------------------------

    async fn restore(&mut self, faults: &str) {
        let reader = self.with(faults, 0);
        let Some(lineage) = reader.survey().await else {
            assert!(self.listed().is_empty() && self.claimed.is_none() && self.intent.is_none());
            return;
        };
        let holder = |found: &checkpoint::claim::FoundClaim| found.claim.holder.pod_uid.clone();
        assert_eq!(
            lineage.claim.as_ref().map(holder),
            self.claimed.as_ref().map(|claimed| WRITERS[claimed.pod + 1].to_owned())
        );
        assert_eq!(lineage.intent.map(|found| found.intent.state), self.intent);

        let offered: Vec<_> = lineage.head.iter().chain(&lineage.older).collect();
        assert!(offered.windows(2).all(|pair| pair[0].number > pair[1].number));
        let looked_at = self.listed().into_iter().rev().take(OLDER_MAX + 1);
        for number in looked_at {
            let is_offered = offered.iter().any(|generation| generation.number == number);
            if self.intact(number) {
                assert!(is_offered, "{number} is whole and not offered");
            } else {
                assert!(!is_offered || self.flipped.contains(&number), "{number} is damaged and offered");
            }
        }
        for (place, generation) in offered.into_iter().enumerate() {
            let number = generation.number;
            let folder = self.root.path().join(format!("restored-{}", self.restores));
            self.restores += 1;
            fs::create_dir(&folder).unwrap();
            let damaged = self.damaged_objects(number);
            let sound = damaged.is_empty() && self.intact(number);
            match reader.restore(generation, &folder).await {
                Ok(manifest) => {
                    assert!(
                        contents(&folder) == self.kept[&number].files,
                        "{number}: other bytes than were saved"
                    );
                    assert_eq!(manifest.partial, self.kept[&number].manifest.partial);
                    self.note(if place == 0 { "head restored" } else { "older restored" });
                    return;
                }
                Err(RestoreError::Corrupt { pack, .. }) if damaged.contains(&pack) => {}
                Err(RestoreError::Manifest { hash, .. })
                    if damaged.contains(&hash) || !self.intact(number) => {}
                Err(error) => panic!("{number}, where {damaged:?} are damaged: {error}"),
            }
            assert!(!sound, "{number} is whole and was refused");
            self.note("refused");
            assert!(contents(&folder).is_empty(), "{number} was refused and is visible");
        }
    }

    /// At the end: whoever comes next can restore the newest generation that is whole, without any fault.
    pub async fn close(mut self) -> Tally {
        self.restore("").await;
        self.tally
    }

    // ---- what the disk holds -----------------------------------------------------------------------------------------

    fn commit_key(&self, number: GenerationNumber) -> String {
        self.replica.workload.generation(&self.replica.lineage, number)
    }

    /// The names in a folder of the store, sorted.
    fn names(&self, prefix: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.object(prefix.trim_end_matches('/'))) else { return vec![] };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn listed(&self) -> Vec<GenerationNumber> {
        let names = self.names(&self.replica.workload.generations(&self.replica.lineage));
        names.iter().map(|name| GenerationNumber::parse(name).unwrap()).collect()
    }

    fn intact(&self, number: GenerationNumber) -> bool {
        let document = fs::read(self.object(&self.commit_key(number))).ok();
        self.kept.get(&number).is_some_and(|kept| document.as_ref() == Some(&kept.document))
    }

    fn is_whole(&self, key: &str, name: ContentHash) -> bool {
        fs::read(self.object(key)).is_ok_and(|bytes| ContentHash::of(&bytes) == name)
    }

    fn whole_packs(&self) -> Vec<ContentHash> {
        let packs = self.names(&self.replica.workload.packs());
        let packs = packs.iter().map(|name| name.parse().unwrap());
        packs.filter(|pack| self.is_whole(&self.replica.workload.pack(*pack), *pack)).collect()
    }

    /// The manifest and packs that a generation needs and that are not what their names say.
    fn damaged_objects(&self, number: GenerationNumber) -> Vec<ContentHash> {
        let workload = &self.replica.workload;
        let Some(kept) = self.kept.get(&number) else { return vec![] };
        let name = kept.generation.manifest;
        let packs = kept.manifest.packs().into_iter();
        let mut damaged: Vec<_> = packs.filter(|pack| !self.is_whole(&workload.pack(*pack), *pack)).collect();
        if !self.is_whole(&workload.manifest(name), name) {
            damaged.push(name);
        }
        damaged
    }

    fn damage(&mut self, object: usize, way: Damage) {
        let workload = &self.replica.workload;
        let commits = workload.generations(&self.replica.lineage);
        let kinds = [workload.packs(), format!("{}manifest/", workload.prefix()), commits];
        let mut objects: Vec<(String, String)> = vec![];
        for prefix in &kinds {
            let names = self.names(prefix);
            // The one before it in the folder: of another content, and often older.
            let others = names.iter().cycle().skip(names.len().saturating_sub(1));
            let keys = names
                .iter()
                .zip(others)
                .map(|(name, other)| (format!("{prefix}{name}"), format!("{prefix}{other}")));
            objects.extend(keys);
        }
        if objects.is_empty() {
            return;
        }
        let (key, other) = &objects[object % objects.len()];
        let path = self.object(key);
        let before = fs::read(&path).unwrap();
        if before.is_empty() && way != Damage::Missing {
            return;
        }
        way.inflict(&path, &self.object(other));
        // The only one of its kind cannot be swapped: it is as it was.
        let changed = fs::read(&path).ok() != Some(before);
        if let Some(number) =
            key.strip_prefix(&kinds[2]).and_then(GenerationNumber::parse).filter(|_| changed)
        {
            match way {
                Damage::Flipped => self.flipped.insert(number),
                _ => self.flipped.remove(&number),
            };
        }
    }
}

#[derive(Debug)]
enum Expected {
    Number(GenerationNumber),
    Fenced,
    /// The newest commit of this very epoch is damaged: who wrote it cannot be known.
    Anything,
}
