//! The proof: whatever happens around a collector, to it, or beside it, what is kept verifies and what nobody names goes.

mod history;
mod memory;

use std::time::Duration;

use proptest::prelude::*;

use self::{
    history::{History, MINUTE, policy},
    memory::{Crash, User},
};
use super::Policy;
use crate::store::Remover;

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Save {
        of: u8,
        parent: Option<u8>,
        blocks: Vec<u8>,
        pauses: [u16; 2],
    },
    HandOver(u8),
    Wait(u16),
    Pass,
    /// A pass that dies at its n-th operation.
    Dies(Crash),
    /// Two collectors at once, and a save that runs beside them.
    Together {
        of: u8,
        parent: Option<u8>,
        blocks: Vec<u8>,
        pauses: [u16; 2],
    },
}

fn event() -> impl Strategy<Value = Event> {
    let save =
        (0..4_u8, proptest::option::of(0..4_u8), proptest::collection::vec(0..12_u8, 1..8), any::<[u8; 2]>());
    // Pauses in seconds: up to seven minutes each, so that lists grow stale and saves outlast a grace.
    let pauses = |[a, b]: [u8; 2]| [u16::from(a) * 5 / 3, u16::from(b) * 5 / 3];
    let crash = (1..60_usize, any::<bool>());
    prop_oneof![
        4 => save.clone().prop_map(move |(of, parent, blocks, p)| Event::Save { of, parent, blocks, pauses: pauses(p) }),
        1 => (0..4_u8).prop_map(Event::HandOver),
        3 => (0..3_600_u16).prop_map(Event::Wait),
        1 => Just(Event::Wait(50_000)),
        3 => Just(Event::Pass),
        3 => crash.prop_map(|(n, after)| Event::Dies(if after { Crash::After(n) } else { Crash::Before(n) })),
        3 => save.prop_map(move |(of, parent, blocks, p)| Event::Together { of, parent, blocks, pauses: pauses(p) }),
    ]
}

fn seconds(pauses: [u16; 2]) -> [Duration; 2] {
    pauses.map(|pause| Duration::from_secs(pause.into()))
}

async fn happen(history: &History, event: Event) {
    match event {
        Event::Save { of, parent, blocks, pauses } => {
            history.save(of, parent, &blocks, seconds(pauses)).await
        }
        Event::HandOver(of) => history.hand_over(of).await,
        Event::Wait(time) => history.memory.advance(Duration::from_secs(time.into())),
        Event::Pass => drop(history.pass().await),
        Event::Dies(crash) => {
            let store: Remover = User::new(&history.memory, crash);
            history.collect(&store).await;
        }
        Event::Together { of, parent, blocks, pauses } => {
            let stores: [Remover; 2] = [0, 1].map(|_| User::new(&history.memory, Crash::Never) as Remover);
            let save = history.save(of, parent, &blocks, seconds(pauses));
            let one = async {
                history.collect(&stores[0]).await;
                history.collect(&stores[0]).await;
            };
            tokio::join!(one, save, history.collect(&stores[1]));
        }
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_what_is_kept_verifies_and_what_nobody_names_goes(
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 1..40),
    ) {
        run(async {
            let history = History::new(seed);
            for (place, event) in events.into_iter().enumerate() {
                let when = format!("after event {place}, {event:?}");
                happen(&history, event).await;
                history.check(&when);
            }
            history.settle("at the end").await;
        });
    }
}

/// Three lineages that share packs, generations beyond what is kept, and remains of a save that never committed.
async fn prepared(passes: usize) -> History {
    let history = History::new(7);
    let none = [Duration::ZERO; 2];
    for round in 0..4_u8 {
        history.save(0, Some(0), &[0, 1, 2, round + 3], none).await;
        history.save(1, Some(0), &[0, 1, 2, 9, round + 3], none).await;
    }
    history.save(2, None, &[0, 5, 6, 7], none).await;
    history.hand_over(2).await;
    history.memory.advance(policy().restored + MINUTE);
    history.save(0, Some(0), &[10, 11], none).await;
    history.save(1, Some(1), &[0, 9, 11], none).await;
    history.memory.advance(policy().grace + MINUTE);
    for _ in 0..passes {
        history.pass().await;
        history.memory.advance(policy().grace + MINUTE);
    }
    history
}

/// How many operations a pass needs that comes after `passes` others.
async fn operations(passes: usize) -> usize {
    let history = prepared(passes).await;
    let user = User::new(&history.memory, Crash::Never);
    let store: Remover = user.clone();
    history.collect(&store).await;
    user.operations()
}

