//! Clocks that are wrong by an hour: the store's, what is said of it on the way, and ours.

use std::path::PathBuf;

use checkpoint::claim::ClaimError;

use super::{AMPLIFICATION_MAX, Fate, Proxy, evacuate, lay_out, nonce, server, states, through};
use crate::{
    actor::{self, Outcome, Place, Role},
    proxy::Clock,
    replica::{Replica, contents, soon},
};

/// S3 refuses what is signed a quarter of an hour too early or too late, and the SDK signs by the store's `Date`. The server
/// behind the proxy judges by the right time, so it is told a wrong one only within that: far beyond any lease.
const WITHIN: i64 = 14 * 60;
const HOUR: i64 = 3600;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_clock_is_wrong_is_used_and_its_leases_hold() {
    let plain = Proxy::new(&server(), |_| Fate::Pass).await;
    evacuate(through(&plain).await).await;
    for wrong in [WITHIN, -WITHIN] {
        let proxy = Proxy::with_wrong_clock(&server(), Clock { date: wrong, last_modified: wrong }).await;
        evacuate(through(&proxy).await).await;
        let requests = proxy.traffic().requests() as f64 / plain.traffic().requests() as f64;
        println!("the store's clock is {wrong} s off: requests x {requests:.2}");
        assert!(requests <= AMPLIFICATION_MAX, "{requests:.2} times the requests");
        let store = through(&proxy).await;
        let first = Replica::new(store.clone(), "first");
        let mut held = first.claim(false).await.unwrap();
        let second = first.on(store, "second").claim(false).await;
        assert!(matches!(second, Err(ClaimError::Held { expires_in: Some(_), .. })), "{wrong}: {second:?}");
        held.renew(soon()).await.unwrap();
    }
}

/// `Date` and `Last-Modified` no longer fit together: who holds what cannot be known, and still nobody holds it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_does_not_fit_gives_one_claim_to_one_holder() {
    for wrong in [WITHIN, -WITHIN] {
        let proxy = Proxy::with_wrong_clock(&server(), Clock { date: wrong, last_modified: 0 }).await;
        evacuate(through(&proxy).await).await;
        let store = through(&proxy).await;
        let first = Replica::new(store.clone(), "first");
        let mut held = first.claim(false).await.unwrap();
        let second = first.on(store.clone(), "second").claim(false).await;
        let renewed = held.renew(soon()).await;
        match second {
            Ok(_) => assert!(matches!(renewed, Err(ClaimError::Fenced { .. })), "{wrong}: two hold it"),
            Err(ClaimError::Held { .. }) => renewed.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the SDK signs by whatever Date says, each refusal confirms it, and nothing works until the deadline"]
async fn a_date_that_is_wrong_by_an_hour_on_the_way_is_got_over() {
    for wrong in [HOUR, -HOUR] {
        let proxy = Proxy::with_wrong_clock(&server(), Clock { date: wrong, last_modified: wrong }).await;
        evacuate(through(&proxy).await).await;
    }
}

fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists()).expect("libfaketime is needed: tests/real/node-tools")
}

async fn evacuated_by_a_child(offset: Option<&str>) -> u64 {
    let proxy = Proxy::new(&server(), |_| Fate::Pass).await;
    let root = tempfile::tempdir().unwrap();
    lay_out(&root.path().join("state"), &states()[0]);
    std::fs::create_dir(root.path().join("restored")).unwrap();
    let place = Place::Bucket(format!("clock-{}", nonce()), proxy.url());
    let mut child = actor::child(&[], Role::Evacuates, &place, root.path());
    if let Some(offset) = offset {
        child.env("LD_PRELOAD", faketime()).env("FAKETIME", offset);
    }
    assert_eq!(actor::outcome(child.spawn().unwrap()).await, Outcome::Survived);
    assert!(contents(&root.path().join("restored")) == states()[0], "{offset:?}");
    proxy.traffic().requests()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_wrong_by_an_hour_saves_claims_and_restores() {
    let plain = evacuated_by_a_child(None).await;
    for offset in ["+1h", "-1h"] {
        let requests = evacuated_by_a_child(Some(offset)).await;
        let ratio = requests as f64 / plain as f64;
        println!("our clock is {offset} off: {requests} requests, x {ratio:.2}");
        assert!(ratio <= AMPLIFICATION_MAX, "{offset}: {ratio:.2} times the requests");
    }
}
