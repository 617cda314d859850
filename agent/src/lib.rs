//! lifeboat: a node agent that makes EC2 Spot safe for stateful inference on Kubernetes.
//!
//! EC2 takes a Spot node back two minutes after it says so. The agent on that node cordons it, drains it in PriorityClass
//! order under one absolute deadline and saves the state of its engines, most valuable first; the agent on the
//! replacement's node puts that state back before the pod takes traffic.
//!
//! What is to be done is decided in [`evacuation`], which does nothing. This crate is the shell around it: it turns what
//! happens into events, and effects into work.
//!
//! ```text
//!   imds ────┐                                        ┌─► cluster   mark, evict, delete, conditions, Events
//!   cluster ─┤          ┌──────────────┐              ├─► volume    hold files, auth files
//!   (watch)  ├─ event ─►│  evacuation  │─ effects ─► executor ─► engine    look, quiesce, flush, hand over
//!   answers ─┤          └──────────────┘              ├─► checkpoint (another crate): save, commit, claim, fetch
//!   timer ───┘   driver: one loop, one owner,         └─► restore   the replacement's side
//!                every event and effect in the journal
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`driver`] | the loop; the only place that waits for everything at once |
//! | [`executor`], [`restore`] | one effect, one task, one answer, under the effect's deadline |
//! | [`imds`] | notices |
//! | [`cluster`], [`annotations`] | the own node and its pods; what pods say of themselves |
//! | [`engine`], [`sidecar`] | contract v1, llama-server; a reference engine |
//! | [`volume`], [`store`] | pod volumes opened so that nothing leads outside; the store, opened and proven |
//! | [`journal`], [`metrics`], [`admin`], [`telemetry`] | what can be known of it |
//! | [`plan`] | what would happen to a node, before it happens |
//! | [`doctor`] | whether it is set up right |
//! | [`fleet`] | what no node's agent can do: the gates of pods on nodes without one |
//! | [`checkpoints`] | what is in the store, for people: list, show, verify, diff, fetch |
//! | [`timeline`] | a journal for people: as text, JSON, a drawing; and its replay |
//! | [`completions`], [`manual`] | the command line, told to shells and to `man` |
//! | [`drill`] | the whole of it rehearsed on one machine, and judged |

pub mod admin;
pub mod annotations;
pub mod checkpoints;
pub mod cli;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod drill_command;
pub mod driver;
pub mod executor;
pub mod fleet;
pub mod imds;
pub mod journal;
mod live;
pub mod manual;
pub mod metrics;
mod page;
pub mod plan;
pub mod restore;
pub mod store;
pub mod telemetry;
pub mod timeline;
pub mod volume;
pub mod wait;
