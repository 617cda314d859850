//! The deciding core of lifeboat.
//!
//! EC2 takes a Spot node back two minutes after it says so. This crate decides, from the first sight
//! of the notice to the report, what is done with the node's pods and with the state in them, and on
//! the replacement's node how that state comes back. It does nothing itself.
//!
//! ```text
//!             ┌────────────────────────── Machine ───────────────────────────┐
//!  Event ───► │ absorb: one event changes the state of the part it is for     │
//!  (shell)    │ advance: every part takes its next steps, in this order:      │
//!             │   standing   the mark on the node: annotation, taint, cordon  │
//!             │   evacuation who begins to depart                             │
//!             │     saves      whose bytes move first, what is dropped        │
//!             │     keep       one pod's save, in that order                  │ ───► Effect
//!             │     holding    the file by which a pod waits for it           │      (shell)
//!             │     leave      one pod's eviction, in eviction order          │
//!             │     report     what became of it all                          │
//!             │   restoration the new pods: find, claim, fetch, prove, open   │
//!             │   precopy     saves of pods that go on serving                │
//!             └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! What decides is small and pure: [`order`] says who goes before whom, [`budget`] cuts up the time of one departure,
//! [`forecast`] says which states fit. [`plan`] asks the same three of [`facts`], before anything happens. What happened is a
//! [`trace`]: [`timeline`] tells it to people, and [`plan_check`] judges it by rules of its own.
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
//! - [`Machine::next_wakeup`] is the moment at which it wants [`event::Event::Woke`], if nothing else
//!   happens before.

pub mod budget;
mod departure;
pub mod effect;
mod evacuation;
pub mod event;
pub mod facts;
pub mod forecast;
mod holding;
mod keep;
mod leave;
mod ledger;
mod look;
mod machine;
pub mod moment;
pub mod names;
pub mod notice;
pub mod order;
pub mod plan;
pub mod plan_check;
pub mod pod;
pub mod policy;
mod precopy;
mod recall;
pub mod report;
mod restoration;
mod saves;
mod standing;
pub mod status;
pub mod timeline;
pub mod trace;
mod uplink;

pub use machine::Machine;
pub use restoration::choose;
