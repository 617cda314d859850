//! Any order of operations under faults, against a reference in memory.
//!
//! The reference knows of each generation which bytes it stands for, and who may claim and commit. What the disk holds it
//! asks the disk: an object is whole if it is what its name says. From both follows which generation a reader must get.

mod operations;
mod reference;

use std::{fs, path::Path};

use proptest::{prelude::*, test_runner::TestRunner};

pub use self::operations::Damage;
use self::{operations::operations, reference::World};

/// Runs, each of up to so many operations.
const RUNS: u32 = 48;
const OPERATIONS: usize = 24;

#[test]
fn whatever_is_done_in_whatever_order_readers_get_what_the_reference_says() {
    let runs = std::env::var("PROPTEST_CASES").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    // `PROPTEST_RNG_SEED` repeats a run.
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("PROPTEST_RNG_SEED={seed}");
    let config = ProptestConfig {
        cases: runs,
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed),
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = TestRunner::new(config).run(&operations(OPERATIONS), |operations| {
        runtime.block_on(async {
            let mut world = World::new();
            for operation in &operations {
                world.perform(operation).await;
            }
            world.close().await;
        });
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
