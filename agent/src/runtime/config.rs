//! Flags and environment of `lifeboat run` → one validated [`Config`].
//!
//! Every flag is also an environment variable, as the manifests set them. What is wrong is said
//! before any I/O, all of it at once, with the flag and the fix; the process then ends with 64
//! (`EX_USAGE`).

use crate::runtime::claims::ClaimsPolicy;
use crate::runtime::drill_scope::DrillScope;
use bytesize::ByteSize;
use checkpoint::dispatcher::Limits;
use checkpoint::manifest::MacKey;
use checkpoint::store::StoreOptions;
#[cfg(feature = "drill")]
use checkpoint::store::faulty::FaultPlan;
use checkpoint::store::s3::Encryption;
use clap::{Args, ValueEnum};
use evacuation::moment::Span;
use evacuation::policy::{EvictOrder, Policy, RebalancePolicy, RespectPdb};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The shortest secret for manifests, in bytes.
const MAC_SECRET_MIN: usize = 16;

/// The shortest patience with a store that answers nobody.
const FIND_TIMEOUT_MIN: Span = Span::from_secs(1);

/// The most transfers at once, whatever the memory: each has a connection.
const SLOTS_MAX: usize = 256;

/// The arguments of `lifeboat run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The node this agent runs on (downward API: spec.nodeName)
    #[arg(long, env = "NODE_NAME", help_heading = "Node")]
    node_name: Option<String>,
    /// The pod of this agent, for Events
    #[arg(long, env = "POD_NAME", default_value = "lifeboat", help_heading = "Node")]
    pod_name: String,
    /// The kubelet's root folder as this process sees it
    #[arg(long, env = "LIFEBOAT_KUBELET_ROOT", default_value = "/var/lib/kubelet", help_heading = "Node")]
    kubelet_root: PathBuf,
    /// Where the journal is kept
    #[arg(long, env = "LIFEBOAT_STATE_DIR", default_value = "/var/lib/lifeboat", help_heading = "Node")]
    state_dir: PathBuf,
    /// Where the kernel tells its boot id
    #[arg(long, hide = true, default_value = "/proc/sys/kernel/random/boot_id")]
    boot_id_file: PathBuf,
    /// Engines may be dialled on loopback (drills and tests)
    #[arg(long, hide = true)]
    allow_loopback_pods: bool,
    /// What lifeboat drill --node may have this agent rehearse: whoever may annotate the node may ask
    #[arg(long, env = "LIFEBOAT_DRILLS", value_enum, default_value_t, help_heading = "Node")]
    drills: DrillPolicy,
    /// Probes and metrics
    #[arg(long, env = "LIFEBOAT_ADMIN_ADDR", default_value = "0.0.0.0:9188", help_heading = "Node")]
    admin_addr: SocketAddr,

    /// The instance metadata service
    #[arg(
        long,
        env = "LIFEBOAT_IMDS_ENDPOINT",
        default_value = "http://169.254.169.254",
        help_heading = "Notices"
    )]
    imds_endpoint: String,
    /// Time between two polls
    #[arg(long, env = "LIFEBOAT_IMDS_POLL", default_value = "500ms", value_parser = crate::runtime::values::span, help_heading = "Notices")]
    imds_poll: Span,
    /// Kept between the end of everything and the time in the notice
    #[arg(long, env = "LIFEBOAT_MARGIN", default_value = "5s", value_parser = crate::runtime::values::span, help_heading = "Notices")]
    margin: Span,
    /// What a rebalance recommendation does
    #[arg(long, env = "LIFEBOAT_REBALANCE", default_value = "precopy", help_heading = "Notices")]
    rebalance: Rebalance,
    /// How long a rebalance or a withdrawn notice stands before it is undone
    #[arg(long, env = "LIFEBOAT_UNDO_AFTER", default_value = "30m", value_parser = crate::runtime::values::span, help_heading = "Notices")]
    undo_after: Span,
    /// Between two pre-copies of one pod under a rebalance
    #[arg(long, env = "LIFEBOAT_PRECOPY_INTERVAL", default_value = "30s", value_parser = crate::runtime::values::span, help_heading = "Notices")]
    precopy_interval: Span,

    /// Which PriorityClass tier is evicted first
    #[arg(long, env = "LIFEBOAT_EVICT_ORDER", default_value = "highest-first", help_heading = "Evictions")]
    evict_order: Order,
    /// Pods of a lower priority than this are shed: evicted at once, nothing saved
    #[arg(
        long,
        env = "LIFEBOAT_SHED_BELOW",
        default_value_t = 0,
        allow_hyphen_values = true,
        help_heading = "Evictions"
    )]
    shed_below: i32,
    /// How far a PodDisruptionBudget is respected
    #[arg(long, env = "LIFEBOAT_RESPECT_PDB", default_value = "until-deadline", help_heading = "Evictions")]
    respect_pdb: Pdb,
    /// Evict as the node's own user (constrained impersonation, Kubernetes 1.36 and newer)
    #[arg(long, env = "LIFEBOAT_IMPERSONATE_NODE", help_heading = "Evictions")]
    impersonate_node: bool,

    #[command(flatten)]
    store: StoreArgs,
    /// Memory for packs in flight: with --pack-size it bounds how many there are at once
    #[arg(long, env = "LIFEBOAT_TRANSFER_MEMORY", default_value = "256MiB", help_heading = "Store")]
    transfer_memory: ByteSize,
    /// The size of a pack; near the deadline they become smaller by themselves
    #[arg(long, env = "LIFEBOAT_PACK_SIZE", default_value = "16MiB", help_heading = "Store")]
    pack_size: ByteSize,
    /// The most that pre-copies send per second, while the engines serve; 0: as fast as one connection
    #[arg(long, env = "LIFEBOAT_PRECOPY_RATE", default_value = "32MiB", help_heading = "Store")]
    precopy_rate: ByteSize,
    /// The most that pre-copies take of the measured link over time, percent: rounds of large states become rarer
    #[arg(
        long,
        env = "LIFEBOAT_PRECOPY_SHARE",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=100),
        help_heading = "Store"
    )]
    precopy_share: u64,
    /// The uplink per second (1250MB), as far as it is known before the first save measures it: for plans and headroom
    #[arg(long, env = "LIFEBOAT_LINK_RATE", help_heading = "Store")]
    link_rate: Option<ByteSize>,
    /// Where it is decided who restores a state; the same on every node
    #[arg(long, env = "LIFEBOAT_CLAIMS", default_value = "auto", help_heading = "Store")]
    claims: ClaimsPolicy,
    /// The age at which a lifecycle rule of the bucket removes objects (720h): packs of half that age are sent anew
    #[arg(long, env = "LIFEBOAT_STORE_LIFECYCLE", value_parser = crate::runtime::values::span, help_heading = "Store")]
    store_lifecycle: Option<Span>,
    /// A fault of the store, for drills
    #[cfg(feature = "drill")]
    #[arg(long, hide = true)]
    store_fault: Vec<String>,

    /// The longest a replacement's readiness gate stays closed
    #[arg(long, env = "LIFEBOAT_RESTORE_TIMEOUT", default_value = "15m", value_parser = crate::runtime::values::span, help_heading = "Restore")]
    restore_timeout: Span,
    /// How long it stays closed while the store answers nobody: nothing is known to come
    #[arg(long, env = "LIFEBOAT_FIND_TIMEOUT", default_value = "30s", value_parser = crate::runtime::values::span, help_heading = "Restore")]
    find_timeout: Span,

    /// A kubeconfig; without it the pod's service account
    #[arg(long, env = "KUBECONFIG", help_heading = "API server")]
    kubeconfig: Option<PathBuf>,
}

