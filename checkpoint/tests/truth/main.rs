//! What the store promises, put to the test from outside: only the crate's public API, real processes, a real server.
//!
//! ```text
//!   model        any order of operations under faults, against a reference in memory
//!   kills        a process that is killed (SIGKILL) at each of its writes, and what a reader finds then
//!   damage       every object of a checkpoint, damaged in every way
//!   races        who may restore, ten thousand times; and a source that comes back from a partition
//!   wire         503, resets, stalls, lost answers, expiring keys and wrong clocks between client and server
//!
//!   replica      the one file that knows how save, commit, survey and restore are called
//!   actor        the process that is killed
//!   proxy        the wire that misbehaves
//!   witness      a store that remembers what was written, and whose clock can be moved
//! ```
//!
//! `tests/run s3` starts the server and sets `LIFEBOAT_S3_ENDPOINT`, `LIFEBOAT_S3_BUCKET` and the keys.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests from beginning to end")]
#![allow(missing_docs, reason = "a test target has no readers of its documentation but those of its source")]

mod actor;
mod damage;
mod kills;
mod model;
mod proxy;
mod races;
mod replica;
mod wire;
mod witness;
