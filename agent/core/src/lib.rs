//! The deciding core of lifeboat.
//!
//! EC2 takes a Spot node back two minutes after it says so. This crate decides, from the first sight
//! of the notice to the report, what is done with the node's pods and with the state in them, and on
//! the replacement's node how that state comes back. It does nothing itself. The whole of lifeboat is drawn in docs/architecture.md.
//!
//! ```text
//!             ┌────────────────────────── Machine ───────────────────────────┐
//!  Event ───► │ absorb: one event changes the state of the part it is for     │
//!  (shell)    │ advance: every part takes its next steps, in this order:      │
//!             │   node_mark    annotation, taint and cordon on the node       │
//!             │   evacuation   who begins to depart                           │
//!             │     saves        whose bytes move first, what is dropped      │
//!             │     pod_save     one pod's save, in that order                │ ───► Effect
//!             │     hold_file    the file by which a pod waits for it         │      (shell)
//!             │     pod_eviction one pod's eviction, in eviction order        │
//!             │     report       what became of it all                        │
//!             │   pod_restore  the new pods: find, claim, fetch, import, open │
//!             │   precopy      saves of pods that go on serving               │
//!             └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! What decides is small and pure: [`order`] says who goes before whom, [`budget`] cuts up the time of one departure,
//! [`forecast`] says which states fit. [`plan`] asks the same three of [`facts`], before anything happens. What happened
//! is told and judged by another crate, `trace`, by rules of its own.
//!
//! # The contract
//! - [`Machine::handle`] is a function of the policy and of the events so far: no I/O, no clock, no
//!   randomness, no hash maps. The same journal gives the same effects.
//! - `now` never goes backwards. Times are [`moment::Moment`]s of the node's boot clock.
//! - Every [`effect::Effect`] has an id, a deadline and an attempt number, and is answered exactly once:
//!   done, failed in one of the closed ways, timed out, panicked. Late answers are counted and ignored.
//! - Effects are idempotent. The core keeps no file: after a crash it is told the node with its
//!   annotation and the pods, and goes on with the original deadline.
//! - It is infallible: what should not happen becomes an [`effect::Action::Anomaly`].
//! - [`Machine::next_wakeup`] is the moment at which it wants [`event::Event::TimerFired`], if nothing else
//!   happens before.

mod announcements;
pub mod budget;
mod departure;
pub mod effect;
mod engine_inspection;
mod evacuation;
pub mod event;
pub mod facts;
pub mod forecast;
mod hold_file;
mod intake;
mod machine;
pub mod moment;
pub mod names;
mod node_mark;
pub mod notice;
mod open_effects;
pub mod order;
pub mod plan;
pub mod pod;
mod pod_eviction;
mod pod_restore;
mod pod_save;
mod pods;
pub mod policy;
mod precopy;
mod reload_local;
pub mod report;
mod running;
mod saves;
pub mod sleep;
pub mod status;
mod store_contact;
mod uplink;

pub use machine::Machine;