/// Which store, and which cluster's part of it: the same flags for every subcommand that looks into one.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// Where checkpoints go: s3://bucket/prefix or dir:/absolute/path
    #[arg(long, env = "LIFEBOAT_STORE", help_heading = "Store")]
    store: Option<String>,
    /// The name of this cluster: no two clusters may share it in one bucket
    #[arg(long, env = "LIFEBOAT_CLUSTER_NAME", default_value = "default", help_heading = "Store")]
    pub cluster_name: String,
    /// Another S3 endpoint than AWS's
    #[arg(long, env = "LIFEBOAT_STORE_ENDPOINT", help_heading = "Store")]
    store_endpoint: Option<String>,
    /// The bucket's region
    #[arg(long, env = "LIFEBOAT_STORE_REGION", help_heading = "Store")]
    store_region: Option<String>,
    /// endpoint/bucket/key instead of bucket.endpoint/key
    #[arg(long, env = "LIFEBOAT_STORE_PATH_STYLE", help_heading = "Store")]
    store_path_style: bool,
    /// A PEM file with certificate authorities to trust besides the system's
    #[arg(long, env = "LIFEBOAT_STORE_CA_FILE", help_heading = "Store")]
    store_ca_file: Option<PathBuf>,
    /// Server-side encryption to ask for: bucket (its own default), aes256 or kms:<key id>
    #[arg(long, env = "LIFEBOAT_STORE_ENCRYPTION", default_value = "bucket", value_parser = Encryption::from_str, help_heading = "Store")]
    store_encryption: Encryption,
    /// A file with a secret that only agents have: manifests are signed with it, and others are refused
    #[arg(long, env = "LIFEBOAT_STORE_MAC_KEY_FILE", help_heading = "Store")]
    store_mac_key_file: Option<PathBuf>,
}

