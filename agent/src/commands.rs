//! The subcommands that people run: each file holds one's arguments, what it does and what it prints.

pub mod checkpoints;
pub mod completions;
pub mod conformance;
pub mod doctor;
pub mod drill;
pub mod man;
pub mod page;
pub mod plan;
pub mod timeline;
pub mod wait;
