//! What is played in each golden timeline.

use super::actor::{Actor, Budget, GIB, MIB};
use super::world::{Act, World};
use crate::stage::{TERMINATE, holding, pod, stateful};
use evacuation::moment::Span;
use evacuation::notice::{InstanceAction, NoticeKind};
use evacuation::pod::{DaemonDrain, Owner, PodFacts, Role};
use evacuation::policy::Policy;

/// One golden timeline.
pub struct Golden {
    /// Its file, without `.snap`.
    pub name: &'static str,
    /// What it is and what to look for.
    pub head: &'static str,
    pub world: World,
}

/// The notice of two minutes that most begin with, five seconds after the agent.
const NOTICE: Act = Act::Notice(TERMINATE, "n", 120);
const AT: u64 = 5_000;

/// Long enough for every deadline of two minutes.
const LONG: u64 = 140_000;

fn world(bytes_per_second: u64, actors: Vec<Actor>) -> World {
    World::new(Policy::default(), bytes_per_second, actors)
}

fn of(facts: PodFacts, priority: i32) -> Actor {
    Actor::new(PodFacts { priority, ..facts })
}

/// Every one of them.
pub fn all() -> Vec<Golden> {
    let golden = |name, head, world| Golden { name, head, world };
    let mut all = vec![
        golden(
            "one-stateful-pod",
            "One pod with 1 GiB of state and no hold: flush, save, commit, and only then the eviction, with the
             pod's own grace. The report is written as soon as the pod is gone, long before the deadline.",
            world(100 * MIB, vec![of(stateful("gold"), 1000)]).then(AT, NOTICE).run(LONG),
        ),
        golden(
            "three-tiers-on-a-short-link",
            "6 GiB in three tiers, 50 MiB/s: no more than 4.7 GiB fit before the cut-offs. Gold goes first and whole, silver
             next; what of bronze reaches the store before its cut-off is committed as partial.",
            world(
                50 * MIB,
                vec![
                    of(stateful("bronze"), 10).state(3 * GIB),
                    of(stateful("silver"), 100).state(2 * GIB),
                    of(stateful("gold"), 1000).state(GIB),
                    of(pod("web"), 500),
                ],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "evict-first-beside-flush-first",
            "The same engine twice. `first` can be held: it is evicted at once, so that its replacement starts now, and
             generates until the last moment that fits. `last` cannot: it is evicted when it is safe.",
            world(
                100 * MIB,
                vec![
                    of(holding("first"), 100).state(2 * GIB).busy_until(200_000),
                    of(stateful("last"), 100).state(2 * GIB).busy_until(200_000),
                ],
            )
            .then(1_000, Act::Measure)
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "stateful-set",
            "A StatefulSet's pod, with a hold and a slow link: it is never evicted first, since no replacement is made
             before the old name is gone; its cut-off is 15 s earlier than another's, at T+83.",
            world(
                30 * MIB,
                vec![
                    Actor::new(PodFacts { owner: Owner::Named, ..holding("db-0") })
                        .state(3 * GIB)
                        .ends_after(4_000),
                ],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "pdb-stuck",
            "A PodDisruptionBudget that never allows the eviction: asked again at most a second apart, and the pod is
             deleted at its cut-off, with the condition that keeps a Job from counting it. `free` does not wait for it.",
            world(
                100 * MIB,
                vec![of(pod("web"), 0).budget(Budget::RefusesUntil(u64::MAX)), of(pod("free"), 0)],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "two-pdbs",
            "Two budgets select one pod: the API server answers 500 for ever, which is a refusal like 429. `soon` is
             allowed after eight seconds.",
            world(
                100 * MIB,
                vec![
                    of(pod("both"), 0).budget(Budget::Two),
                    of(pod("soon"), 0).budget(Budget::RefusesUntil(13_000)),
                ],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "late-log-shipper",
            "The log shipper's DaemonSet leaves in the last ten seconds, after those whose logs it ships. The CNI's
             stays.",
            world(
                100 * MIB,
                vec![of(stateful("gold"), 1000), daemon("logs", DaemonDrain::Late), daemon("cni", DaemonDrain::Stay)],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "shadow-and-batch-shed",
            "What is shed goes at once and nothing of it is saved: a shadow, a batch pod, a negative priority. The slots
             and the link belong to gold.",
            world(
                100 * MIB,
                vec![
                    Actor::new(PodFacts { role: Role::Shadow, ..holding("shadow") }),
                    Actor::new(PodFacts { role: Role::Batch, priority: 50, ..pod("batch") }),
                    of(stateful("spare"), -1),
                    of(stateful("gold"), 1000),
                ],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
    ];
    all.extend(notices());
    all.extend(others());
    all
}

fn daemon(name: &str, drain: DaemonDrain) -> Actor {
    Actor::new(PodFacts { owner: Owner::Daemon { drain, tolerates_all: false }, ..pod(name) })
}

/// Those that are about the notice.
fn notices() -> Vec<Golden> {
    let golden = |name, head, world| Golden { name, head, world };
    let rebalance = Act::Notice(NoticeKind::Rebalance, "r", 0);
    vec![
        golden(
            "rebalance-then-notice",
            "A rebalance recommendation, and the interruption 75 s later. Pre-copies while gold serves, so that the last
             save sends only what changed since: 10 MiB a second.",
            world(100 * MIB, vec![of(stateful("gold"), 1000).state(4 * GIB).changes(10 * MIB)])
                .then(AT, rebalance.clone())
                .then(AT + 75_000, NOTICE)
                .run(AT + 75_000 + LONG),
        ),
        golden(
            "rebalance-undone",
            "A rebalance recommendation that comes to nothing: after half an hour the soft taint is taken back, no pod was
             evicted, and no pre-copy begins any more.",
            world(100 * MIB, vec![of(stateful("gold"), 1000).changes(10 * MIB), of(pod("web"), 0)])
                .then(AT, rebalance)
                .run(AT + 35 * 60_000),
        ),
        golden(
            "hibernate",
            "The instance freezes with its memory, at once: no two minutes. Cordoned and reported; nothing is evicted,
             nothing new is flushed.",
            world(100 * MIB, vec![of(stateful("gold"), 1000), of(pod("web"), 0)])
                .then(AT, Act::Notice(NoticeKind::Interruption(InstanceAction::Hibernate), "h", 0))
                .run(AT + 60_000),
        ),
        golden(
            "stop-and-come-back",
            "The instance stops and comes back under another boot id, on another clock: taint, annotation and cordon are
             taken back by the new life of the agent.",
            world(
                100 * MIB,
                vec![of(stateful("gold"), 1000), of(pod("web"), 0), daemon("cni", DaemonDrain::Stay)],
            )
            .then(AT, Act::Notice(NoticeKind::Interruption(InstanceAction::Stop), "s", 120))
            .then(300_000, Act::Boot)
            .run(330_000),
        ),
        golden(
            "withdrawn-notice",
            "The notice is withdrawn after ten seconds: the save and the eviction that began go on; `late`, which had
             not begun, stays; the node is schedulable again after half an hour.",
            world(
                100 * MIB,
                vec![
                    of(stateful("gold"), 1000).state(2 * GIB),
                    of(pod("web"), 0),
                    daemon("late", DaemonDrain::Late),
                ],
            )
            .then(AT, NOTICE)
            .then(AT + 10_000, Act::Withdraw("n"))
            .run(AT + 31 * 60_000),
        ),
        golden(
            "past-notice",
            "The time in the notice passed a minute ago and the instance is still there: the minimum window, and the
             report says so.",
            world(100 * MIB, vec![of(stateful("gold"), 1000), of(pod("web"), 0)])
                .then(AT, Act::Notice(TERMINATE, "n", -60))
                .run(AT + 60_000),
        ),
    ]
}

/// Those that are about the agent and other drainers.
fn others() -> Vec<Golden> {
    let golden = |name, head, world| Golden { name, head, world };
    vec![
        golden(
            "restart-in-the-middle",
            "The agent is killed 20 s after the notice, in the middle of silver's upload. Its second life finds the
             deadline on the node and keeps it; gold, which was committed, is not flushed again; silver sends the rest.",
            world(
                50 * MIB,
                vec![
                    of(holding("gold"), 1000).state(512 * MIB),
                    of(stateful("silver"), 100).state(2 * GIB),
                    of(pod("web"), 0).budget(Budget::RefusesUntil(60_000)),
                ],
            )
            .then(AT, NOTICE)
            .then(AT + 20_000, Act::Kill)
            .run(LONG),
        ),
        golden(
            "anothers-drain",
            "No notice: somebody deletes gold. Its own grace is its deadline; nothing else on the node is touched, and
             the node is not cordoned.",
            world(
                100 * MIB,
                vec![of(holding("gold"), 1000).state(GIB), of(stateful("silver"), 100), of(pod("web"), 0)],
            )
            .then(AT, Act::Delete("gold"))
            .run(60_000),
        ),
        golden(
            "grace-of-an-hour",
            "Three pods with 3,600 s of grace that take their time to end. The grace is chosen once, at the eviction, and
             is what is left until the deadline.",
            world(
                100 * MIB,
                vec![
                    slow(pod("web")).ends_after(40_000),
                    slow(stateful("gold")).ends_after(10_000),
                    slow(holding("held")).ends_after(500),
                    slow(pod("stuck")).ends_after(4_000_000),
                ],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "nothing-to-save",
            "No pod has state: all are evicted at once, highest first, and the report is complete when they are gone.",
            world(
                100 * MIB,
                vec![of(pod("low"), 0), of(pod("high"), 1000), of(stateful("empty"), 10).state(0)],
            )
            .then(AT, NOTICE)
            .run(LONG),
        ),
        golden(
            "nobody-there",
            "A node without pods: cordon, and a complete report at once.",
            world(100 * MIB, Vec::new()).then(AT, NOTICE).run(LONG),
        ),
    ]
}

fn slow(facts: PodFacts) -> Actor {
    Actor::new(PodFacts { grace: Span::from_secs(3600), ..facts })
}
