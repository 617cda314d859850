//! Any bytes as a claim: refused, or taken as it says, and never by two under one epoch.

#![no_main]

use std::{sync::LazyLock, time::Duration};

use checkpoint::claim::{ClaimRequest, Claims, Holder};
use checkpoint_fuzz::{
    bench::{Bench, never},
    memory,
};
use libfuzzer_sys::fuzz_target;

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::default);
static CLAIMS: LazyLock<Claims> = LazyLock::new(|| Claims::in_store(BENCH.store.clone()));

fuzz_target!(|bytes: &[u8]| {
    let key = BENCH.workload.claim(&BENCH.lineage);
    let read = |bytes: &[u8]| {
        BENCH.put(&key, bytes);
        let reading = CLAIMS.read(&BENCH.workload, &BENCH.lineage, never());
        BENCH.run(reading).map(|found| found.expect("it was put there"))
    };
    let Ok(found) = memory::within(memory::of_document(bytes.len()), || read(bytes)) else { return };
    assert_eq!(found.claim.lineage, BENCH.lineage);
    // S3 tells whole seconds: one more than the lease is allowed.
    let most = Duration::from_millis(found.claim.lease_ms).saturating_add(Duration::from_secs(1));
    assert!(found.expires_in.is_none_or(|left| !left.is_zero() && left <= most));
    assert!(!(found.expired() && found.expires_in.is_some()));
    let written = serde_json::to_vec(&found.claim).expect("what was read can be written");
    assert_eq!(read(&written).expect("what was written can be read").claim, found.claim);

    for named in [false, true] {
        read(&written).expect("as before");
        let holder = Holder { pod_uid: "another".into(), pod_name: "w-0".into(), node: "n".into() };
        let lineage = BENCH.lineage.clone();
        let request = ClaimRequest { lineage, holder, lease: Duration::from_secs(30), named };
        let taken = BENCH.run(CLAIMS.take(BENCH.store.as_ref(), &BENCH.workload, &request, never()));
        if let Ok(held) = taken {
            let own = found.claim.holder.pod_uid == "another";
            assert!(own || held.epoch() > found.claim.epoch, "two hold epoch {}", held.epoch());
        }
    }
});
