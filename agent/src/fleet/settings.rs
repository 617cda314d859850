//! The arguments of `lifeboat fleet`, and what they come to.

use crate::kube::call::is_name;
use crate::runtime::config::StoreArgs;
use crate::runtime::garbage_args::GarbageArgs;
use checkpoint::garbage::Policy;
use checkpoint::key;
use checkpoint::store::{Remover, Store, StoreError, StoreOptions, open, open_for_removal};
use clap::Args;
use evacuation::moment::Span;
use host::clock;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A shorter time than this would open gates while an agent is merely being updated.
const SHORTEST: Span = Span::from_secs(1);

/// An agent writes its report within two seconds around the deadline, and tries again for some.
const SETTLE_MIN: Span = Span::from_secs(1);

/// A pass lists everything: more often than this costs more than it frees.
const GARBAGE_MIN: Span = Span::from_secs(60);

/// The arguments of `lifeboat fleet`.
#[derive(Args, Clone, Debug)]
pub struct FleetArgs {
    /// This replica: no two may share a name (downward API: metadata.name)
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// The node this replica runs on, for Events (downward API: spec.nodeName)
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// Where the agents' pods and the Lease lifeboat-fleet are; without it the service account's
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// How long no agent must have been ready on a node before the gates of its pods are opened
    #[arg(long, env = "LIFEBOAT_ORPHAN_AFTER", default_value = "60s", value_parser = crate::runtime::values::span)]
    orphan_after: Span,
    /// Between two looks for reports of evacuations in the store
    #[arg(long, env = "LIFEBOAT_ADOPT_EVERY", default_value = "30s", value_parser = crate::runtime::values::span)]
    adopt_every: Span,
    /// How long nobody must have written to a report before it is counted, and how long the report of a node that is gone
    /// is waited for
    #[arg(long, env = "LIFEBOAT_ADOPT_AFTER", default_value = "2m", value_parser = crate::runtime::values::span)]
    adopt_after: Span,
    /// Between two passes of garbage collection (1h); without it there are none. The role must be allowed to delete
    #[arg(long, env = "LIFEBOAT_COLLECT_GARBAGE_EVERY", value_parser = crate::runtime::values::span, help_heading = "Garbage")]
    collect_garbage_every: Option<Span>,
    #[command(flatten)]
    keep: GarbageArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Probes and metrics
    #[arg(long, env = "LIFEBOAT_ADMIN_ADDR", default_value = "0.0.0.0:9188")]
    admin_addr: SocketAddr,
    /// A kubeconfig; without it the pod's service account
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

/// What is wrong with the command line: one line that names the flag and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// The validated arguments.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) identity: String,
    pub(super) node_name: String,
    pub(super) namespace: Option<String>,
    pub(super) orphan_after: Span,
    /// What is done with a store; `None` without one.
    pub(super) stored: Option<Stored>,
    pub(super) admin_addr: SocketAddr,
    pub(super) kubeconfig: Option<PathBuf>,
}

/// What is done with a store.
#[derive(Clone, Debug)]
pub struct Stored {
    pub(super) place: StorePlace,
    pub(super) adopt_every: Duration,
    pub(super) adopt_after: Duration,
    pub(super) garbage: Option<(Duration, Policy)>,
}

/// A store, and the part of it that belongs to this cluster.
#[derive(Clone, Debug)]
pub struct StorePlace {
    pub(super) url: String,
    pub(super) options: StoreOptions,
    /// The cluster's name, which can be part of a key.
    pub(super) cluster: String,
}

impl StorePlace {
    /// Opens it.
    ///
    /// # Errors
    /// As the store answers.
    pub async fn open(&self) -> Result<Store, StoreError> {
        open(&self.url, self.options.clone()).await
    }

    /// Opens it for one who may remove.
    ///
    /// # Errors
    /// As the store answers.
    pub async fn open_for_removal(&self) -> Result<Remover, StoreError> {
        open_for_removal(&self.url, self.options.clone()).await
    }
}

impl FleetArgs {
    /// Checks them, before any I/O.
    ///
    /// # Errors
    /// Names the flag, its variable and the fix.
    pub fn validate(self) -> Result<Settings, UsageError> {
        let name = |value: Option<String>, flag: &str, field: &str| match value {
            Some(name) if is_name(&name) => Ok(name),
            Some(name) => {
                Err(UsageError(format!("{flag} {name:?} is no name: set it to {field} of the pod")))
            }
            None => Err(UsageError(format!("{flag} is missing: set it to {field} of the pod"))),
        };
        let namespace = match self.namespace.clone() {
            Some(namespace) if namespace.is_empty() => None,
            Some(namespace) => {
                Some(name(Some(namespace), "--namespace (POD_NAMESPACE)", "metadata.namespace")?)
            }
            None => None,
        };
        at_least(self.orphan_after, SHORTEST, "--orphan-after (LIFEBOAT_ORPHAN_AFTER)", "60s")?;
        Ok(Settings {
            identity: name(self.identity.clone(), "--identity (POD_NAME)", "metadata.name")?,
            node_name: name(self.node_name.clone(), "--node-name (NODE_NAME)", "spec.nodeName")?,
            namespace,
            orphan_after: self.orphan_after,
            stored: self.stored()?,
            admin_addr: self.admin_addr,
            kubeconfig: self.kubeconfig,
        })
    }

    fn stored(&self) -> Result<Option<Stored>, UsageError> {
        let garbage = match self.collect_garbage_every {
            None => None,
            Some(every) => {
                let flag = "--collect-garbage-every (LIFEBOAT_COLLECT_GARBAGE_EVERY)";
                at_least(every, GARBAGE_MIN, flag, "1h")?;
                let policy = self.keep.policy().map_err(|error| UsageError(error.to_string()))?;
                Some((clock::duration(every), policy))
            }
        };
        let Some(url) = self.store.url() else {
            return match garbage {
                Some(_) => Err(UsageError(
                    "--collect-garbage-every: there is nothing to collect without --store (LIFEBOAT_STORE)"
                        .into(),
                )),
                None => Ok(None),
            };
        };
        at_least(self.adopt_every, SHORTEST, "--adopt-every (LIFEBOAT_ADOPT_EVERY)", "30s")?;
        at_least(self.adopt_after, SETTLE_MIN, "--adopt-after (LIFEBOAT_ADOPT_AFTER)", "2m")?;
        let cluster = self.store.cluster_name.clone();
        key::ledger(&cluster).map_err(|error| UsageError(format!("--cluster-name: {error}")))?;
        Ok(Some(Stored {
            place: StorePlace { url, options: self.store.options(), cluster },
            adopt_every: clock::duration(self.adopt_every),
            adopt_after: clock::duration(self.adopt_after),
            garbage,
        }))
    }
}

fn at_least(given: Span, least: Span, flag: &str, better: &str) -> Result<(), UsageError> {
    if given < least {
        return Err(UsageError(format!(
            "{flag} {given} is too short: give {least} or more, better {better}"
        )));
    }
    Ok(())
}
