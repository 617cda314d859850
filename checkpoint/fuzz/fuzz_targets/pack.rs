//! A well-formed, hostile manifest over any packs, into a folder in which somebody planted things: refused by name, or
//! exactly the bytes that the manifest says, and nothing is ever written outside.

#![no_main]

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::{Arc, LazyLock},
};

use arbitrary::Arbitrary;
use checkpoint::{
    dispatcher::{Dispatcher, Limits},
    fingerprint::Fingerprint,
    folder::Folder,
    hash::{ContentHash, Crc64},
    manifest::{EXTENT_MAX, Extent, FORMAT, FileEntry, Manifest, Source},
    path,
    restore::{self, FetchProgress, FetchRequest, Verify},
};
use checkpoint_fuzz::{
    bench::{Bench, never},
    memory,
};
use libfuzzer_sys::fuzz_target;

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::default);
const STAGING: &str = ".lifeboat/restore/1";
/// The most bytes in all files: a scene is played in memory.
const TOTAL_MAX: u64 = 24 << 20;
/// Longer than a single GET.
const LARGE: usize = 17 << 20;

#[derive(Debug, Arbitrary)]
struct Scene {
    packs: Vec<Pack>,
    files: Vec<File>,
    planted: Vec<Planted>,
    parallel: u8,
}

#[derive(Debug, Arbitrary)]
struct Pack {
    bytes: Vec<u8>,
    /// One in sixteen is repeated until it is longer than a single GET.
    large: u8,
    harm: Harm,
}

