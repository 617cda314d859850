//! Chance, with a generator of its own for each thing it decides about: what happens to one pod
//! does not reshuffle what happens to another.

use fastrand::Rng;
use std::collections::BTreeMap;

/// A generator for one target of one run.
pub fn generator(seed: u64, target: &str) -> Rng {
    // FNV-1a: the same on every machine and in every version.
    let hash = target.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Rng::with_seed(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The generators of one run.
pub struct Dice {
    seed: u64,
    targets: BTreeMap<String, Rng>,
}

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self { seed, targets: BTreeMap::new() }
    }

    pub fn of(&mut self, target: &str) -> &mut Rng {
        if !self.targets.contains_key(target) {
            self.targets.insert(target.to_owned(), generator(self.seed, target));
        }
        self.targets.entry(target.to_owned()).or_default()
    }

    /// Milliseconds: mostly few, sometimes many.
    pub fn latency(&mut self, target: &str) -> u64 {
        let rng = self.of(target);
        match rng.u8(..100) {
            0..80 => rng.u64(1..60),
            80..97 => rng.u64(60..400),
            _ => rng.u64(400..2_500),
        }
    }

    pub fn percent(&mut self, target: &str, chance: u8) -> bool {
        self.of(target).u8(..100) < chance
    }
}
