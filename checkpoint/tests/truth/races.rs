//! Who may restore: one, every time. And whoever was cut off and comes back cannot undo it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use checkpoint::{claim::ClaimError, generation::CommitError, hash::nonce, key::LineageId, store::Store};
use futures::{StreamExt, stream};
use tokio::sync::watch;

use super::{
    proxy::{Fate, Moment, Proxy, Seen},
    replica::{EXPIRED, Files, How, Replica, bucket, contents, lay_out, noise, server, soon, workload},
    witness::Witness,
};

/// Races in the ordinary run, and with LIFEBOAT_LONG=1.
const RACES: usize = 1_000;
const RACES_LONG: usize = 10_000;
/// Who takes part in one.
const RACERS: usize = 3;
/// Races at the same time, over one connection pool.
const AT_ONCE: usize = 16;

/// One race; whoever lost must have been told the winner's name.
async fn race(store: &Store, lineage: &LineageId, racers: std::ops::Range<usize>, epoch: u64) {
    let takes = racers.map(|racer| {
        let mut replica = Replica::new(store.clone(), &format!("racer-{racer}"));
        replica.lineage = lineage.clone();
        tokio::spawn(async move { replica.claim(false).await })
    });
    let outcomes = futures::future::join_all(takes).await;
    let (mut winners, mut told) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome.unwrap() {
            Ok(held) => {
                assert_eq!(held.epoch(), epoch, "{lineage}");
                winners.push(held.claim().holder.pod_uid.clone());
            }
            Err(ClaimError::Held { by, .. }) => told.push(by.pod_uid),
            Err(error) => panic!("{lineage}: {error}"),
        }
    }
    assert_eq!(winners.len(), 1, "{lineage}: {winners:?} won under epoch {epoch}");
    assert!(told.iter().all(|name| *name == winners[0]), "{lineage}: {winners:?} won, {told:?} were told");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_race_for_a_claim_on_a_real_server_has_one_winner() {
    let long = std::env::var("LIFEBOAT_LONG").is_ok_and(|long| long == "1");
    let races = if long { RACES_LONG } else { RACES };
    let began = std::time::Instant::now();
    let store = bucket(&format!("races-{}", nonce()), None).await;
    let witness = Witness::new(store.clone());
    let later: Store = witness.clone();
    // Half of them for a claim that nobody has, half for one whose lease has run out.
    stream::iter(0..races / 2)
        .for_each_concurrent(AT_ONCE, |race| {
            let (store, later, witness) = (&store, &later, &witness);
            async move {
                let lineage = LineageId::new(&format!("race-{race}")).unwrap();
                self::race(store, &lineage, 0..RACERS, 1).await;
                witness.age(&workload().claim(&lineage), EXPIRED).await;
                self::race(later, &lineage, RACERS..2 * RACERS, 2).await;
            }
        })
        .await;
    println!("{races} races of {RACERS} in {:.1} s, one winner each", began.elapsed().as_secs_f64());
}

/// A source behind a wire that can be cut, its successor beside it, and a state for each.
struct Partition {
    root: tempfile::TempDir,
    source: Replica,
    successor: Replica,
    /// What the successor sees when the source's lease has run out.
    later: Arc<Witness>,
}

impl Partition {
    async fn new(proxy: &Proxy) -> Self {
        let prefix = format!("partition-{}", nonce());
        let direct = bucket(&prefix, None).await;
        let later = Witness::new(direct);
        let source = Replica::new(bucket(&prefix, Some(&proxy.url())).await, "source");
        let successor = source.on(later.clone(), "successor");
        let world = Self { root: tempfile::tempdir().unwrap(), source, successor, later };
        for (name, state) in [("source", state(1)), ("successor", state(2)), ("zombie", state(3))] {
            lay_out(&world.folder(name), &state);
        }
        world
    }