/// What became of a pack after it was named.
#[derive(Debug, Arbitrary)]
enum Harm {
    None,
    Missing,
    Cut(u16),
    Longer(u8),
    Flipped(u16),
    Other(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct File {
    path: Name,
    mode: u16,
    pieces: Vec<Piece>,
}

#[derive(Debug, Arbitrary)]
enum Name {
    Plain(u8),
    Nested(u8, u8),
    /// As long as a path may be.
    Long(u8),
    Raw(String),
}

#[derive(Debug, Arbitrary)]
struct Piece {
    pack: u8,
    offset: u32,
    len: u32,
    /// The same extent again and again.
    again: u8,
    /// Whether the checksums are those of the bytes.
    truth: Truth,
    named: bool,
}

#[derive(Debug, Arbitrary, PartialEq, Clone, Copy)]
enum Truth {
    Right,
    WrongChecksum,
    WrongName,
}

#[derive(Debug, Arbitrary)]
struct Planted {
    file: u8,
    /// Where it is staged, or where it will be.
    staged: bool,
    what: Plant,
}

#[derive(Debug, Arbitrary)]
enum Plant {
    /// A symlink to a file outside, at the path itself.
    Link,
    /// A symlink to a folder outside, in place of the folder above.
    LinkAbove,
    /// A second name of a file outside.
    HardLink,
    Folder,
    /// A file of the right size.
    Garbage(u8),
    Short,
}

fuzz_target!(|scene: Scene| {
    let bench = &*BENCH;
    let scenery = tempfile::tempdir().expect("a folder");
    let (state, outside) = (scenery.path().join("state"), scenery.path().join("outside"));
    fs::create_dir(&state).expect("a state folder");
    fs::create_dir(&outside).expect("a folder outside");
    fs::write(outside.join("precious"), b"precious").expect("a file outside");

    let packs: Vec<Vec<u8>> = scene.packs.iter().map(Pack::whole).collect();
    let Some((manifest, contents, truth)) = manifest(&scene, &packs, bench) else { return };
    let Ok((written, _)) = manifest.encode(None) else { return };
    bench.clear();
    for (pack, bytes) in scene.packs.iter().zip(&packs) {
        let key = bench.workload.pack(ContentHash::of(bytes));
        if let Some(after) = pack.after(bytes) {
            bench.put(&key, &after);
        }
    }
    plant(&scene, &manifest, &state, &outside);
    // Planting itself makes folders behind its own links: what counts is what happens from here on.
    let (planted, around) = (visible(&state), visible(&outside));

    let folder = Folder::open(&state).expect("a folder");
    let parallel = usize::from(scene.parallel) % 4;
    let dispatcher = Dispatcher::new(Limits::slots(parallel));
    let progress = Arc::new(FetchProgress::default());
    // A GET's worth of bytes for each in flight, and what the runtime and the manifest's own copies need.
    let in_flight = manifest.bytes_total().min(parallel.max(1) as u64 * EXTENT_MAX);
    let most = (4 << 20) + 4 * usize::try_from(in_flight).expect("small") + 16 * written.len();
    let fetched = memory::within(most, || {
        let request = FetchRequest {
            manifest: &manifest,
            folder: &folder,
            into: STAGING,
            earlier: None,
            verify: Verify::Names,
            rank: 0,
            deadline: never(),
        };
        bench.run(restore::fetch(&bench.store, request, &dispatcher, &progress))
    });
    assert_eq!(visible(&state), planted, "a fetch is not visible");
    let restored = match fetched {
        Ok(()) => bench.run(restore::install(&folder, STAGING, &manifest)),
        Err(error) => Err(error),
    };
    match restored {
        Ok(()) => {
            assert!(truth, "what is not as the manifest says was restored");
            for (file, bytes) in manifest.files.iter().zip(&contents) {
                is_there(&state, file, bytes);
            }
            assert!(!state.join(STAGING).exists());
        }
        Err(error) => {
            let honest = truth && scene.planted.is_empty() && scene.packs.iter().all(Pack::unharmed);
            assert!(!honest, "nothing is wrong, and it was refused: {error}");
        }
    }
    assert_eq!(fs::read(outside.join("precious")).expect("it is there"), b"precious");
    assert_eq!(visible(&outside), around, "something was written outside");
    assert_eq!(fs::read_dir(scenery.path()).expect("it is there").count(), 2);
});

impl Pack {
    fn whole(&self) -> Vec<u8> {
        match self.large % 16 {
            1 if !self.bytes.is_empty() => self.bytes.repeat(LARGE / self.bytes.len() + 1),
            _ => self.bytes.clone(),
        }
    }

    /// What lies in the store.
    fn after(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        match &self.harm {
            Harm::None => {}
            Harm::Missing => return None,
            Harm::Cut(at) => bytes.truncate(usize::from(*at)),
            Harm::Longer(more) => bytes.extend(vec![7; usize::from(*more)]),
            Harm::Flipped(at) if !bytes.is_empty() => {
                let at = usize::from(*at) % bytes.len();
                bytes[at] ^= 1;
            }
            Harm::Flipped(_) => {}
            Harm::Other(other) => bytes.clone_from(other),
        }
        Some(bytes)
    }

    fn unharmed(&self) -> bool {
        matches!(self.harm, Harm::None | Harm::Longer(_))
    }
}

impl Name {
    fn path(&self) -> String {
        match self {
            Self::Plain(n) => format!("f{}", n % 8),
            Self::Nested(above, n) => format!("d{}/f{}", above % 4, n % 4),
            Self::Long(n) => format!("{}{n:03}", format!("{}/", "x".repeat(254)).repeat(15)),
            Self::Raw(path) => path.clone(),
        }
    }
}

/// The manifest, what its files were when their packs were named, and whether all that it says of the packs is true;
/// nothing for what cannot be one.
fn manifest(scene: &Scene, packs: &[Vec<u8>], bench: &Bench) -> Option<(Manifest, Vec<Vec<u8>>, bool)> {
    let names: Vec<ContentHash> = packs.iter().map(|pack| ContentHash::of(pack)).collect();
    let mut truth = true;
    let mut files = Vec::new();
    let mut contents = Vec::new();
    let mut total = 0;
    for file in &scene.files {
        let path = file.path.path();
        path::check_state(&path).ok()?;
        let mut extents = Vec::new();
        let mut at = 0;
        let mut content = Vec::new();
        for piece in &file.pieces {
            let which = usize::from(piece.pack) % packs.len().max(1);
            let pack = packs.get(which).filter(|pack| !pack.is_empty())?;
            let from = piece.offset as usize % pack.len();
            let to = from + 1 + piece.len as usize % (pack.len() - from);
            let bytes = &pack[from..to];
            truth &= piece.truth == Truth::Right || (piece.truth == Truth::WrongName && !piece.named);
            let seen = |wrong| if piece.truth == wrong { b"wrong".as_slice() } else { bytes };
            let extent = Extent {
                offset: 0,
                len: bytes.len() as u64,
                pack: names[which],
                pack_offset: from as u64,
                crc64: Crc64::of(seen(Truth::WrongChecksum)),
                blake3: piece.named.then(|| ContentHash::of(seen(Truth::WrongName))),
            };
            for _ in 0..=piece.again {
                extents.push(Extent { offset: at, ..extent.clone() });
                at += bytes.len() as u64;
                total += bytes.len() as u64;
                if total > TOTAL_MAX {
                    return None;
                }
                content.extend_from_slice(bytes);
            }
        }
        contents.push(content);
        files.push(FileEntry { path, size: at, mode: u32::from(file.mode) & 0o777, extents });
    }
    let manifest = Manifest {
        format: FORMAT,
        workload: bench.workload.clone(),
        lineage: bench.lineage.clone(),
        source: Source { namespace: "ns".into(), name: "w-0".into(), uid: "u".into(), node: "n".into() },
        revision: "r".into(),
        spec_key: "s".into(),
        fingerprint: Fingerprint::default(),
        notice_id: None,
        parent: None,
        created: jiff::Timestamp::UNIX_EPOCH,
        partial: false,
        engine: serde_json::Map::new(),
        files,
        mac: None,
    };
    Some((manifest, contents, truth))
}

/// Plants what can be planted: one thing may be in the way of the next.
fn plant(scene: &Scene, manifest: &Manifest, state: &Path, outside: &Path) {
    use std::os::unix::fs::symlink;
    for planted in &scene.planted {
        let Some(file) = manifest.files.get(usize::from(planted.file) % manifest.files.len().max(1)) else {
            return;
        };
        let at = if planted.staged { state.join(STAGING) } else { state.to_owned() }.join(&file.path);
        let Some(above) = at.parent() else { continue };
        if let Plant::LinkAbove = planted.what {
            let Some(higher) = above.parent().filter(|higher| higher.starts_with(state)) else { continue };
            let _ = fs::create_dir_all(higher);
            let _ = symlink(outside, above);
            continue;
        }
        // What lies outside is not changed by planting, only named.
        if fs::create_dir_all(above).is_err()
            || !above.canonicalize().is_ok_and(|above| above.starts_with(state))
        {
            continue;
        }
        let _ = match &planted.what {
            Plant::Link => symlink(outside.join("precious"), &at),
            Plant::LinkAbove => Ok(()),
            Plant::HardLink => fs::hard_link(outside.join("precious"), &at),
            Plant::Folder => fs::create_dir(&at),
            _ if at.symlink_metadata().is_ok() => Ok(()),
            Plant::Garbage(byte) => fs::write(&at, vec![*byte; usize::try_from(file.size).unwrap_or(0)]),
            Plant::Short => fs::write(&at, b"x"),
        };
    }
}

/// What the engine can see: paths, sizes and modification times, without what is ours.
fn visible(state: &Path) -> HashMap<String, (u64, i64, i64)> {
    let mut seen = HashMap::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path == state.join(path::OURS) {
                continue;
            }
            let meta = fs::symlink_metadata(&path).expect("it is there");
            if meta.is_dir() {
                folders.push(path.clone());
            }
            seen.insert(path.display().to_string(), (meta.size(), meta.mtime(), meta.mtime_nsec()));
        }
    }
    seen
}

fn is_there(state: &Path, file: &FileEntry, bytes: &[u8]) {
    let path = state.join(&file.path);
    let meta = fs::symlink_metadata(&path).expect("it was installed");
    assert!(meta.is_file() && meta.nlink() == 1, "{}: it is no plain file", file.path);
    assert_eq!((meta.len(), meta.mode() & 0o7777), (file.size, file.mode), "{}", file.path);
    // Its mode may keep out who is not root.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert!(fs::read(&path).expect("it can be read") == bytes, "{}: other bytes than were named", file.path);
}
