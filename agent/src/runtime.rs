//! What every long-running role of the binary has: configuration, probes, metrics, logs, signals.

pub mod admin;
pub mod claims;
pub mod config;
pub mod drill_scope;
pub mod garbage_args;
pub mod journal;
pub mod metrics;
pub mod readiness;
pub mod repeats;
pub mod signals;
pub mod telemetry;
pub mod values;
