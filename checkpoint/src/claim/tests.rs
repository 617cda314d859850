use std::{fs, sync::Arc, time::SystemTime};

use super::*;
use crate::fixture::{World, soon};

fn request(world: &World, pod: &str) -> ClaimRequest {
    ClaimRequest {
        lineage: world.lineage.clone(),
        holder: Holder { pod_uid: pod.into(), pod_name: format!("name-{pod}"), node: "node-b".into() },
        lease: Duration::from_secs(30),
        named: false,
    }
}

async fn claim(world: &World, request: &ClaimRequest) -> Result<HeldClaim, ClaimError> {
    take(world.store.as_ref(), &world.workload, request, soon()).await
}

/// Makes the claim older than its lease, by the store's clock.
fn expire(world: &World) {
    let path = world.objects("/claim").remove(0);
    let long_ago = SystemTime::now() - Duration::from_secs(40);
    fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

#[tokio::test]
async fn the_first_claim_follows_the_highest_epoch_that_committed() {
    let world = World::new();
    assert_eq!(claim(&world, &request(&world, "a")).await.unwrap().epoch(), 1);
    let world = World::new();
    world.commit(&world.manifest(vec![]), 7, "source").await.unwrap();
    assert_eq!(claim(&world, &request(&world, "a")).await.unwrap().epoch(), 8);
}

#[tokio::test]
async fn a_claim_that_is_held_names_its_holder_and_how_long() {
    let world = World::new();
    claim(&world, &request(&world, "a")).await.unwrap();
    let error = claim(&world, &request(&world, "b")).await.unwrap_err();
    let ClaimError::Held { by, expires_in: Some(left) } = &error else { panic!("{error}") };
    assert_eq!(by.pod_uid, "a");
    assert!(*left > Duration::from_secs(25) && *left <= Duration::from_secs(31));
    assert!(error.to_string().contains("pod name-a (uid a) on node node-b"), "{error}");
}

#[tokio::test]
async fn an_expired_claim_is_taken_over_and_its_holder_is_fenced() {
    let world = World::new();
    let mut first = claim(&world, &request(&world, "a")).await.unwrap();
    first.renew(world.store.as_ref(), soon()).await.unwrap();
    expire(&world);
    let mut second = claim(&world, &request(&world, "b")).await.unwrap();
    assert_eq!(second.epoch(), first.epoch() + 1);
    assert!(matches!(
        first.renew(world.store.as_ref(), soon()).await,
        Err(ClaimError::Fenced { epoch: 1, .. })
    ));
    assert!(matches!(first.finish(world.store.as_ref(), soon()).await, Err(ClaimError::Fenced { .. })));
    second.renew(world.store.as_ref(), soon()).await.unwrap();
    second.finish(world.store.as_ref(), soon()).await.unwrap();
}

#[tokio::test]
async fn what_was_restored_is_restored_once_unless_its_name_comes_again() {
    let world = World::new();
    let mut first = claim(&world, &request(&world, "a")).await.unwrap();
    first.finish(world.store.as_ref(), soon()).await.unwrap();
    expire(&world);
    assert!(matches!(
        claim(&world, &request(&world, "b")).await,
        Err(ClaimError::Held { expires_in: None, .. })
    ));
    assert!(matches!(claim(&world, &request(&world, "a")).await, Err(ClaimError::Finished { epoch: 1 })));
    let named = ClaimRequest { named: true, ..request(&world, "b") };
    assert_eq!(claim(&world, &named).await.unwrap().epoch(), 2);
}

#[tokio::test]
async fn the_same_pod_gets_its_claim_back_after_its_agent_restarted() {
    let world = World::new();
    let mut first = claim(&world, &request(&world, "a")).await.unwrap();
    let mut again = claim(&world, &request(&world, "a")).await.unwrap();
    assert_eq!(again.epoch(), first.epoch());
    // The agent that was replaced cannot go on with it.
    assert!(matches!(first.renew(world.store.as_ref(), soon()).await, Err(ClaimError::Fenced { .. })));
    again.renew(world.store.as_ref(), soon()).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_no_lost_claim() {
    let mut world = World::new();
    let faulty = world.break_store("put:claim=lost#1,put:claim=lost#3");
    let mut held = claim(&world, &request(&world, "a")).await.unwrap();
    held.renew(world.store.as_ref(), soon()).await.unwrap();
    held.finish(world.store.as_ref(), soon()).await.unwrap();
    assert!(faulty.struck().iter().all(|(_, count)| *count == 1));
}

/// `rounds` races of eight for a new claim, then of eight for the expired one.
pub(crate) async fn races(world: Arc<World>, rounds: usize, expire: impl Fn(&World)) {
    let race = |world: &Arc<World>, round: usize, racers: std::ops::Range<usize>| {
        let lineage = LineageId::new(&format!("race-{round}")).unwrap();
        let racers: Vec<_> = racers
            .map(|racer| {
                let world = Arc::clone(world);
                let request =
                    ClaimRequest { lineage: lineage.clone(), ..request(&world, &racer.to_string()) };
                tokio::spawn(async move { claim(&world, &request).await })
            })
            .collect();
        async move {
            let mut winners = Vec::new();
            for racer in racers {
                match racer.await.unwrap() {
                    Ok(held) => winners.push(held.epoch()),
                    Err(ClaimError::Held { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            winners
        }
    };
    for round in 0..rounds {
        assert_eq!(race(&world, round, 0..8).await, [1], "round {round}: who creates");
        expire(&world);
        assert_eq!(race(&world, round, 8..16).await, [2], "round {round}: who takes over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn of_eight_that_claim_one_lineage_one_wins_in_each_of_200_rounds() {
    let expire_all = |world: &World| {
        for path in world.objects("/claim") {
            let long_ago = SystemTime::now() - Duration::from_secs(40);
            fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    };
    races(Arc::new(World::new()), 200, expire_all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[should_panic(expected = "who creates")]
async fn the_race_finds_a_store_that_ignores_conditions() {
    let mut world = World::new();
    world.break_store("put=unconditional,get=slow:20ms");
    races(Arc::new(world), 5, |_| {}).await;
}

#[tokio::test]
async fn a_claim_of_the_last_epoch_there_is_cannot_be_followed_and_says_why() {
    // Somebody who may write to the bucket: an epoch that cannot be raised would be held by two.
    let world = World::new();
    let mut held = claim(&world, &request(&world, "a")).await.unwrap();
    held.finish(world.store.as_ref(), soon()).await.unwrap();
    let path = world.objects("/claim").remove(0);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"epoch\":1", &format!("\"epoch\":{}", u64::MAX), 1)).unwrap();
    for pod in ["b", "c"] {
        let again = ClaimRequest { named: true, ..request(&world, pod) };
        let error = claim(&world, &again).await.unwrap_err();
        assert!(error.to_string().contains("epochs are used up"), "{error}");
    }
}
