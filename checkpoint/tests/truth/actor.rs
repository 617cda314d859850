//! The process that is killed, and the one whose clock or keys are another's: this test binary, run again as a child.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use checkpoint::{
    claim::ClaimError,
    intent::IntentState,
    store::{Store, directory::DirectoryStore},
};
use tokio::process::{Child, Command};

use super::replica::{Files, How, Replica, bucket, contents, lay_out, noise, soon};

const ROLE: &str = "LIFEBOAT_TRUTH_ROLE";
const PLACE: &str = "LIFEBOAT_TRUTH_STORE";
const FOLDER: &str = "LIFEBOAT_TRUTH_FOLDER";
const THREADS: &str = "LIFEBOAT_TRUTH_THREADS";
const TEST: &str = "actor::an_evacuation_without_trouble_succeeds";

/// Where a child finds its store.
#[derive(Debug, Clone)]
pub enum Place {
    Directory(PathBuf),
    /// A prefix of the bucket, and the endpoint.
    Bucket(String, String),
}

impl Place {
    pub async fn open(&self) -> Store {
        match self {
            Self::Directory(path) => {
                let path = path.clone();
                // It makes folders: on the thread on which all writes are counted.
                let opened = tokio::task::spawn_blocking(move || DirectoryStore::open(path)).await.unwrap();
                Arc::new(opened.unwrap())
            }
            Self::Bucket(prefix, endpoint) => bucket(prefix, Some(endpoint)).await,
        }
    }
}

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The source: announces, saves on top of the newest generation, commits, and says so.
    Saves,
    /// The replacement: claims, restores the newest generation, and finishes.
    Restores,
    /// Both, one after the other.
    Evacuates,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Saves => "saves",
            Self::Restores => "restores",
            Self::Evacuates => "evacuates",
        }
    }
}

/// A child that plays `role` on the state in `folder`, below the program and arguments of `around` (a tracer, say).
pub fn child(around: &[&OsStr], role: Role, place: &Place, folder: &Path) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut words = around.iter().copied().chain([this.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
    let place = match place {
        Place::Directory(path) => path.display().to_string(),
        Place::Bucket(prefix, endpoint) => format!("{prefix} {endpoint}"),
    };
    command.env(ROLE, role.name()).env(PLACE, place).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Everything that blocks runs on one thread, so that its writes have an order.
pub fn one_thread(command: &mut Command) {
    command.env(THREADS, "1");
}

/// Waits for a child; panics with its output if it failed by itself.
pub async fn outcome(child: Child) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let output = child.wait_with_output().await.unwrap();
    let status: ExitStatus = output.status;
    // A tracer whose tracee was killed ends in the same way, or says so in its exit code.
    if status.signal() == Some(9) || status.code() == Some(128 + 9) {
        return Outcome::Killed;
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(status.success() && said.contains("1 passed"), "{status}:\n{said}");
    Outcome::Survived
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Killed,
    Survived,
}

/// A test of its own, and, where it is given a role, the process that other tests start.
#[test]
fn an_evacuation_without_trouble_succeeds() {
    let counted = std::env::var(THREADS).is_ok();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if counted {
        runtime.max_blocking_threads(1);
    }
    runtime.enable_all().build().unwrap().block_on(async {
        if counted {
            tokio::task::spawn_blocking(overtake).await.unwrap();
        }
        match std::env::var(ROLE) {
            Ok(role) => play(&role).await,
            Err(_) => rehearse().await,
        }
    });
}

async fn play(role: &str) {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let place = std::env::var(PLACE).unwrap();
    let place = match place.split_once(' ') {
        Some((prefix, endpoint)) => Place::Bucket(prefix.to_owned(), endpoint.to_owned()),
        None => Place::Directory(place.into()),
    };
    let store = place.open().await;
    let (source, replacement) = (Replica::new(store.clone(), "source"), Replica::new(store, "replacement"));
    match role {
        "saves" => saves(&source, &folder).await,
        "restores" => restores(&replacement, &folder).await,
        "evacuates" => {
            saves(&source, &folder.join("state")).await;
            restores(&replacement, &folder.join("restored")).await;
        }
        other => panic!("{other} is no role"),
    }
}

async fn rehearse() {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| root.path().join(name);
    let state: Files = [("slots/0.bin".to_owned(), noise(5 << 20, 1)), ("empty".to_owned(), vec![])].into();
    fs::create_dir(folder("store")).unwrap();
    lay_out(&folder("state"), &state);
    lay_out(&folder("restored"), &Files::new());
    let store = Place::Directory(folder("store")).open().await;
    saves(&Replica::new(store.clone(), "source"), &folder("state")).await;
    restores(&Replica::new(store, "replacement"), &folder("restored")).await;
    assert!(contents(&folder("restored")) == state);
}

/// strace counts the calls of each thread. The harness has written twice before it starts this test, and would be killed
/// in this thread's stead.
fn overtake() {
    let mut nowhere = fs::File::options().write(true).open("/dev/null").unwrap();
    for _ in 0..2 {
        nowhere.write_all(b"x").unwrap();
    }
}

/// What a source does. Repeated after a kill it finds what it sent before.
pub async fn saves(source: &Replica, state: &Path) {
    source.announce(IntentState::Coming).await.unwrap();
    let head = source.survey().await.and_then(|lineage| lineage.head);
    let parent = match &head {
        Some(head) => Some(source.load(head).await.unwrap()),
        None => None,
    };
    let known = Some(source.known_packs().await.unwrap());
    let saved = source.save(state, How { parent: parent.as_ref(), known, ..How::default() }).await.unwrap();
    assert!(saved.is_whole(), "{:?}", saved.failed);
    let manifest = source.manifest(saved.files, false, head.as_ref());
    let generation = source.commit(&manifest, 1, soon()).await.unwrap();
    source.announce(IntentState::Committed { number: generation.number }).await.unwrap();
}

/// What a replacement does. Repeated after a kill it goes on with its own claim.
pub async fn restores(replacement: &Replica, folder: &Path) {
    let mut held = match replacement.claim(false).await {
        Ok(held) => held,
        // It was killed after its last write.
        Err(ClaimError::Finished { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let found = replacement.restore_newest(folder).await;
    assert!(found.generation.is_some() && found.refused.is_empty(), "{found:?}");
    held.renew(soon()).await.unwrap();
    held.finish(soon()).await.unwrap();
}
