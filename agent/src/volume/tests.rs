//! Volumes of hostile pods.

use super::*;
use evacuation::effect::Hold;
use evacuation::moment::{Moment, Span};
use host::hold::write_hold;
use std::os::unix::fs::symlink;

const UID: &str = "0d5e0f0c-1111-2222-3333-444455556666";

struct Node {
    dir: tempfile::TempDir,
    volumes: PodVolumes,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Self { volumes: PodVolumes::new(dir.path()), dir };
        std::fs::create_dir_all(node.path("state")).unwrap();
        node
    }

    fn path(&self, volume: &str) -> PathBuf {
        self.dir.path().join("pods").join(UID).join("volumes/kubernetes.io~empty-dir").join(volume)
    }

    fn folder(&self) -> Arc<Folder> {
        self.volumes.state_folder(UID, "state").unwrap()
    }

    fn hold(&self) -> i64 {
        std::fs::read_to_string(self.path("state").join(".lifeboat/hold")).unwrap().trim().parse().unwrap()
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let node = Node::new();
    for (uid, name) in [
        ("..", "state"),
        ("a/b", "state"),
        ("", "state"),
        (UID, ".."),
        (UID, "a/../b"),
        (UID, ""),
        (UID, "a\0"),
    ] {
        let error = node.volumes.state_folder(uid, name).unwrap_err();
        assert!(matches!(error, VolumeError::BadName { .. }), "{error}");
    }
}

#[test]
fn a_volume_that_is_not_there_names_the_annotation() {
    let error = Node::new().volumes.state_folder(UID, "other").unwrap_err();
    assert!(error.is_missing());
    assert!(error.to_string().contains("lifeboat.dev/state-volume"), "{error}");
}

#[test]
fn a_volume_that_is_a_link_is_not_opened() {
    let node = Node::new();
    symlink("/etc", node.path("planted")).unwrap();
    let error = node.volumes.state_folder(UID, "planted").unwrap_err();
    assert!(matches!(error, VolumeError::Folder(FolderError::Outside { .. })), "{error}");
}

#[tokio::test]
async fn a_hold_never_ends_before_its_moment() {
    let node = Node::new();
    for ms in [0, 1, 400, 999, 1000, 5300] {
        let until = host::clock::now() + Span::from_millis(ms);
        let earliest = jiff::Timestamp::now().as_millisecond() + i64::try_from(ms).unwrap();
        write_hold(&node.folder(), Hold::Until(until)).await.unwrap();
        let held = node.hold();
        // The pod ends when date +%s, rounded down, reaches the file's time.
        assert!(held * 1000 + 5 >= earliest, "{ms}: {held} is before {earliest}");
        assert!(held * 1000 <= earliest + 1200, "{ms}: {held} is more than a second after {earliest}");
    }
    write_hold(&node.folder(), Hold::Until(Moment::from_millis(0))).await.unwrap();
    assert!(node.hold() > 1_000_000_000, "a moment that has passed is now, not 1970");
}

#[tokio::test]
async fn a_released_hold_is_zero_and_leaves_nothing_else_behind() {
    let node = Node::new();
    write_hold(&node.folder(), Hold::Until(host::clock::now())).await.unwrap();
    write_hold(&node.folder(), Hold::Released).await.unwrap();
    assert_eq!(node.hold(), 0);
    let left: Vec<_> = std::fs::read_dir(node.path("state").join(".lifeboat")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn planted_links_are_neither_written_through_nor_read() {
    let node = Node::new();
    let outside = node.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("token"), "secret").unwrap();
    let volume = node.path("state");

    symlink(&outside, volume.join(".lifeboat")).unwrap();
    write_hold(&node.folder(), Hold::Released).await.unwrap_err();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was written outside");

    std::fs::remove_file(volume.join(".lifeboat")).unwrap();
    std::fs::create_dir(volume.join(".lifeboat")).unwrap();
    symlink(outside.join("token"), volume.join(".lifeboat/hold")).unwrap();
    write_hold(&node.folder(), Hold::Released).await.unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("token")).unwrap(), "secret", "the link was replaced");
    assert_eq!(node.hold(), 0);

    symlink(outside.join("token"), volume.join("token")).unwrap();
    auth_token(&node.folder(), "token").await.unwrap_err();
    std::fs::hard_link(outside.join("token"), volume.join("hard")).unwrap();
    auth_token(&node.folder(), "hard").await.unwrap_err();
    auth_token(&node.folder(), "../../../../../outside/token").await.unwrap_err();
}

#[tokio::test]
async fn a_bearer_token_is_one_short_word() {
    let node = Node::new();
    let file = node.path("state").join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    assert_eq!(auth_token(&node.folder(), "token").await.unwrap(), "s3cret");
    for bad in ["", "\n", "two words", "a\r\nX-Evil: 1", "\u{fc}", &"x".repeat(5000)] {
        std::fs::write(&file, bad).unwrap();
        let error = auth_token(&node.folder(), "token").await.unwrap_err();
        assert!(!error.to_string().contains("Evil"), "{error}");
    }
    assert!(auth_token(&node.folder(), "absent").await.unwrap_err().is_missing());
}
