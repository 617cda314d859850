//! What the example promises by itself; what it answers is tested through the client (engine/http/tests.rs).

use super::*;

fn options(state_dir: &std::path::Path, seed: Option<u64>) -> SidecarOptions {
    SidecarOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: state_dir.to_owned(),
        state: seed.map(|seed| StateSeed { seed, bytes: 1_000_001, files: 3 }),
        token: None,
        facts: BTreeMap::new(),
        bytes_per_second: None,
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_state_and_another_seed_another() {
    let dir = tempfile::tempdir().unwrap();
    let (one, same) = (
        Sidecar::start(options(dir.path(), Some(1))).await.unwrap(),
        Sidecar::start(options(dir.path(), Some(1))).await.unwrap(),
    );
    let other = Sidecar::start(options(dir.path(), Some(2))).await.unwrap();
    assert_eq!(one.state_bytes(), 1_000_001);
    assert_eq!(one.state_digest(), same.state_digest());
    assert_ne!(one.state_digest(), other.state_digest());
}

#[tokio::test]
async fn touching_changes_the_asked_fraction_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(options(dir.path(), Some(1))).await.unwrap();
    let before = sidecar.state_files();
    let changed = sidecar.touch(0.1);
    assert!((90_000..=110_000).contains(&changed), "{changed}");
    let after = sidecar.state_files();
    let pages = |files: &BTreeMap<String, bytes::Bytes>| -> Vec<bytes::Bytes> {
        files
            .values()
            .flat_map(|file| file.chunks(4096).map(bytes::Bytes::copy_from_slice).collect::<Vec<_>>())
            .collect()
    };
    let differ =
        pages(&before).iter().zip(pages(&after)).filter(|(before, after)| **before != *after).count();
    assert_eq!(differ, 25, "of 246 pages");
    assert_ne!(sidecar.touch(0.1), 0);
    assert_eq!(sidecar.touch(0.0), 0);
}

#[tokio::test]
async fn a_sidecar_without_its_volume_or_its_address_says_what_to_give() {
    let dir = tempfile::tempdir().unwrap();
    let absent = Sidecar::start(options(&dir.path().join("absent"), None)).await.unwrap_err();
    assert!(absent.to_string().contains("--state-dir"), "{absent}");
    let first = Sidecar::start(options(dir.path(), None)).await.unwrap();
    let taken = Sidecar::start(SidecarOptions { listen: first.addr(), ..options(dir.path(), None) })
        .await
        .unwrap_err();
    assert!(taken.to_string().contains("port 0"), "{taken}");
}

#[tokio::test]
async fn a_stopped_sidecar_no_longer_answers_even_one_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(options(dir.path(), None)).await.unwrap();
    sidecar.set_behaviour(Behaviour::Hang);
    let url = format!("http://{}/lifeboat/v1/info", sidecar.addr());
    let waiting = tokio::spawn(reqwest::get(url.clone()));
    while sidecar.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sidecar.stop().await;
    assert_eq!(waiting.await.unwrap().unwrap().status(), 503);
    assert!(reqwest::get(url).await.is_err());
}
