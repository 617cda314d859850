//! The evacuation on real nodes: real kubelets, API server, scheduler, S3 server and llama-server (tests/testbed).
//!
//! Each scenario has a testbed of its own and asserts on the API server's audit log, on what the S3 server received
//! and holds, and on the engines' own counters, not on our logs. Root and Linux are needed: `tests/run nodes`.

#[allow(dead_code, reason = "the scenarios are being written")]
mod cast;
mod state_moves;
