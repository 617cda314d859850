//! Any bytes as an intent: refused, or bounded, and written back as the same value.

#![no_main]

use std::{sync::LazyLock, time::Duration};

use checkpoint::intent::{Intent, PACKS_MAX};
use checkpoint_fuzz::{
    bench::{Bench, never},
    memory,
};
use libfuzzer_sys::fuzz_target;

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::default);

fuzz_target!(|bytes: &[u8]| {
    let read = || {
        let reading = Intent::read(BENCH.store.as_ref(), &BENCH.workload, &BENCH.lineage, never());
        BENCH.run(reading).map(|found| found.expect("it was put there"))
    };
    BENCH.put(&BENCH.workload.intent(&BENCH.lineage), bytes);
    let Ok(found) = memory::within(memory::of_document(bytes.len()), read) else { return };
    assert_eq!(found.intent.lineage, BENCH.lineage);
    assert!(found.intent.packs.len() <= PACKS_MAX);
    let most = Duration::from_millis(found.intent.time_left_ms);
    assert!(found.time_left().is_none_or(|left| !left.is_zero() && left <= most));

    let mut intent = found.intent;
    BENCH
        .run(intent.put(BENCH.store.as_ref(), &BENCH.workload, never()))
        .expect("what was read can be written");
    assert_eq!(read().expect("what was written can be read").intent, intent);
});
