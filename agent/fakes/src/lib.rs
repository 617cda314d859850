//! Stand-ins on loopback for what cannot run on one machine, for the drill and for every test: the only ones.
//!
//! | module | stands for |
//! |---|---|
//! | [`apiserver`], [`node_object`] | a Kubernetes API server; the Node object that a kubelet registers |
//! | [`imds`] | EC2's instance metadata service, version 2 |
//! | [`sidecar`] | an engine: the example for whoever writes a sidecar that speaks contract v1 |
//!
//! Each speaks the real wire protocol, and says in its own file what it proves and what it does not.

pub mod apiserver;
pub mod imds;
pub mod node_object;
pub mod sidecar;

pub use node_object::node_object;
