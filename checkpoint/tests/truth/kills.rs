//! A process killed at each of its writes: what is left is the old state or the new one, and a second run completes.
//!
//! strace stops the child at the entry of the n-th call of one kind and kills it there, so that the call is not carried
//! out: the moment after one write is the moment before the next. Towards the server the proxy kills it, before and
//! after each request that writes, and in the middle of its body.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use checkpoint::{
    claim::ClaimState,
    hash::{ContentHash, nonce},
    store::directory::DirectoryStore,
};
use futures::{StreamExt, stream};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    actor::{self, Outcome, Place, Role},
    proxy::{Fate, Moment, Proxy},
    replica::{Files, Replica, contents, lay_out, noise, server, soon},
    witness::Witness,
};

/// Every call by which these processes change a file system; `?`: not every architecture has it. An `open` that creates
/// is not among them: before it the disk is as it was after the call before.
const WRITES: [&str; 14] = [
    "write",
    "pwrite64",
    "fsync",
    "fallocate",
    "?mkdir",
    "mkdirat",
    "linkat",
    "?rename",
    "renameat",
    "?unlink",
    "unlinkat",
    "fchmod",
    "fchown",
    "utimensat",
];
/// More than any of these runs makes of one kind: a run that never survives fails here.
const CALLS_MAX: u32 = 400;
/// Fewer than any of these runs has writes.
const KILLS_MIN: u32 = 40;
/// Children at the same time.
const AT_ONCE: usize = 6;

fn old() -> Files {
    let files = [
        ("slots/0.bin", noise((3 << 20) + 17, 1)),
        ("slots/1.bin", noise(2 << 20, 2)),
        ("gone", b"only in the old one".to_vec()),
        ("kept/small", noise(1000, 3)),
    ];
    files.map(|(path, bytes)| (path.to_owned(), bytes)).into()
}

/// Two packs more, one file less, and one that is empty.
fn new() -> Files {
    let mut files = old();
    files.remove("gone");
    files.insert("slots/0.bin".into(), noise((3 << 20) + 40_000, 4));
    files.get_mut("slots/1.bin").unwrap()[1 << 20..].copy_from_slice(&noise(1 << 20, 5));
    files.insert("slots/2.bin".into(), noise(1 << 20, 6));
    files.insert("empty".into(), vec![]);
    files
}

/// One run on a store that holds the old state, with a folder for the child.
struct Scene {
    root: tempfile::TempDir,
    place: Place,
}

impl Scene {
    fn folder(&self) -> PathBuf {
        self.root.path().join("folder")
    }

    async fn replica(&self, uid: &str) -> Replica {
        Replica::new(self.place.open().await, uid)
    }
}

/// A store with the old state, and, if there is something to restore, the new one on top.
async fn prepare(place: &Place, restores: bool) {
    let state = tempfile::tempdir().unwrap();
    let source = Replica::new(place.open().await, "source");
    lay_out(state.path(), &old());
    let (manifest, generation) = source.checkpoint(state.path(), None).await;
    if restores {
        lay_out(state.path(), &new());
        source.checkpoint(state.path(), Some((&manifest, &generation))).await;
    }
}

fn stage(place: Place, role: Role) -> Scene {
    let scene = Scene { root: tempfile::tempdir().unwrap(), place };
    // The replacement of a named replica finds what its volume held before.
    lay_out(&scene.folder(), &if role == Role::Saves { new() } else { old() });
    scene
}

/// Copies a store's folder: no object is ever changed in place.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::hard_link(entry.path(), to).unwrap();
        }
    }
}

/// What anybody may find after a kill.
async fn old_or_new(scene: &Scene, role: Role, at: &str) {
    let reader = scene.replica("reader").await;
    let elsewhere = scene.root.path().join("reader");
    fs::create_dir(&elsewhere).unwrap();
    let found = reader.restore_newest(&elsewhere).await;
    assert!(found.refused.is_empty(), "{at}: {:?}", found.refused);
    let number = found.generation.unwrap().number;
    let expected = if number.n == 1 { old() } else { new() };
    assert!(
        contents(&elsewhere) == expected,
        "{at}: generation {number} is neither the old state nor the new one"
    );
    if role == Role::Restores {
        // Each file is a whole one: the engine does not run before the claim is done.
        let (old, new) = (old(), new());
        let visible = contents(&scene.folder());
        for (path, bytes) in &visible {
            assert!([old.get(path), new.get(path)].contains(&Some(bytes)), "{at}: {path} is a mix");
        }
        let claim = reader.claims().read(&reader.workload, &reader.lineage, soon()).await.unwrap();
        let done = claim.is_some_and(|found| found.claim.state == ClaimState::Done);
        let all = new.iter().all(|(path, bytes)| visible.get(path) == Some(bytes));
        assert!(all || !done, "{at}: the claim is done and the state is not there");
    }
}

