//! Any order of operations under faults, against a reference in memory.
//!
//! The reference knows of each generation which bytes it stands for, and who may claim and commit. What the disk holds it
//! asks the disk: an object is whole if it is what its name says. From both follows which generation a reader must get.

mod operations;
mod reference;

use std::{fs, path::Path, sync::Mutex};

use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};

pub use self::operations::Damage;
use self::{
    operations::operations,
    reference::{Tally, World},
};

/// Runs, each of up to so many operations.
const RUNS: u32 = 96;
const OPERATIONS: usize = 40;
/// Runs at the same time.
const AT_ONCE: u32 = 4;

#[test]
fn whatever_is_done_in_whatever_order_readers_get_what_the_reference_says() {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let runs = from_environment("PROPTEST_CASES").map_or(RUNS, |runs: u64| u32::try_from(runs).unwrap());
    let seed: u64 = from_environment("PROPTEST_RNG_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("PROPTEST_RNG_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let tally = Mutex::new(Tally::new());
    // They wait for the disk more than they compute.
    std::thread::scope(|scope| {
        for at in 0..AT_ONCE {
            let (runtime, tally) = (&runtime, &tally);
            scope.spawn(move || run(seed + u64::from(at), runs.div_ceil(AT_ONCE), runtime, tally));
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("{tally:?}");
    // What never happened was not tested.
    let absent: Vec<_> = reference::EVENTS.iter().filter(|event| !tally.contains_key(**event)).collect();
    assert!(runs < RUNS || absent.is_empty(), "in {runs} runs there was none of {absent:?}");
}

fn run(seed: u64, cases: u32, runtime: &tokio::runtime::Runtime, tally: &Mutex<Tally>) {
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&operations(OPERATIONS), |operations| {
        let seen = runtime.block_on(async {
            let mut world = World::new();
            for operation in &operations {
                world.perform(operation).await;
            }
            world.close().await
        });
        let mut tally = tally.lock().unwrap();
        for (event, count) in seen {
            *tally.entry(event).or_default() += count;
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("PROPTEST_RNG_SEED={seed}: {error}");
    }
}

impl Damage {
    /// Does it to the object at `path`; `other` is an object of the same kind that takes its place where one does.
    pub fn inflict(self, path: &Path, other: &Path) {
        let good = fs::read(path).unwrap();
        let bytes = match self {
            Self::Torn => good[..good.len() / 2].to_vec(),
            Self::Short => good[..good.len() - 1].to_vec(),
            Self::Empty => vec![],
            Self::Swapped | Self::Stale => fs::read(other).unwrap(),
            Self::Flipped => {
                let mut bytes = good.clone();
                bytes[good.len() / 2] ^= 1;
                bytes
            }
            Self::Missing => return fs::remove_file(path).unwrap(),
        };
        // In the way of a store: another file takes its place.
        let beside = path.with_extension("damaged");
        fs::write(&beside, bytes).unwrap();
        fs::rename(beside, path).unwrap();
    }
}