    fn folder(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    async fn saved(replica: &Replica, folder: &Path) -> checkpoint::manifest::Manifest {
        let saved = replica.save(folder, How::default()).await.unwrap();
        assert!(saved.is_whole());
        replica.manifest(saved.files, false, None)
    }

    /// The successor's state is the one that a reader gets.
    async fn the_successors_stands(&self) {
        let folder = self.folder("reader");
        lay_out(&folder, &Files::new());
        let found = self.successor.restore_newest(&folder).await;
        assert_eq!(found.generation.unwrap().writer, "successor");
        assert!(contents(&folder) == state(2));
    }
}

fn state(seed: u64) -> Files {
    [("kv.bin".to_owned(), noise(1 << 20, seed))].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_comes_back_from_a_partition_cannot_overwrite_its_successor() {
    let proxy = Proxy::new(&server(), |_| Fate::Pass).await;
    let world = Partition::new(&proxy).await;
    let Partition { source, successor, .. } = &world;
    let mut held = source.claim(false).await.unwrap();
    let manifest = Partition::saved(source, &world.folder("source")).await;
    source.commit(&manifest, held.epoch(), soon()).await.unwrap();
    let late = Partition::saved(source, &world.folder("zombie")).await;

    proxy.partition(true);
    let deadline = tokio::time::Instant::now() + Duration::from_millis(300);
    held.renew(deadline).await.unwrap_err();
    // Its lease has not run out: nobody may follow yet.
    assert!(matches!(successor.claim(false).await, Err(ClaimError::Held { .. })));
    world.later.age(&source.workload.claim(&source.lineage), EXPIRED).await;
    let mut followed = successor.claim(false).await.unwrap();
    assert_eq!(followed.epoch(), held.epoch() + 1);
    let manifest = Partition::saved(successor, &world.folder("successor")).await;
    successor.commit(&manifest, followed.epoch(), soon()).await.unwrap();
    world.the_successors_stands().await;

    proxy.partition(false);
    let error = source.commit(&late, held.epoch(), soon()).await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { by: 2, .. }), "{error}");
    for finish in [false, true] {
        let outcome = if finish { held.finish(soon()).await } else { held.renew(soon()).await };
        assert!(matches!(outcome, Err(ClaimError::Fenced { epoch: 1, .. })), "{outcome:?}");
    }
    world.the_successors_stands().await;
    followed.renew(soon()).await.unwrap();
    followed.finish(soon()).await.unwrap();
}

/// The worst moment: the source has looked and found nobody, and its commit is on the wire when it is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_under_way_and_arrives_after_the_successors_is_not_what_readers_get() {
    let (release, released) = watch::channel(false);
    let (arrive, arrived) = watch::channel(false);
    let released = Mutex::new(Some(released));
    let decide = move |seen: &Seen| {
        if seen.method == "PUT" && seen.path.contains("/gen/") {
            arrive.send_replace(true);
            if let Some(released) = released.lock().unwrap().take() {
                return Fate::Hold(Moment::Head, released);
            }
        }
        Fate::Pass
    };
    let proxy = Proxy::new(&server(), decide).await;
    let world = Partition::new(&proxy).await;
    let manifest = Partition::saved(&world.source, &world.folder("source")).await;
    let committing = {
        let source = world.source.clone();
        tokio::spawn(async move { source.commit(&manifest, 1, soon()).await })
    };
    let mut arrived = arrived;
    arrived.wait_for(|arrived| *arrived).await.unwrap();

    let followed = world.successor.claim(false).await.unwrap();
    let manifest = Partition::saved(&world.successor, &world.folder("successor")).await;
    // The source commits under epoch 1 and has no claim: its successor must be above it.
    let epoch = followed.epoch().max(2);
    world.successor.commit(&manifest, epoch, soon()).await.unwrap();
    release.send_replace(true);
    let late = committing.await.unwrap();
    assert!(
        late.is_ok_and(|late| late.number.epoch == 1),
        "it was told what it asked for: its own key was free"
    );
    world.the_successors_stands().await;
    let again = Partition::saved(&world.source, &world.folder("zombie")).await;
    assert!(matches!(world.source.commit(&again, 1, soon()).await, Err(CommitError::Fenced { .. })));
}
