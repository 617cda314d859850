//! One run before it begins: policy, cast, link, faults. Drawn from a seed, or written by hand.

use crate::dice::generator;
use crate::faults;
use crate::restores::Past;
use evacuation::moment::Span;
use evacuation::pod::{
    DaemonDrain, EngineFacts, EvictWhen, OnDelete, Owner, PodFacts, PodUid, RestoreMode, Role,
};
use evacuation::policy::{EvictOrder, Policy, RebalancePolicy, RespectPdb};
use fastrand::Rng;
use fault_plan::Fault;

/// One pod and what is behind it.
#[derive(Clone, Debug)]
pub struct Actor {
    pub facts: PodFacts,
    /// Bytes of state in its engine.
    pub state: u64,
    /// How long its engine goes on working on requests, from the start of the run.
    pub busy_for: u64,
    /// Bytes per millisecond that a flush writes.
    pub flush_rate: u64,
    /// How long its process takes to end after SIGTERM.
    pub sigterm: u64,
    /// The PodDisruptionBudget that it shares with others: an index into the scenario's.
    pub budget: Option<usize>,
    /// When it appears, after the start of the run; `None` if it is there.
    pub appears: Option<u64>,
    /// What the store holds for it.
    pub past: Past,
    /// Engines that took such a state did not use it.
    pub doubted: bool,
}

impl Actor {
    /// It may be evicted first and wait for its save inside its eviction.
    pub fn can_be_held(&self) -> bool {
        let engine = self.facts.engine.as_ref();
        engine.is_some_and(|engine| engine.holds && engine.evict != EvictWhen::Last)
    }
}

/// One run before it begins. Spans are milliseconds.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub policy: Policy,
    pub schedulable: bool,
    pub actors: Vec<Actor>,
    /// How many pods of each budget may be missing at once.
    pub budgets: Vec<u32>,
    /// Bytes per millisecond.
    pub link: u64,
    pub link_is_known: bool,
    /// When the notice appears, after the start of the run.
    pub notice_after: u64,
    /// Somebody asks before it for every state to be saved once.
    pub copies: bool,
    /// What it leaves.
    pub window: u64,
    pub faults: Vec<Fault>,
}

impl Scenario {
    /// Draws one. `most` bounds the number of pods.
    pub fn draw(seed: u64, most: usize) -> Self {
        let mut rng = generator(seed, "pods");
        let pods = match rng.u8(..100) {
            0..50 => rng.usize(0..=4),
            50..85 => rng.usize(4..=12),
            _ => rng.usize(12..=60),
        };
        Self::of(seed, pods.min(most))
    }

    /// Draws one with so many pods.
    pub fn of(seed: u64, pods: usize) -> Self {
        let mut rng = generator(seed, "scenario");
        let actors: Vec<_> = (0..pods).map(|index| actor(seed, index)).collect();
        let names: Vec<_> = actors.iter().map(|actor| actor.facts.uid.0.clone()).collect();
        Self {
            seed,
            policy: policy(seed),
            schedulable: rng.u8(..100) < 90,
            actors,
            budgets: (0..BUDGETS).map(|_| rng.u32(1..=4)).collect(),
            // Log-uniform from 10 MB/s to 10 GB/s.
            link: ((10_000 * rng.u64(100..=200) / 100) << rng.u8(0..10)).min(10_000_000),
            link_is_known: rng.u8(..100) < 80,
            copies: seed % 10 == 3,
            notice_after: if rng.u8(..5) == 0 { rng.u64(9_000..60_000) } else { rng.u64(500..9_000) },
            window: 120_000,
            faults: faults::draw(seed, &names),
        }
    }
}

/// Budgets of a run.
const BUDGETS: usize = 3;

