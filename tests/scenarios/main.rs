//! Wire tests: the real agent in a process of its own, over real HTTP, against stand-ins that speak the real protocols.
//! What the stand-ins prove and what they do not is written beside each (crate `fakes`).

mod bad_input;
mod checkpoints;
mod conformance;
mod documentation;
mod drills;
mod fleet;
mod lifecycle;
mod observability;
mod starts;
mod store_away;
mod timelines;
