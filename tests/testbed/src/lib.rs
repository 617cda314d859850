//! A whole Kubernetes with real nodes on one machine, for the scenario tests and for people.
//!
//! ```text
//!  test process                        one PID and mount namespace: when its first process ends, all of it ends
//!  ┌──────────────┐  control.sock    ┌────────────────────────────────────────────────────────────────────────────┐
//!  │ Testbed      │ ───────────────► │ supervisor                                                                 │
//!  │  · kube      │                  │   ns cp       etcd, kube-apiserver (10.96.0.1:443), controllers, scheduler │
//!  │  · imds      │  setns(cp), then │   ns s3       versitygw (TLS, 10.0.0.3:7070), registry (10.0.0.3:5000)     │
//!  │  · pods      │  plain sockets   │   ns node-a   containerd, kubelet, kube-proxy, IMDS on 169.254.169.254     │
//!  └──────────────┘                  │   ns node-b   …                     all of them on a bridge in ns `fabric` │
//!                                    └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What is real: etcd, API server, controller-manager, scheduler, kubelet, kube-proxy, containerd, runc, CNI plugins,
//! the network between them (namespaces, veth, tbf), versitygw, the registry, llama-server. What is not: EC2. The
//! metadata service is ours (it speaks IMDSv2; amazon-ec2-metadata-mock can take its place), a node is a network
//! namespace with a kubelet, and all nodes share one kernel, one clock and one disk.
//!
//! It needs root and Linux. A node's folder is `/var/lib/lifeboat-testbed/NODE` as seen from inside; from outside it
//! lies in the testbed's folder. Every mount and process lives in namespaces that end with the supervisor, so nothing
//! is left behind even when everything is killed; cgroup folders and files of a dead testbed are swept by the next.

pub mod audit;
pub mod bed;
pub mod caller;
pub mod engine;
pub mod image;
pub mod layout;
pub mod metadata;
pub mod parts;
pub mod request;
pub mod s3_log;
pub mod storm;
pub mod supervisor;
pub mod timings;

pub use bed::{Options, Testbed};
pub use layout::NodeOptions;