/// A policy whose undo and restore times are short, so that a run stays short.
fn policy(seed: u64) -> Policy {
    let mut rng = generator(seed, "policy");
    Policy {
        eviction_slots: rng.usize(1..=8),
        flush_slots: rng.usize(1..=4),
        evict_order: if rng.u8(..4) == 0 { EvictOrder::LowestFirst } else { EvictOrder::HighestFirst },
        respect_pdb: if rng.u8(..4) == 0 { RespectPdb::Always } else { RespectPdb::UntilDeadline },
        rebalance: pick(
            &mut rng,
            &[
                RebalancePolicy::Off,
                RebalancePolicy::Precopy,
                RebalancePolicy::Precopy,
                RebalancePolicy::Precopy,
                RebalancePolicy::Drain,
            ],
        ),
        shed_below: pick(&mut rng, &[0, 0, 0, -100, 50]),
        undo_after: Span::from_millis(rng.u64(15_000..60_000)),
        restore_timeout: Span::from_millis(rng.u64(20_000..90_000)),
        find_timeout: Span::from_millis(rng.u64(3_000..30_000)),
        find_timeout_known_away: Span::from_millis(rng.u64(500..5_000)),
        find_patience: Span::from_millis(rng.u64(10_000..60_000)),
        restore_stall: Span::from_millis(rng.u64(4_000..20_000)),
        precopy_interval: Span::from_millis(rng.u64(4_000..20_000)),
        claim_renewal: Span::from_millis(rng.u64(2_000..10_000)),
        ..Policy::default()
    }
}

pub fn pick<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}

fn actor(seed: u64, index: usize) -> Actor {
    let name = format!("pod-{index:02}");
    let doubted = generator(seed, &format!("doubt/{name}")).u8(..10) == 0;
    let mut rng = generator(seed, &format!("cast/{name}"));
    let holds = rng.bool();
    let new = rng.u8(..100) < 25;
    let engine = (rng.u8(..100) < 65 || new).then(|| EngineFacts {
        holds,
        evict: pick(&mut rng, &[EvictWhen::Auto, EvictWhen::Auto, EvictWhen::First, EvictWhen::Last]),
        flush_timeout: Span::from_secs(pick(&mut rng, &[1, 5, 30, 30, 120])),
        interval: pick(&mut rng, &[None, None, None, Some(Span::from_secs(20))]),
        on_delete: pick(&mut rng, &[OnDelete::Save, OnDelete::Save, OnDelete::Release]),
        restore: pick(
            &mut rng,
            &[
                RestoreMode::Gate,
                RestoreMode::Gate,
                RestoreMode::Gate,
                RestoreMode::Background,
                RestoreMode::Off,
            ],
        ),
    });
    let owner = match rng.u8(..100) {
        0..55 => Owner::Replicated,
        55..72 => Owner::Named,
        72..76 => Owner::Static,
        76..79 => Owner::Finished,
        79..84 => Owner::Bare { may_go: rng.bool() },
        _ => Owner::Daemon {
            drain: pick(
                &mut rng,
                &[DaemonDrain::Stay, DaemonDrain::Early, DaemonDrain::Late, DaemonDrain::Late],
            ),
            tolerates_all: rng.u8(..3) == 0,
        },
    };
    let role = match rng.u8(..100) {
        0..70 => Role::Active,
        _ => pick(
            &mut rng,
            &[Role::Preview, Role::Canary, Role::Idle, Role::Shadow, Role::Batch, Role::Placeholder],
        ),
    };
    // Log-uniform from a kilobyte to 80 GB.
    let state = (rng.u64(1_000..2_000) << rng.u32(0..=26)).min(80_000_000_000);
    Actor {
        facts: PodFacts {
            uid: PodUid(name.clone()),
            namespace: "ns".into(),
            name,
            priority: pick(&mut rng, &[-1_000, -10, 0, 0, 0, 10, 10, 100, 1_000, 2_000_000_000]),
            role,
            owner,
            grace: Span::from_secs(pick(&mut rng, &[0, 1, 5, 30, 30, 30, 60, 600, 3600])),
            terminating: None,
            running: true,
            engine,
            restore_decided: !new,
            restarts: 0,
        },
        state: if new { 0 } else { state },
        busy_for: rng.u64(0..150_000) * rng.u64(0..2),
        // Log-uniform from 20 MB/s to 5 GB/s: a disk, or memory.
        flush_rate: (20_000 * rng.u64(100..=200) / 100) << rng.u8(0..8),
        budget: (rng.u8(..4) == 0).then(|| rng.usize(..BUDGETS)),
        sigterm: pick(&mut rng, &[50, 300, 2_000, 10_000, 40_000, 10_000_000]),
        appears: (new || rng.u8(..10) == 0).then(|| rng.u64(0..60_000)),
        past: Past::draw(&mut rng),
        doubted,
    }
}