#[test]
fn a_collector_may_die_at_any_operation_and_the_next_pass_goes_on() {
    run(async {
        let mut deaths = 0;
        // The passes that mark, remove, and bury.
        for passes in [0, 1, 2, 7] {
            for n in 1..=operations(passes).await {
                for crash in [Crash::Before(n), Crash::After(n)] {
                    let when = format!("pass {passes} {crash:?}");
                    let history = prepared(passes).await;
                    let store: Remover = User::new(&history.memory, crash);
                    history.collect(&store).await;
                    history.check(&when);
                    history.save(1, Some(1), &[0, 1, 2, 3, 9], [Duration::ZERO; 2]).await;
                    history.settle(&when).await;
                    deaths += 1;
                }
            }
        }
        assert!(deaths > 200, "only {deaths} deaths: the history has no garbage");
    });
}

/// A collector stands still at each of its operations in turn, while others finish its work and replicas save what it is
/// about to remove; then it goes on.
#[test]
fn a_collector_that_stood_still_for_hours_removes_nothing_that_came_back() {
    run(async {
        for passes in [0, 1, 2] {
            for n in 1..=operations(passes).await {
                let history = prepared(passes).await;
                let (user, stall) = User::stalled(&history.memory, n);
                let store: Remover = user;
                let others = async {
                    stall.reached.acquire().await.unwrap().forget();
                    let what = stall.what.lock().unwrap().clone();
                    // A removal is on its way no longer than S3 accepts it: less than the burial.
                    let sent = what.starts_with("DELETE")
                        && (what.contains("/pack/") || what.contains("/manifest/"));
                    for _ in 0..if sent { 3 } else { 12 } {
                        history.memory.advance(policy().grace + MINUTE);
                        history.pass().await;
                        history.save(3, None, &[0, 1, 2, 3], [Duration::ZERO; 2]).await;
                        history.save(2, Some(2), &[0, 5, 6, 7], [Duration::ZERO; 2]).await;
                        history.check(&what);
                    }
                    stall.go.add_permits(1);
                    what
                };
                let (_, what) = tokio::join!(history.collect(&store), others);
                let when = format!("pass {passes} stood still at {what}");
                history.check(&when);
                history.settle(&when).await;
            }
        }
    });
}

#[test]
fn a_commit_during_the_grace_withdraws_the_tombstone() {
    run(async {
        let history = History::new(1);
        let none = [Duration::ZERO; 2];
        history.save(0, None, &[1, 2, 3], none).await;
        let first = history.memory.keys("/pack/");
        history.save(0, None, &[4, 5, 6], none).await;
        history.save(0, None, &[7, 8, 9], none).await;
        history.memory.advance(policy().grace + MINUTE);
        // This save lists while the pack is there, and commits when it bears a tombstone.
        let save = async {
            tokio::task::yield_now().await;
            history.save(1, None, &[1, 2, 3], [Duration::ZERO, 2 * MINUTE]).await;
        };
        let store: Remover = User::new(&history.memory, Crash::Never);
        // The second pass would remove what the first has marked, if it did not wait.
        tokio::join!(save, async {
            history.collect(&store).await;
            history.collect(&store).await;
        });
        history.check("after the commit");
        assert!(!history.memory.keys("/tombstone/").is_empty());
        history.memory.advance(policy().grace + MINUTE);
        history.pass().await;
        history.check("after the grace");
        assert!(
            history.memory.keys("/pack/").contains(&first[0]) || history.memory.keys("/pack/").len() == 3
        );
        history.settle("at the end").await;
    });
}

#[test]
fn a_policy_under_which_something_could_be_lost_is_refused() {
    Policy::default().check().unwrap();
    let wrong = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.check().unwrap_err().to_string()
    };
    assert!(wrong(|policy| policy.keep = 0).contains("keep"));
    assert!(wrong(|policy| policy.grace = Duration::from_secs(59)).contains("grace"));
    assert!(wrong(|policy| policy.retention = Duration::ZERO).contains("retention"));
    assert!(wrong(|policy| policy.restored = Duration::ZERO).contains("retention"));
}

#[test]
fn what_cannot_be_read_keeps_every_pack_of_its_workload() {
    run(async {
        let history = prepared(0).await;
        let head = history.memory.keys("llama-0/gen/").pop().unwrap();
        let before = history.memory.bytes(&head).unwrap();
        for (damaged, why) in [(&b"{"[..], "malformed"), (br#"{"format":99}"#, "newer lifeboat")] {
            history.memory.damage(&head, damaged);
            let collected = history.pass().await;
            assert!(
                collected.plan.blocked.iter().any(|said| said.contains(why)),
                "{:?}",
                collected.plan.blocked
            );
            assert!(history.memory.keys("/tombstone/").is_empty());
        }
        history.memory.damage(&head, before.to_vec().leak());
        history.settle("once it can be read").await;
    });
}
