//! One node that is short of time.

use evacuation::budget;
use evacuation::moment::{Moment, Span};
use evacuation::pod::{EngineFacts, Owner, PodFacts, PodUid};
use evacuation::policy::Policy;
use fastrand::Rng;

/// When the notice comes.
pub const NOTICED: Moment = Moment::from_millis(1_000_000);

/// One pod with state.
#[derive(Clone, Debug)]
pub struct Drawn {
    pub facts: PodFacts,
    pub priority: i32,
    pub bytes: u64,
    /// Milliseconds that its flush takes.
    pub flush: u64,
}

/// One node. Times are milliseconds, rates bytes per second.
#[derive(Clone, Debug)]
pub struct Draw {
    pub pods: Vec<Drawn>,
    pub link: u64,
    /// From the notice to the deadline.
    pub window: u64,
}

impl Draw {
    pub fn new(seed: u64, most: usize) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let disk = 200_000_000u64 << rng.u32(0..5);
        let pods: Vec<Drawn> = (0..rng.usize(1..=most)).map(|index| pod(rng, index, disk)).collect();
        let total: u64 = pods.iter().map(|pod| pod.bytes).sum();
        let window = 115_000;
        // Between a third and six times of what it carries.
        let load = 2f64.powf(rng.f64() * 4.17 - 1.58);
        let link = (total as f64 / load * 1000.0 / window as f64) as u64;
        Self { pods, link: link.clamp(10_000_000, 10_000_000_000), window }
    }

    pub fn deadline(&self) -> Moment {
        NOTICED + Span::from_millis(self.window)
    }

    /// When the save of a pod must be over: the constraint for every way of saving, also for the optimum.
    pub fn cutoff(&self, pod: &Drawn) -> u64 {
        let policy = Policy::default();
        let held = pod.facts.can_be_held();
        budget::end(&policy, &pod.facts, NOTICED, self.deadline(), held).since(NOTICED).as_millis()
    }

    /// Milliseconds that a pod's state needs of the whole link.
    pub fn needs(&self, pod: &Drawn) -> u64 {
        u64::try_from(u128::from(pod.bytes) * 1000 / u128::from(self.link)).unwrap_or(u64::MAX)
    }
}

fn pod(rng: &mut Rng, index: usize, disk: u64) -> Drawn {
    let name = format!("pod-{index:02}");
    let priority = [0, 0, 10, 10, 100, 1_000][rng.usize(..6)];
    // Log-uniform from a KB to 80 GB.
    let bytes = (1_000.0 * 2f64.powf(rng.f64() * 26.25)) as u64;
    let engine =
        EngineFacts { holds: rng.bool(), flush_timeout: Span::from_secs(600), ..EngineFacts::default() };
    let facts = PodFacts {
        uid: PodUid(name.clone()),
        namespace: "ns".into(),
        name,
        priority,
        role: evacuation::pod::Role::Active,
        owner: if rng.u8(..5) == 0 { Owner::Named } else { Owner::Replicated },
        grace: Span::from_secs([0, 5, 30, 30, 120, 3_600][rng.usize(..6)]),
        terminating: None,
        running: true,
        engine: Some(engine),
        restore_decided: true,
        restarts: 0,
    };
    Drawn { facts, priority, bytes, flush: bytes / (disk / 1_000) }
}