/// The second run: it completes, and what was acknowledged before is not sent again.
async fn again(scene: &Scene, role: Role, at: &str) {
    let plain = scene.replica("whoever").await;
    let stored: BTreeSet<ContentHash> = plain.known_packs().await.unwrap().into_keys().collect();
    let witness = Witness::new(plain.store.clone());
    if role == Role::Saves {
        actor::saves(&plain.on(witness.clone(), "source"), &scene.folder()).await;
    } else {
        actor::restores(&plain.on(witness.clone(), "replacement"), &scene.folder()).await;
        let restored = contents(&scene.folder());
        assert!(new().iter().all(|(path, bytes)| restored.get(path) == Some(bytes)), "{at}: the second run");
    }
    for key in witness.written() {
        let pack = key.strip_prefix(&plain.workload.packs()).and_then(|name| name.parse().ok());
        assert!(!pack.is_some_and(|pack| stored.contains(&pack)), "{at}: {key} was sent twice");
    }
    let elsewhere = scene.root.path().join("at-last");
    fs::create_dir(&elsewhere).unwrap();
    let found = plain.restore_newest(&elsewhere).await;
    assert!(
        found.refused.is_empty() && contents(&elsewhere) == new(),
        "{at}: after the second run: {found:?}"
    );
}

/// Kills the child at the `nth` call of `kind`, and looks.
async fn one_kill(base: &Path, role: Role, kind: &str, nth: u32) -> Outcome {
    let at = format!("{role:?}, killed at {kind} {nth}");
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("store");
    copy(base, &place);
    let scene = stage(Place::Directory(place), role);
    let (trace, inject) = (format!("trace={kind}"), format!("inject={kind}:signal=KILL:when={nth}"));
    let tracer = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let tracer: Vec<&OsStr> = tracer.iter().map(OsStr::new).collect();
    let mut command = actor::child(&tracer, role, &scene.place, &scene.folder());
    actor::one_thread(&mut command);
    let outcome = actor::outcome(command.spawn().expect("strace is needed: tests/real/node-tools")).await;
    old_or_new(&scene, role, &at).await;
    again(&scene, role, &at).await;
    outcome
}

async fn kill_at_every_write(role: Role) {
    let base = tempfile::tempdir().unwrap();
    let place = Place::Directory(base.path().to_owned());
    DirectoryStore::open(base.path()).unwrap();
    prepare(&place, role == Role::Restores).await;
    let (mut report, mut total) = (Vec::new(), 0);
    let base = base.path();
    for kind in WRITES {
        // Some at once and in order, until one survives.
        let mut runs = stream::iter(1..CALLS_MAX)
            .map(|nth| async move { (nth, one_kill(base, role, kind, nth).await) })
            .buffered(AT_ONCE);
        let mut survived = None;
        while let Some((nth, outcome)) = runs.next().await {
            if outcome == Outcome::Survived {
                survived = Some(nth);
                break;
            }
        }
        let kills = survived.unwrap_or_else(|| panic!("{role:?} makes more than {CALLS_MAX} of {kind}")) - 1;
        total += kills;
        report.push(format!("{kind} {kills}"));
    }
    println!("{role:?}: killed {total} times, at {}", report.join(", "));
    assert!(total >= KILLS_MIN, "{role:?} was killed {total} times only: does strace count?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_killed_at_any_write_leaves_the_old_state_or_the_new_one() {
    kill_at_every_write(Role::Saves).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_killed_at_any_write_leaves_whole_files_and_is_completed() {
    kill_at_every_write(Role::Restores).await;
}

/// The child is killed at `moment` of its `nth` request that writes.
async fn one_kill_on_the_wire(role: Role, moment: Moment, nth: u64) -> Outcome {
    let at = format!("{role:?}, killed at the {moment:?} of PUT {nth}");
    let prefix = format!("truth-{}", nonce());
    let direct = Place::Bucket(prefix.clone(), server());
    prepare(&direct, role == Role::Restores).await;
    let scene = stage(direct, role);
    let victim = Arc::new(Mutex::new(None));
    let puts = AtomicU64::new(0);
    let decide = move |seen: &super::proxy::Seen| {
        let struck = seen.method == "PUT" && puts.fetch_add(1, Relaxed) + 1 == nth;
        if struck { Fate::Reset(moment) } else { Fate::Pass }
    };
    let strike = {
        let victim = Arc::clone(&victim);
        move || {
            let pid: Option<u32> = *victim.lock().unwrap();
            let pid = Pid::from_raw(i32::try_from(pid.unwrap()).unwrap());
            kill(pid, Signal::SIGKILL).unwrap();
        }
    };
    let proxy = Proxy::striking(&server(), decide, strike).await;
    let through = Place::Bucket(prefix, proxy.url());
    let child = {
        // It must not reach the proxy before its name is known there.
        let mut name = victim.lock().unwrap();
        let child = actor::child(&[], role, &through, &scene.folder()).spawn().unwrap();
        *name = child.id();
        child
    };
    let outcome = actor::outcome(child).await;
    old_or_new(&scene, role, &at).await;
    again(&scene, role, &at).await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_before_in_or_after_any_put_to_a_real_server_leaves_old_or_new() {
    for (role, puts) in [(Role::Saves, 6), (Role::Restores, 3)] {
        for moment in [Moment::Head, Moment::Body, Moment::Answer] {
            let mut runs = stream::iter(1..50)
                .map(|nth| async move { (nth, one_kill_on_the_wire(role, moment, nth).await) })
                .buffered(AT_ONCE);
            let mut kills = 0;
            while let Some((_, Outcome::Killed)) = runs.next().await {
                kills += 1;
            }
            println!("{role:?}: killed at the {moment:?} of {kills} PUTs");
            assert!(kills >= puts, "{role:?} has {puts} writes at least, {kills} were struck");
        }
    }
}
