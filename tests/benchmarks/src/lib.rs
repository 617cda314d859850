//! What `tests/bench` measures with.
//!
//! ```text
//!   measure ─► client, s5cmd, rclone, …  ──TLS──►  sink          each in a process of its own, on this machine
//!               CPU, memory and time                what arrived is counted, and costs next to nothing
//!   floors                                          what this machine can do at best, in the same run
//! ```
//!
//! The programs are small and know nothing of each other; `store.py` and `slot.py` beside them decide what runs when,
//! and compare.

pub mod certificate;
pub mod cost;
pub mod sink;
pub mod wire;