impl StoreArgs {
    /// The store's address; `None` if none was given.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.store.clone().filter(|store| !store.is_empty())
    }

    /// The key that vouches for manifests, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or holds fewer than 16 bytes.
    pub fn mac_key(&self) -> Result<Option<MacKey>, String> {
        let Some(path) = &self.store_mac_key_file else { return Ok(None) };
        let shown = path.display();
        let secret = std::fs::read(path).map_err(|error| {
            format!("--store-mac-key-file {shown}: {error}; mount the Secret that all agents have")
        })?;
        match secret.trim_ascii() {
            secret if secret.len() < MAC_SECRET_MIN => Err(format!(
                "--store-mac-key-file {shown}: it holds {} bytes, give {MAC_SECRET_MIN} or more (head -c 32 /dev/urandom | base64)",
                secret.len()
            )),
            secret => Ok(Some(MacKey::from_secret(secret))),
        }
    }

    /// What the address does not say. Nothing fails on purpose.
    #[must_use]
    pub fn options(&self) -> StoreOptions {
        StoreOptions {
            region: self.store_region.clone(),
            endpoint: self.store_endpoint.clone(),
            path_style: self.store_path_style,
            ca_file: self.store_ca_file.clone(),
            encryption: self.store_encryption.clone(),
            ..StoreOptions::default()
        }
    }
}

/// `--drills`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DrillPolicy {
    /// Nothing
    #[default]
    Off,
    /// Flush and save while everything serves
    Save,
    /// That, and whole evacuations
    Full,
}

impl DrillPolicy {
    /// So much may be rehearsed.
    pub const fn permits(self, extent: DrillScope) -> bool {
        match (self, extent) {
            (DrillPolicy::Full, _) | (DrillPolicy::Save, DrillScope::Save) => true,
            (DrillPolicy::Off, _) | (DrillPolicy::Save, DrillScope::Full) => false,
        }
    }
}

/// `--rebalance`
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rebalance {
    /// Nothing
    Off,
    /// Soft taint and pre-copy, no eviction
    Precopy,
    /// Evacuate
    Drain,
}

/// `--evict-order`
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// A replacement is requested the moment its pod is evicted
    HighestFirst,
    /// As the kubelet's graceful shutdown
    LowestFirst,
}

/// `--respect-pdb`
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pdb {
    /// Until the pod's last safe second: EC2 does not respect it either
    UntilDeadline,
    /// Always: a refused pod dies with the node
    Always,
}

