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
//!   imds ────┐                                        ┌─► kube      mark, evict, delete, conditions, Events
//!   kube ────┤          ┌──────────────┐              ├─► volume    hold files, what a flush left
//!   (watch)  ├─ event ─►│  evacuation  │─ effects ─► executor ─► engines   look, quiesce, flush, hand over
//!   answers ─┤          └──────────────┘              └─► checkpoint (crates of their own): save, commit, claim, fetch
//!   timer ───┘   node::event_loop: one loop, one owner,
//!                every event and effect in the journal
//! ```
//!
//! Each row imports rows below it, and nothing beside it (`tests/structure` checks it):
//!
//! | modules | what |
//! |---|---|
//! | [`cli`], [`commands`] | the command line; each subcommand that a person runs |
//! | [`node`], [`fleet`] | `lifeboat run`: one node's agent; `lifeboat fleet`: what no node's agent can do |
//! | [`kube`], [`imds`], [`volume`] | the API server; notices; pod volumes, opened so that nothing leads outside |
//! | [`pods`] | pure: from a Pod of the API to what is known of it |
//! | [`runtime`] | configuration, probes, metrics, logs, signals |
//!
//! Below them are the crates `engines`, `host`, `evacuation` and `checkpoint`, and for the drill `drill`, `fakes` and
//! `fault-plan`.

pub mod cli;
pub mod commands;
pub mod fleet;
pub mod imds;
pub mod kube;
pub mod node;
pub mod pods;
pub mod runtime;
pub mod volume;
