//! The store and the uplink to it: slow, full of errors, gone, or other than what was measured.

use super::{PLAIN, not_drilled, not_simulated};
use crate::entry::{Argument, Entry, When};

/// A fault of the store: its time and count go to the agents' stores.
const STORE: Entry = Entry { target: "store", counted: true, when: When::Time, lasting: true, ..PLAIN };

/// A fault of the uplink.
const LINK: Entry =
    Entry { target: "link", unknown_to: not_drilled("loopback has no rate to change: store=slow"), ..PLAIN };

/// The table.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "store-slow",
        outcome: "slow",
        example: "store=slow:2MiB/s",
        what: "the store carries no more than this",
        tries: "10 and 4: the most important state goes first, and the deadline holds",
        argument: Argument::Rate,
        ..STORE
    },
    Entry {
        name: "store-503",
        outcome: "503",
        example: "store=503*5",
        what: "the store answers 503 to writes (S3's SlowDown)",
        tries: "4: writes are tried again",
        ..STORE
    },
    Entry {
        name: "store-torn",
        outcome: "torn",
        example: "store=torn#1",
        what: "a pack is written only in part, and the store reports success",
        tries: "5 and 6: what does not verify is not restored",
        ..STORE
    },
    Entry {
        name: "store-endangered",
        outcome: "endangered",
        example: "store=endangered#1",
        what: "a commit finds that packs it would name are being removed as garbage",
        tries: "5: they are sent again, or what lies on them is left out of what is committed",
        unknown_to: not_drilled("no garbage is collected while a drill runs"),
        ..STORE
    },
    Entry {
        name: "store-lost",
        outcome: "lost",
        example: "store=lost#2",
        what: "a write is done and its answer is lost",
        tries: "5: a repeated write is no second version",
        ..STORE
    },
    Entry {
        name: "store-gone",
        outcome: "gone",
        example: "store=gone@1s+6s",
        what: "the store cannot be reached (for +duration, or for ever)",
        tries: "11 and 4: gates open half a minute later, pods still leave in time, and the report is in the journal",
        ..STORE
    },
    Entry {
        name: "store-refuses",
        outcome: "refuses",
        example: "store=refuses@1s+6s",
        what: "the store refuses every connection (for +duration, or for ever)",
        tries: "11: a gate opens half a minute later, and says why",
        unknown_to: not_drilled("store=gone refuses there"),
        ..STORE
    },
    Entry {
        name: "store-unconditional",
        outcome: "unconditional",
        example: "store=unconditional",
        what: "the store accepts conditional writes and ignores the conditions, as several S3-compatible stores do",
        tries: "6: claims are Kubernetes Leases then, and each state is restored once",
        counted: false,
        when: When::Never,
        lasting: false,
        unknown_to: not_simulated("the shell holds the claim elsewhere then; the core asks for the same"),
        ..STORE
    },
    Entry {
        name: "link-changes",
        outcome: "changes",
        example: "link=changes:20MB/s@10s",
        what: "the uplink carries so much from now on",
        tries: "10 and 4: cut-offs follow what is measured, and the deadline holds",
        argument: Argument::Rate,
        when: When::NeedsTime,
        ..LINK
    },
    Entry {
        name: "link-unmeasured",
        outcome: "unmeasured",
        example: "link=unmeasured",
        what: "nobody tells what the uplink carries",
        tries: "4: there is a plan without a figure",
        when: When::Time,
        lasting: true,
        ..LINK
    },
    Entry {
        name: "link-stale",
        outcome: "stale",
        example: "link=stale:10s",
        what: "what was measured is so old when it is told",
        tries: "4: a figure of yesterday is no reason to be late",
        argument: Argument::Span,
        when: When::Time,
        lasting: true,
        ..LINK
    },
    Entry {
        name: "link-misread",
        outcome: "misread",
        example: "link=misread:10GB/s",
        what: "whatever the uplink carries, this is what was measured",
        tries: "4: a wrong figure costs bytes, never the deadline",
        argument: Argument::Rate,
        when: When::Time,
        lasting: true,
        ..LINK
    },
];