/// What `lifeboat run` works with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The own node.
    pub node_name: String,
    /// The own pod.
    pub pod_name: String,
    /// The cluster's name in the store.
    pub cluster_name: String,
    /// The kubelet's root.
    pub kubelet_root: PathBuf,
    /// The journal's folder.
    pub state_dir: PathBuf,
    /// This boot's id.
    pub boot: String,
    /// Loopback engines.
    pub allow_loopback_pods: bool,
    /// The admin address.
    pub admin_addr: SocketAddr,
    /// What may be rehearsed.
    pub drills: DrillPolicy,
    /// IMDS.
    pub imds_endpoint: String,
    /// Its poll.
    pub imds_poll: Duration,
    /// Evict by impersonating the node.
    pub impersonate_node: bool,
    /// The store's address; `None`: nothing is saved.
    pub store: Option<String>,
    /// The store's options.
    pub store_options: StoreOptions,
    /// Vouches for manifests.
    pub mac_key: Option<MacKey>,
    /// Bytes of one pack.
    pub pack_size: u64,
    /// The age at which the bucket removes objects by itself.
    pub lifecycle: Option<Duration>,
    /// Packs in flight, and the rate of pre-copies.
    pub transfers: Limits,
    /// The uplink until a save measures it, bytes per second.
    pub link_rate: Option<u64>,
    /// Where claims are kept.
    pub claims: ClaimsPolicy,
    /// A kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The core's policy.
    pub policy: Policy,
}

/// What is wrong with the flags: one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(Vec<String>);

impl RunArgs {
    /// Validates what holds away from any node too: without a name of one, [`Config::node_name`] is empty.
    ///
    /// # Errors
    /// [`ConfigError`] with all that is wrong.
    pub fn validate_anywhere(mut self) -> Result<Config, ConfigError> {
        let away = self.node_name.as_deref().is_none_or(str::is_empty);
        if away {
            self.node_name = Some("none".to_owned());
        }
        let mut config = self.validate()?;
        if away {
            config.node_name.clear();
        }
        Ok(config)
    }

