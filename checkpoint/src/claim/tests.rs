use std::{fs, ops::Range, sync::Arc, time::SystemTime};

use super::*;
use crate::fixture::{World, soon};

mod memory;

use memory::MemoryBoard;

/// A world, and the claims of it in one of the two places.
struct Place {
    world: World,
    claims: Claims,
    board: Option<Arc<MemoryBoard>>,
}

impl Place {
    fn store() -> Self {
        let world = World::new();
        Self { claims: world.claims(), world, board: None }
    }

    fn board() -> Self {
        let board = Arc::new(MemoryBoard::default());
        let world = World::new();
        Self { claims: Claims::on(board.clone(), world.store.clone()), world, board: Some(board) }
    }

    fn both() -> [Self; 2] {
        [Self::store(), Self::board()]
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<HeldClaim, ClaimError> {
        self.claims.take(self.world.store.as_ref(), &self.world.workload, request, soon()).await
    }

    /// Makes every claim older than its lease.
    fn expire(&self) {
        self.pass(Duration::from_secs(40));
    }

    /// Makes every claim so old, by the place's own clock.
    fn pass(&self, age: Duration) {
        if let Some(board) = &self.board {
            return board.pass(age);
        }
        for path in self.world.objects("/claim") {
            let then = SystemTime::now() - age;
            fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
        }
    }

    fn request(&self, pod: &str) -> ClaimRequest {
        ClaimRequest {
            lineage: self.world.lineage.clone(),
            holder: Holder { pod_uid: pod.into(), pod_name: format!("name-{pod}"), node: "node-b".into() },
            lease: Duration::from_secs(30),
            named: false,
        }
    }
}

#[tokio::test]
async fn the_first_claim_follows_the_highest_epoch_that_committed() {
    for place in Place::both() {
        assert_eq!(place.claim(&place.request("a")).await.unwrap().epoch(), 1);
    }
    for place in Place::both() {
        place.world.commit(&place.world.manifest(vec![]), 7, "source").await.unwrap();
        assert_eq!(place.claim(&place.request("a")).await.unwrap().epoch(), 8);
    }
}

#[tokio::test]
async fn a_claim_that_is_given_back_is_free_within_two_seconds() {
    for place in Place::both() {
        let mut held = place.claim(&place.request("a")).await.unwrap();
        held.give_back(soon()).await.unwrap();
        place.pass(Duration::from_secs(2));
        let taken = place.claim(&place.request("b")).await.unwrap();
        assert_eq!((taken.claim().holder.pod_uid.as_str(), taken.epoch()), ("b", 2));
        assert!(matches!(held.finish(soon()).await, Err(ClaimError::Fenced { .. })));
    }
}

#[tokio::test]
async fn a_claim_that_is_held_names_its_holder_and_how_long() {
    for place in Place::both() {
        place.claim(&place.request("a")).await.unwrap();
        let error = place.claim(&place.request("b")).await.unwrap_err();
        let ClaimError::Held { by, expires_in: Some(left) } = &error else { panic!("{error}") };
        assert_eq!(by.pod_uid, "a");
        assert!(*left > Duration::from_secs(25) && *left <= Duration::from_secs(31));
        assert!(error.to_string().contains("pod name-a (uid a) on node node-b"), "{error}");
    }
}

#[tokio::test]
async fn an_expired_claim_is_taken_over_and_its_holder_is_fenced() {
    for place in Place::both() {
        let mut first = place.claim(&place.request("a")).await.unwrap();
        first.renew(soon()).await.unwrap();
        place.expire();
        let mut second = place.claim(&place.request("b")).await.unwrap();
        assert_eq!(second.epoch(), first.epoch() + 1);
        assert!(matches!(first.renew(soon()).await, Err(ClaimError::Fenced { epoch: 1, .. })));
        assert!(matches!(first.finish(soon()).await, Err(ClaimError::Fenced { .. })));
        second.renew(soon()).await.unwrap();
        second.finish(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn a_renewal_starts_the_lease_anew() {
    let place = Place::board();
    let board = place.board.as_ref().unwrap();
    let mut first = place.claim(&place.request("a")).await.unwrap();
    for _ in 0..3 {
        board.pass(Duration::from_secs(29));
        assert!(matches!(place.claim(&place.request("b")).await, Err(ClaimError::Held { .. })));
        first.renew(soon()).await.unwrap();
    }
    // A stamp may be a second older than it seems.
    board.pass(Duration::from_secs(30));
    assert!(matches!(place.claim(&place.request("b")).await, Err(ClaimError::Held { .. })));
    board.pass(Duration::from_secs(1));
    assert_eq!(place.claim(&place.request("b")).await.unwrap().epoch(), 2);
}

#[tokio::test]
async fn what_was_restored_is_restored_once_unless_its_name_comes_again() {
    for place in Place::both() {
        let mut first = place.claim(&place.request("a")).await.unwrap();
        first.finish(soon()).await.unwrap();
        place.expire();
        assert!(matches!(
            place.claim(&place.request("b")).await,
            Err(ClaimError::Held { expires_in: None, .. })
        ));
        assert!(matches!(place.claim(&place.request("a")).await, Err(ClaimError::Finished { epoch: 1 })));
        let named = ClaimRequest { named: true, ..place.request("b") };
        assert_eq!(place.claim(&named).await.unwrap().epoch(), 2);
    }
}

#[tokio::test]
async fn the_same_pod_gets_its_claim_back_after_its_agent_restarted() {
    for place in Place::both() {
        let mut first = place.claim(&place.request("a")).await.unwrap();
        let mut again = place.claim(&place.request("a")).await.unwrap();
        assert_eq!(again.epoch(), first.epoch());
        // The agent that was replaced cannot go on with it.
        assert!(matches!(first.renew(soon()).await, Err(ClaimError::Fenced { .. })));
        again.renew(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_answer_is_no_lost_claim() {
    let mut in_store = Place::store();
    let faulty = in_store.world.break_store("put:claim=lost#1,put:claim=lost#3");
    in_store.claims = in_store.world.claims();
    let on_board = Place::board();
    on_board.board.as_ref().unwrap().lose_answers(&[1, 3]);
    for place in [&in_store, &on_board] {
        let mut held = place.claim(&place.request("a")).await.unwrap();
        held.renew(soon()).await.unwrap();
        held.finish(soon()).await.unwrap();
    }
    assert!(faulty.struck().iter().all(|(_, count)| *count == 1));
    assert_eq!(on_board.board.as_ref().unwrap().lost(), 2);
}

#[tokio::test]
async fn a_survey_shows_the_claims_of_either_place() {
    for place in Place::both() {
        place.world.commit(&place.world.manifest(vec![]), 1, "source").await.unwrap();
        place.claim(&place.request("a")).await.unwrap();
        let (store, workload) = (place.world.store.as_ref(), &place.world.workload);
        let found = crate::lineage::survey(store, &place.claims, workload, soon()).await.unwrap();
        assert_eq!(found[0].claim.as_ref().unwrap().claim.holder.pod_uid, "a");
    }
}

#[tokio::test]
async fn a_claim_made_in_the_store_counts_after_claims_have_moved_to_a_board() {
    let place = Place::board();
    let in_store = Place { claims: place.world.claims(), world: place.world, board: None };
    let mut first = in_store.claim(&in_store.request("a")).await.unwrap();
    let board = Arc::new(MemoryBoard::default());
    let claims = Claims::on(board.clone(), in_store.world.store.clone());
    let moved = Place { claims, world: in_store.world, board: None };
    assert!(matches!(
        moved.claim(&moved.request("b")).await,
        Err(ClaimError::Held { expires_in: Some(_), .. })
    ));
    first.finish(soon()).await.unwrap();
    assert!(matches!(moved.claim(&moved.request("b")).await, Err(ClaimError::Held { expires_in: None, .. })));
    let named = ClaimRequest { named: true, ..moved.request("b") };
    assert_eq!(moved.claim(&named).await.unwrap().epoch(), 2);
    let found =
        moved.claims.read(&moved.world.workload, &moved.world.lineage, soon()).await.unwrap().unwrap();
    assert_eq!((found.claim.holder.pod_uid.as_str(), found.claim.epoch), ("b", 2));
}

/// `rounds` races of eight for a new claim, then of eight for the expired one.
async fn races(place: Place, rounds: usize) {
    let place = Arc::new(place);
    let race = |round: usize, racers: Range<usize>| {
        let lineage = LineageId::new(&format!("race-{round}")).unwrap();
        let racers: Vec<_> = racers
            .map(|racer| {
                let place = Arc::clone(&place);
                let request = ClaimRequest { lineage: lineage.clone(), ..place.request(&racer.to_string()) };
                tokio::spawn(async move { place.claim(&request).await })
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
        assert_eq!(race(round, 0..8).await, [1], "round {round}: who creates");
        place.expire();
        assert_eq!(race(round, 8..16).await, [2], "round {round}: who takes over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn of_eight_that_claim_one_lineage_one_wins_in_each_of_200_rounds() {
    for place in Place::both() {
        races(place, 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[should_panic(expected = "who creates")]
async fn the_race_finds_a_store_that_ignores_conditions() {
    let mut place = Place::store();
    place.world.break_store("put=unconditional,get=slow:20ms");
    place.claims = place.world.claims();
    races(place, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_board_gives_a_store_that_ignores_conditions_one_winner() {
    let mut place = Place::board();
    place.world.break_store("put=unconditional,get=slow:20ms");
    races(place, 5).await;
}

#[tokio::test]
async fn a_claim_of_the_last_epoch_there_is_cannot_be_followed_and_says_why() {
    // Somebody who may write to the bucket: an epoch that cannot be raised would be held by two.
    let place = Place::store();
    let mut held = place.claim(&place.request("a")).await.unwrap();
    held.finish(soon()).await.unwrap();
    let path = place.world.objects("/claim").remove(0);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"epoch\":1", &format!("\"epoch\":{}", u64::MAX), 1)).unwrap();
    for pod in ["b", "c"] {
        let again = ClaimRequest { named: true, ..place.request(pod) };
        let error = place.claim(&again).await.unwrap_err();
        assert!(error.to_string().contains("epochs are used up"), "{error}");
    }
}
