use std::{fs, io::Read, os::unix::fs::PermissionsExt, time::Duration};

use super::*;

fn folder() -> (Folder, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("state")).unwrap();
    (Folder::open(&root.path().join("state")).unwrap(), root)
}

/// A folder with everything a hostile pod can plant without privileges.
fn planted() -> (Folder, tempfile::TempDir) {
    let (folder, root) = folder();
    let state = root.path().join("state");
    fs::write(root.path().join("secret"), b"another pod's").unwrap();
    fs::create_dir(root.path().join("elsewhere")).unwrap();
    fs::write(root.path().join("elsewhere/x"), b"another pod's").unwrap();
    fs::create_dir_all(state.join("slots/deep")).unwrap();
    fs::write(state.join("slots/deep/0.bin"), b"ours").unwrap();
    std::os::unix::fs::symlink("../secret", state.join("link")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", state.join("linked-folder")).unwrap();
    std::os::unix::fs::symlink("slots", state.join("inner-link")).unwrap();
    nix::unistd::mkfifo(&state.join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::hard_link(root.path().join("secret"), state.join("hard")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(state.join("socket")).unwrap();
    fs::create_dir(state.join(".lifeboat")).unwrap();
    fs::write(state.join(".lifeboat/hold"), b"0").unwrap();
    (folder, root)
}

fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).expect("it hangs")
}

#[test]
fn a_listing_takes_plain_files_and_says_why_not_the_others() {
    let (folder, _root) = planted();
    let contents = within(Duration::from_secs(5), move || folder.files(&WalkLimits::default()).unwrap());
    assert_eq!(
        contents.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(),
        ["slots/deep/0.bin"]
    );
    assert_eq!(contents.files[0].size, 4);
    let mut skipped: Vec<_> =
        contents.skipped.iter().map(|one| (one.path.as_str(), one.why.as_str())).collect();
    skipped.sort_unstable();
    assert_eq!(
        skipped,
        [
            ("fifo", "it is a FIFO"),
            ("hard", "it has a second name (hard link)"),
            ("inner-link", "it is a symlink"),
            ("link", "it is a symlink"),
            ("linked-folder", "it is a symlink"),
            ("socket", "it is a socket"),
        ]
    );
}

#[test]
fn nothing_planted_can_be_read_or_written_and_nothing_hangs() {
    let (folder, root) = planted();
    for path in [
        "link",
        "fifo",
        "hard",
        "socket",
        "linked-folder/x",
        "inner-link/deep/0.bin",
        "slots",
        "../secret",
        "/etc/passwd",
        "slots/../../secret",
        "",
    ] {
        let (reading, writing) = (folder.clone(), folder.clone());
        assert!(within(Duration::from_secs(5), move || reading.read(path).is_err()), "{path}");
        assert!(within(Duration::from_secs(5), move || writing.write(path).is_err()), "{path}");
    }
    for path in ["link", "fifo", "linked-folder/new", "inner-link/new", "../new"] {
        assert!(folder.create(path, 0o600).is_err(), "{path}");
    }
    assert!(folder.create_dir_all("linked-folder/new").is_err());
    assert!(folder.rename("slots/deep/0.bin", "linked-folder/x").is_err());
    assert!(folder.rename("linked-folder/x", "stolen").is_err());
    assert_eq!(fs::read(root.path().join("elsewhere/x")).unwrap(), b"another pod's");
    assert_eq!(fs::read_dir(root.path().join("elsewhere")).unwrap().count(), 1);
    let mut ours = String::new();
    folder.read("slots/deep/0.bin").unwrap().read_to_string(&mut ours).unwrap();
    assert_eq!(ours, "ours");
}

#[test]
fn a_file_system_mounted_inside_is_not_entered() {
    // /proc/sys is a directory of another file system than / wherever tests run.
    let folder = Folder::open(Path::new("/")).unwrap();
    assert!(matches!(folder.read("proc/version"), Err(FolderError::Outside { .. })));
}

#[test]
fn a_volume_is_opened_beneath_a_trusted_root_only() {
    let (_folder, root) = planted();
    Folder::open_beneath(root.path(), "state").unwrap();
    for bad in ["state/linked-folder", "../state", "/etc", "state/fifo", "state/nowhere"] {
        assert!(Folder::open_beneath(root.path(), bad).is_err(), "{bad}");
    }
    std::os::unix::fs::symlink("state", root.path().join("alias")).unwrap();
    assert!(Folder::open(&root.path().join("alias")).is_err());
}

#[test]
fn limits_leave_out_the_rest_with_a_reason() {
    let (folder, root) = folder();
    for name in ["a", "b", "c"] {
        fs::write(root.path().join("state").join(name), vec![0; 100]).unwrap();
    }
    let listed = |limits: WalkLimits| {
        let contents = folder.files(&limits).unwrap();
        (contents.files.len(), contents.skipped.first().map(|one| one.why.clone()).unwrap_or_default())
    };
    assert_eq!(listed(WalkLimits::default()).0, 3);
    let (files, why) = listed(WalkLimits { files: 2, ..WalkLimits::default() });
    assert!(files == 2 && why.contains("more than 2 files"), "{why}");
    let (files, why) = listed(WalkLimits { bytes: 250, ..WalkLimits::default() });
    assert!(files == 2 && why.contains("more than 250 bytes"), "{why}");
    let (files, why) = listed(WalkLimits { file_bytes: 99, ..WalkLimits::default() });
    assert!(files == 0 && why.contains("at most 99"), "{why}");
}

#[test]
fn a_million_entries_do_not_fill_memory() {
    let (folder, root) = folder();
    for name in 0..1100 {
        fs::create_dir(root.path().join("state").join(name.to_string())).unwrap();
    }
    let contents = folder.files(&WalkLimits { files: 1, ..WalkLimits::default() }).unwrap();
    assert!(contents.skipped.iter().any(|one| one.why.contains("too many entries")));
}

#[test]
fn small_files_are_old_or_new_and_readable_by_the_pod() {
    let (folder, root) = folder();
    folder.create_dir_all(".lifeboat").unwrap();
    for text in ["1", "22"] {
        folder.write_small_atomically(".lifeboat/hold", text.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("state/.lifeboat/hold")).unwrap(), text);
    }
    let path = root.path().join("state/.lifeboat");
    assert_eq!(fs::metadata(path.join("hold")).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
}

#[test]
fn files_get_the_folders_owner() {
    if !geteuid().is_root() {
        eprintln!("not run: giving a file away needs root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(root.path(), Some(12345), Some(2345)).unwrap();
    let folder = Folder::open(root.path()).unwrap();
    folder.create_dir_all("a/b").unwrap();
    folder.create("a/b/c", 0o640).unwrap();
    for path in ["a", "a/b", "a/b/c"] {
        let meta = fs::metadata(root.path().join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (12345, 2345), "{path}");
    }
    assert_eq!(fs::metadata(root.path().join("a/b/c")).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn only_what_is_ours_is_removed_and_links_are_not_followed() {
    let (folder, root) = planted();
    assert!(folder.remove_tree("slots").is_err());
    assert!(folder.remove_tree(".lifeboat").is_err());
    folder.create_dir_all(".lifeboat/restore/1/deep").unwrap();
    folder.create(".lifeboat/restore/1/deep/x", 0o600).unwrap();
    std::os::unix::fs::symlink("../../../../elsewhere", root.path().join("state/.lifeboat/restore/1/out"))
        .unwrap();
    folder.remove_tree(".lifeboat/restore/1").unwrap();
    folder.remove_tree(".lifeboat/restore/1").unwrap();
    assert!(!root.path().join("state/.lifeboat/restore/1").exists());
    assert!(root.path().join("elsewhere/x").exists());
}
