//! The evacuation on real nodes: real kubelets, API server, scheduler, S3 server and llama-server (tests/testbed).
//!
//! Each scenario has a testbed of its own and asserts on the API server's audit log, on what the S3 server received
//! and holds, and on the engines' own counters, not on our logs. Root and Linux are needed: `tests/run nodes`.

mod asked;
mod cast;
mod marks;

mod admission;
mod agent_killed;
mod agent_updated;
mod announced;
mod blockers;
mod by_hand;
mod bystanders;
mod claims;
mod cleaning_up;
mod container_restart;
mod daemons;
mod doctor;
mod files;
mod fleet;
mod fleet_reports;
mod fleet_token;
mod gone_without_notice;
mod hold;
mod kubelet_shutdown;
mod metadata_service;
mod notices;
mod other_handlers;
mod others_drain;
mod outages;
mod overlap;
mod plan;
mod planted;
mod readme;
mod rebalance;
mod refused;
mod rehearsal;
mod replacement;
mod service;
mod short_link;
mod slow_pull;
mod state_moves;
mod stolen_token;
mod volumes;
