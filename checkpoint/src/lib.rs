//! Engine state to an object store and back, under a deadline.
//!
//! A node that is about to be taken away saves the files in which an LLM engine keeps its state;
//! another node finds them, claims them, and puts them back. This crate is the part in the middle and
//! knows nothing of Kubernetes: names come in as strings, files as open descriptors, time as one
//! absolute deadline on the monotonic clock.
//!
//! ```text
//!      dying node                              the store                             replacement node
//!
//!  Folder ── files, opened beneath     v1/<cluster>/<shard>/<ns>/<workload>/      lineage::survey ─ what is there?
//!    │                                   │                                            │
//!    ▼                                   ├─ lineage/<id>/intent  ◄── "it is coming"   ▼
//!  save ─ pread, cut, hash               │                                          Claims::take ─ one winner,
//!    │    (only blocks the parent        ├─ pack/<blake3>        ◄── bytes            │          epoch + 1
//!    │     does not have)                ├─ manifest/<blake3>    ◄── what they mean   ▼
//!    ▼                                   │                                          restore::fetch ─ ranged GETs,
//!  Dispatcher ─ slots by rank            ├─ lineage/<id>/gen/<epoch>-<n>              │     every extent verified,
//!    │                                   │      ▲                                     │     into .lifeboat/restore
//!    ▼                                   │      └── the commit: one small PUT,        ▼
//!  generation::commit ───────────────────┘          only if absent                  restore::install ─ renames
//! ```
//!
//! What holds, whatever the store, the network or the other side does:
//!
//! * **Old or new, never a mix.** A generation is one small object that is created only if it is absent,
//!   after every pack and the manifest it names were acknowledged. Readers trust nothing that no
//!   generation names.
//! * **One winner.** A [`claim`] is created only if absent and changed only by comparing its version, in the store or,
//!   where it ignores conditions, on a [`claim::ClaimBoard`] that decides them. Each
//!   take-over raises the epoch, and readers take the highest epoch, so a source that was cut off cannot
//!   overwrite its successor.
//! * **Every byte verifies.** Each extent carries a CRC64, and a BLAKE3 name that counts too where a MAC vouches for the
//!   manifest ([`restore::Verify`]); what does not match is refused with its name.
//! * **Time is bounded.** Every operation takes a deadline, and [`retry`] is the only place that tries again.
//! * **Hostile input is bounded.** What comes from the store or from a pod's volume can neither lead outside
//!   ([`folder`]) nor grow memory without limit ([`manifest`]).
//! * **The store's clock judges.** Leases and ages come from the time stamps of the place that keeps them.
//! * **Nothing that is named goes.** Only [`garbage`] and [`erase`] remove, through a port of their own that no node
//!   holds ([`store::removal`]); what is to go bears a [`tombstone`] first, for longer than any evacuation takes, and
//!   a save asks [`reuse`] what it may build on.
//!
//! Stores are [`store::ObjectStore`]s: S3 and what speaks it, or a directory with the same semantics. Faults for
//! drills and tests are put around either by `store::faulty` (the feature `faults`); [`preflight`] asks a store to prove what the
//! protocol needs of it.

pub mod chunk;
pub mod claim;
pub mod dispatcher;
pub mod erase;
pub mod fingerprint;
pub mod folder;
pub mod garbage;
pub mod generation;
pub mod hash;
pub mod intent;
pub mod key;
pub mod lineage;
pub mod manifest;
pub mod path;
mod pool;
pub mod preflight;
pub mod restore;
pub mod retry;
pub mod reuse;
pub mod save;
pub mod store;
pub mod tombstone;
pub mod verdict;
pub mod workloads;

mod bounded;
mod document;
#[cfg(test)]
mod fixture;

pub use document::DocumentError;

/// One mebibyte, in bytes.
pub(crate) const MIB: u64 = 1024 * 1024;
