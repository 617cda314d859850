//! A whole evacuation over a wire that misbehaves: it succeeds, what is restored is what was saved, and the server sees
//! little more than without the trouble.

mod clock;
mod keys;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use checkpoint::{claim::ClaimError, hash::nonce, store::Store};

use super::{
    actor,
    proxy::{Fate, Moment, Proxy, Seen},
    replica::{Files, Replica, bucket, contents, lay_out, noise, server},
};

/// The most requests, and bytes, by those of an undisturbed run.
const AMPLIFICATION_MAX: f64 = 1.3;
/// One request in ten.
const OFTEN: f64 = 0.1;
/// How long a store refuses everything.
const OVERLOADED: Duration = Duration::from_millis(500);
/// Seeds what is struck; `LIFEBOAT_TRUTH_SEED` is another one.
const SEED: u64 = 7;

/// Three generations, each a change of the one before.
fn states() -> [Files; 3] {
    let first: Files = [
        ("slots/0.bin".to_owned(), noise((9 << 20) + 5, 1)),
        ("slots/1.bin".to_owned(), noise(3 << 20, 2)),
        ("small".to_owned(), noise(300, 3)),
    ]
    .into();
    let mut second = first.clone();
    second.get_mut("slots/0.bin").unwrap()[2 << 20] ^= 1;
    second.insert("slots/2.bin".into(), noise(6 << 20, 4));
    let mut third = second.clone();
    third.get_mut("slots/2.bin").unwrap().extend(noise(100, 5));
    third.remove("small");
    [first, second, third]
}

/// A source saves three times; its replacement claims, restores and finishes; a third pod is refused.
async fn evacuate(store: Store) {
    let root = tempfile::tempdir().unwrap();
    let (state, restored) = (root.path().join("state"), root.path().join("restored"));
    let source = Replica::new(store.clone(), "source");
    for files in &states() {
        lay_out(&state, files);
        actor::saves(&source, &state).await;
    }
    lay_out(&restored, &Files::new());
    actor::restores(&source.on(store.clone(), "replacement"), &restored).await;
    assert!(contents(&restored) == states()[2], "other bytes than were saved");
    let error = source.on(store, "third").claim(false).await.unwrap_err();
    assert!(matches!(error, ClaimError::Held { expires_in: None, .. }), "{error}");
}

async fn through(proxy: &Proxy) -> Store {
    bucket(&format!("wire-{}", nonce()), Some(&proxy.url())).await
}

/// Evacuates over an undisturbed wire and over one where `decide` strikes, and compares what the server saw.
async fn compare(what: &str, decide: impl Fn(&Seen) -> Fate + Send + Sync + 'static) {
    let undisturbed = Proxy::new(&server(), |_| Fate::Pass).await;
    evacuate(through(&undisturbed).await).await;
    let disturbed = Proxy::new(&server(), decide).await;
    let began = Instant::now();
    evacuate(through(&disturbed).await).await;
    let (plain, faulty) = (undisturbed.traffic(), disturbed.traffic());
    let requests = faulty.requests() as f64 / plain.requests() as f64;
    let bytes = faulty.bytes() as f64 / plain.bytes() as f64;
    println!(
        "{what}: {} faults in {} requests (seed {}), {:.1} s; requests x {requests:.2}, bytes x {bytes:.2}",
        faulty.faults(),
        faulty.requests(),
        seed(),
        began.elapsed().as_secs_f64(),
    );
    assert!(faulty.faults() > 0, "{what}: nothing was struck");
    assert!(requests <= AMPLIFICATION_MAX, "{what}: {requests:.2} times the requests (seed {})", seed());
    assert!(bytes <= AMPLIFICATION_MAX, "{what}: {bytes:.2} times the bytes (seed {})", seed());
}

fn seed() -> u64 {
    std::env::var("LIFEBOAT_TRUTH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// Whether the request is struck, `share` of all; and a number to choose with.
fn chance(seen: &Seen, share: f64) -> Option<usize> {
    let mut random = fastrand::Rng::with_seed(seed().wrapping_mul(1_000_003).wrapping_add(seen.nth));
    (random.f64() < share).then(|| random.usize(..))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_in_ten_is_slow_down() {
    compare("503 SlowDown", |seen| match chance(seen, OFTEN) {
        Some(_) => Fate::Refuse(503, "SlowDown"),
        None => Fate::Pass,
    })
    .await;
}

/// Whoever tries again at once is refused again, and makes it worse for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_overloaded_for_a_while_is_left_alone_for_a_while() {
    let until = OnceLock::new();
    compare("503 for half a second", move |seen| {
        if seen.nth < 10 || Instant::now() > *until.get_or_init(|| Instant::now() + OVERLOADED) {
            Fate::Pass
        } else {
            Fate::Refuse(503, "SlowDown")
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reset_in_the_middle_of_bodies() {
    let (sent, fetched) = (AtomicU64::new(0), AtomicU64::new(0));
    compare("resets", move |seen| {
        let direction = if seen.method == "PUT" { Moment::Body } else { Moment::AnswerBody };
        // The second pack on its way there and on its way back, whatever the seed says.
        let count = if seen.method == "PUT" { &sent } else { &fetched };
        let large = seen.path.contains("/pack/") && count.fetch_add(1, Relaxed) == 1;
        if large || chance(seen, OFTEN).is_some() { Fate::Reset(direction) } else { Fate::Pass }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_stall_for_five_seconds() {
    compare("stalls of 5 s", |seen| match chance(seen, OFTEN / 2.0) {
        Some(choice) => {
            let moments = [Moment::Head, Moment::Body, Moment::Answer, Moment::AnswerBody];
            Fate::Stall(moments[choice % moments.len()], Duration::from_secs(5))
        }
        None => Fate::Pass,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_lost_after_the_request_was_carried_out() {
    compare("lost answers", |seen| match chance(seen, OFTEN) {
        Some(_) => Fate::Reset(Moment::Answer),
        None => Fate::Pass,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_called_expired_in_the_middle_and_a_clock_skewed() {
    compare("expired keys", |seen| match seen.nth {
        5 => Fate::Refuse(400, "ExpiredToken"),
        20 => Fate::Refuse(403, "ExpiredToken"),
        30 => Fate::Refuse(403, "RequestTimeTooSkewed"),
        _ => Fate::Pass,
    })
    .await;
}
