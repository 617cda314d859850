//! `lifeboat run`: the agent of one node.
//!
//! ```text
//!   agent: wiring ─► event_loop: select → one event → core → effects ─► executor: one effect, one task, one answer
//! ```

mod agent;
mod drill_requests;
mod event_loop;
pub(crate) mod executor;
pub mod store;

pub use agent::{StartError, run};
