//! lifeboat: a node agent that makes EC2 Spot safe for stateful inference on Kubernetes.

pub mod admin;
pub mod annotations;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod drill;
pub mod driver;
pub mod engine;
pub mod executor;
pub mod imds;
pub mod journal;
pub mod metrics;
pub mod restore;
pub mod sidecar;
pub mod store;
pub mod telemetry;
pub mod volume;
