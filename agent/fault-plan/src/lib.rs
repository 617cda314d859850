//! What goes wrong, and when: the fault plan in its one text form, for the core's simulation and for `lifeboat drill`.
//!
//! ```text
//! target[:object]=outcome[:argument][*times|#which][@when][+duration]
//!
//! notice=late:10s      api=429@3s+5s      engine:gold=hang      agent=kill@step:commit
//! ```
//! `@when` counts from the moment the notice appears; `@step:NAME` is the first effect of that name. A plan is such
//! texts with white space between them. The [`catalogue`] holds every kind there is, and says of each where it is
//! understood.
//!
//! It decides what a text means. It must not know how a fault is done: each level does it with its own means.

pub mod catalogue;
pub mod drill;
mod entry;
mod fault;
mod grammar;
mod near;
mod quantity;

pub use entry::{Argument, Entry, Level, Object, When};
pub use fault::{Count, Fault, Start, Value};
pub use grammar::{FaultError, parse_plan};
pub use quantity::{parse_duration, parse_rate, show_duration, show_rate};

/// Where a plan can name a step: the core's actions.
pub fn steps() -> Vec<&'static str> {
    evacuation::effect::Action::names().collect()
}