    /// Validates everything.
    ///
    /// # Errors
    /// [`ConfigError`] with all that is wrong.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let mut wrong = Vec::new();
        let node_name = self.node_name.filter(|name| !name.is_empty()).unwrap_or_else(|| {
            wrong.push(
                "--node-name is missing: set NODE_NAME from the downward API (fieldRef: spec.nodeName)"
                    .into(),
            );
            String::new()
        });
        if !self.imds_endpoint.starts_with("http://") {
            let given = &self.imds_endpoint;
            wrong.push(format!(
                "--imds-endpoint {given:?}: IMDS speaks plain HTTP, give http://address[:port]"
            ));
        }
        let boot = match std::fs::read_to_string(&self.boot_id_file) {
            Ok(boot) if !boot.trim().is_empty() => boot.trim().to_owned(),
            Ok(_) => {
                wrong.push(format!("--boot-id-file {}: the file is empty", self.boot_id_file.display()));
                String::new()
            }
            Err(error) => {
                wrong.push(format!("--boot-id-file {}: {error}", self.boot_id_file.display()));
                String::new()
            }
        };
        #[cfg(feature = "drill")]
        let faults = FaultPlan::parse(&self.store_fault.join("\n"))
            .map_err(|error| wrong.push(format!("--store-fault: {error}")))
            .ok()
            .filter(|_| !self.store_fault.is_empty());
        let mac_key = self.store.mac_key().unwrap_or_else(|why| {
            wrong.push(why);
            None
        });
        let pack_size = self.pack_size.as_u64();
        if !(1 << 20..=64 << 20).contains(&pack_size) {
            wrong.push(format!("--pack-size {}: give 1MiB to 64MiB", self.pack_size));
        }
        if self.store_lifecycle.is_some_and(|age| age < Span::from_secs(3600)) {
            wrong.push("--store-lifecycle: give the age of the bucket's rule, an hour or more (720h)".into());
        }
        let memory = self.transfer_memory.as_u64();
        if memory < pack_size || memory > 64 << 30 {
            wrong.push(format!(
                "--transfer-memory {}: give at least --pack-size ({}) and at most 64GiB",
                self.transfer_memory, self.pack_size
            ));
        }
        let slots = usize::try_from(memory / pack_size.max(1)).unwrap_or(SLOTS_MAX).clamp(1, SLOTS_MAX);
        if self.imds_poll < Span::from_millis(100) {
            wrong.push(format!("--imds-poll {}: give 100ms or more, IMDS throttles", self.imds_poll));
        }
        if self.find_timeout < FIND_TIMEOUT_MIN {
            wrong.push(format!(
                "--find-timeout {}: give {FIND_TIMEOUT_MIN} or more, one lost packet takes as long",
                self.find_timeout
            ));
        }
        if self.claims != ClaimsPolicy::Auto && self.store.url().is_none() {
            wrong.push(format!(
                "--claims {}: there is nothing to claim without --store",
                self.claims.as_str()
            ));
        }
        if !wrong.is_empty() {
            return Err(ConfigError(wrong));
        }
        Ok(Config {
            node_name,
            pod_name: self.pod_name,
            cluster_name: self.store.cluster_name.clone(),
            kubelet_root: self.kubelet_root,
            state_dir: self.state_dir,
            boot,
            allow_loopback_pods: self.allow_loopback_pods,
            admin_addr: self.admin_addr,
            drills: self.drills,
            imds_endpoint: self.imds_endpoint,
            imds_poll: host::clock::duration(self.imds_poll),
            impersonate_node: self.impersonate_node,
            store: self.store.url(),
            store_options: StoreOptions {
                #[cfg(feature = "drill")]
                faults,
                ..self.store.options()
            },
            mac_key,
            pack_size,
            lifecycle: self.store_lifecycle.map(host::clock::duration),
            transfers: Limits { slots, pre_copy_rate: Some(self.precopy_rate.as_u64()) },
            link_rate: self.link_rate.map(|rate| rate.as_u64()).filter(|rate| *rate > 0),
            claims: self.claims,
            kubeconfig: self.kubeconfig,
            policy: Policy {
                margin: self.margin,
                evict_order: match self.evict_order {
                    Order::HighestFirst => EvictOrder::HighestFirst,
                    Order::LowestFirst => EvictOrder::LowestFirst,
                },
                shed_below: self.shed_below,
                respect_pdb: match self.respect_pdb {
                    Pdb::UntilDeadline => RespectPdb::UntilDeadline,
                    Pdb::Always => RespectPdb::Always,
                },
                rebalance: match self.rebalance {
                    Rebalance::Off => RebalancePolicy::Off,
                    Rebalance::Precopy => RebalancePolicy::Precopy,
                    Rebalance::Drain => RebalancePolicy::Drain,
                },
                undo_after: self.undo_after,
                precopy_interval: self.precopy_interval,
                precopy_share: self.precopy_share,
                restore_timeout: self.restore_timeout,
                find_timeout: self.find_timeout,
                ..Policy::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn validate(args: &[&str]) -> Result<Config, ConfigError> {
        let args = std::iter::once("lifeboat").chain(args.iter().copied());
        match Cli::try_parse_from(args) {
            Ok(cli) => cli.run.validate(),
            Err(error) => Err(ConfigError(vec![error.to_string()])),
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_flag() {
        let error = validate(&[
            "--node-name=",
            "--imds-endpoint=169.254.169.254",
            "--boot-id-file=/nowhere",
            "--pack-size=1KiB",
            "--transfer-memory=1TiB",
            "--store-mac-key-file=/nowhere",
            "--store-fault=nonsense",
            "--claims=lease",
            "--find-timeout=10ms",
        ])
        .unwrap_err()
        .to_string();
        for flag in [
            "--node-name",
            "--imds-endpoint",
            "--boot-id-file",
            "--pack-size",
            "--transfer-memory",
            "--store-mac-key-file",
            "--store-fault",
            "--claims",
            "--find-timeout",
        ] {
            assert!(error.contains(flag), "{flag} is not named in:\n{error}");
        }
    }

    #[test]
    fn an_encryption_that_there_is_not_is_refused_with_what_there_is() {
        let error = validate(&["--node-name=a", "--store-encryption=rot13"]).unwrap_err().to_string();
        assert!(error.contains("--store-encryption") && error.contains("kms:<key>"), "{error}");
    }

    #[test]
    fn the_patience_with_a_store_that_answers_nobody_is_the_operator_s() {
        let config = validate(&["--node-name=a", "--find-timeout=7s"]).unwrap();
        assert_eq!(config.policy.find_timeout, Span::from_secs(7));
    }

    #[test]
    fn the_defaults_are_valid_and_are_the_core_s_own() {
        let config = validate(&["--node-name=a"]).unwrap();
        assert_eq!(config.policy, Policy::default());
        assert_eq!(config.imds_endpoint, "http://169.254.169.254");
    }
}
