//! Any bytes as a commit: refused, or the one that its key names, and written back as the same value.

#![no_main]

use std::sync::LazyLock;

use checkpoint::{generation, key::GenerationNumber};
use checkpoint_fuzz::{
    bench::{Bench, never},
    memory,
};
use libfuzzer_sys::fuzz_target;

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::default);

fuzz_target!(|bytes: &[u8]| {
    let number = GenerationNumber { epoch: 1, n: 1 };
    let key = BENCH.workload.generation(&BENCH.lineage, number);
    let read = |bytes: &[u8]| {
        BENCH.put(&key, bytes);
        let reading =
            generation::read(BENCH.store.as_ref(), &BENCH.workload, &BENCH.lineage, number, never());
        BENCH.run(reading)
    };
    let Ok(found) = memory::within(memory::of_document(bytes.len()), || read(bytes)) else { return };
    assert_eq!((found.number, &found.lineage), (number, &BENCH.lineage));
    let written = serde_json::to_vec(&found).expect("what was read can be written");
    assert_eq!(read(&written).expect("what was written can be read"), found);
});
