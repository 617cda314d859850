//! What can be done, and with which faults.

use checkpoint::chunk::Chunking;
use proptest::{collection::vec, prelude::*, sample::select};

/// What can happen to an object at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Half of it is there.
    Torn,
    /// Its last byte is missing.
    Short,
    Empty,
    /// Another object of the same kind is in its place.
    Swapped,
    /// An older one is.
    Stale,
    /// One bit in its middle is another.
    Flipped,
    Missing,
}

/// How the state of the source changes.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Replace(usize),
    Flip(usize),
    Append(usize),
    Remove,
}

#[derive(Debug, Clone)]
pub enum Operation {
    Change {
        file: usize,
        change: Change,
        seed: u64,
    },
    Save {
        chunking: Chunking,
        on_parent: bool,
        listed: bool,
        by: usize,
        faults: &'static str,
    },
    /// The store refuses packs from the n-th on: what is whole is committed as partial.
    SavePart {
        from: u64,
    },
    /// The answer to the commit never comes.
    CommitUnanswered,
    Intent {
        abandoned: bool,
        faults: &'static str,
    },
    Claim {
        pod: usize,
        named: bool,
        faults: &'static str,
    },
    Renew {
        pod: usize,
        faults: &'static str,
    },
    Finish {
        pod: usize,
        faults: &'static str,
    },
    Wait,
    Restore {
        faults: &'static str,
    },
    Damage {
        object: usize,
        way: Damage,
    },
}

/// Trouble that passes: nobody may notice. Each strikes at most a few times.
const WRITING: [&str; 8] = [
    "",
    "",
    "put:pack=lost#1,put:pack=gone#2",
    "put:manifest=lost#1,put:gen=lost#1",
    "put:gen=gone#1,get:gen=lost#1,list=lost#1",
    "put:pack=503#1,put:gen=lost*2",
    "put:manifest=503#1,list=gone*2,get=gone#1",
    "put=slow:1ms,put:gen=lost#1,put:gen=gone#2",
];
/// Damage that is stored, and reported as success.
const POISON: [&str; 2] = ["put:pack=torn#1", "put:pack=flip#1"];
const READING: [&str; 6] = [
    "",
    "",
    "range=lost#1,get:manifest=lost#1",
    "range=flip#1,list=gone#1",
    "range=torn#1,get:gen=gone#1",
    "range=503#1,get:gen=lost*2",
];
const CLAIMING: [&str; 5] =
    ["", "", "put:claim=lost#1", "put:claim=gone#1,get:claim=lost#1", "put:claim=lost*2,list=gone#1"];
const SIZES: [usize; 6] = [0, 1, 70_000, 1 << 20, (1 << 20) + 1, 3 << 20];

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => select(&SIZES[..]).prop_map(Change::Replace),
        4 => any::<usize>().prop_map(Change::Flip),
        2 => (1..200_000_usize).prop_map(Change::Append),
        1 => Just(Change::Remove),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let chunking = select(&[Chunking::Fixed, Chunking::ContentDefined][..]);
    let damage = select(
        &[
            Damage::Torn,
            Damage::Short,
            Damage::Empty,
            Damage::Swapped,
            Damage::Stale,
            Damage::Flipped,
            Damage::Missing,
        ][..],
    );
    let save_faults = prop_oneof![12 => select(&WRITING[..]), 1 => select(&POISON[..])];
    let (pod, claiming) = (|| 0..2_usize, || select(&CLAIMING[..]));
    prop_oneof![
        6 => (0..4_usize, change(), any::<u64>())
            .prop_map(|(file, change, seed)| Operation::Change { file, change, seed }),
        6 => (chunking, any::<bool>(), any::<bool>(), 0..3_usize, save_faults).prop_map(
            |(chunking, on_parent, listed, by, faults)| Operation::Save { chunking, on_parent, listed, by, faults }
        ),
        1 => (1..3_u64).prop_map(|from| Operation::SavePart { from }),
        1 => Just(Operation::CommitUnanswered),
        1 => (any::<bool>(), select(&WRITING[..]))
            .prop_map(|(abandoned, faults)| Operation::Intent { abandoned, faults }),
        4 => (pod(), any::<bool>(), claiming())
            .prop_map(|(pod, named, faults)| Operation::Claim { pod, named, faults }),
        2 => (pod(), claiming()).prop_map(|(pod, faults)| Operation::Renew { pod, faults }),
        2 => (pod(), claiming()).prop_map(|(pod, faults)| Operation::Finish { pod, faults }),
        2 => Just(Operation::Wait),
        3 => select(&READING[..]).prop_map(|faults| Operation::Restore { faults }),
        2 => (any::<usize>(), damage).prop_map(|(object, way)| Operation::Damage { object, way }),
    ]
}

pub fn operations(at_most: usize) -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), at_most / 4..=at_most)
}
