//! `lifeboat doctor`: whether lifeboat is set up right, and what mends it where it is not.
//!
//! ```text
//!   on a node (NODE_NAME)     imds ── store ── agent ── volumes ── engines ─┐
//!   with a cluster            sight (one read of everything) ─► judgements ─┼─► findings ─► report (text or JSON)
//!                             rights, policies, kubelets, facts ────────────┘
//! ```
//!
//! Settings are those of `lifeboat run`, from the same flags and environment. In the agent's pod it is the agent who asks, so
//! what that account may not read is skipped, with the reason; with a person's kubeconfig the whole cluster is looked at. Each
//! check has a time limit of its own, and none hides another. Nothing is changed but a dozen small objects below `preflight/`
//! in the store, which each start of an agent writes too. What judges is pure; reading is in [`sight`] and beside each check.

mod agents;
mod budgets;
mod capacity;
mod cluster_reads;
mod control_plane;
pub mod finding;
mod kubelet;
mod local;
mod metadata;
mod other_drainers;
mod pods;
mod rights;
mod store;

use crate::commands::doctor::cluster_reads::{ClusterReads, PATIENCE};
use crate::commands::page::{self, Output, Page};
use crate::kube::call::is_name;
use crate::kube::{Cluster, ClusterError};
use crate::runtime::config::{Config, RunArgs};
use clap::Args;
use evacuation::facts::Facts;
use finding::{Finding, Report};
use futures::{StreamExt, stream};
use host::{causes, clock, exit};
use rights::Way;
use std::future::Future;
use std::time::Duration;

/// For one group of checks.
const GROUP: Duration = Duration::from_secs(45);
/// Agents that are asked what they have measured, and how many of them at once.
const AGENTS: usize = 50;
const AT_ONCE: usize = 6;

/// The arguments of `lifeboat doctor`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "With NODE_NAME, as in the agent's pod, this node is looked at; without it the whole cluster of the kubeconfig:
  kubectl -n lifeboat-system exec ds/lifeboat -- lifeboat doctor
  lifeboat doctor

Exit codes: 0 no failure, 1 a failure was found, 2 nothing could be looked at, 64 the command line is wrong."
)]
pub struct DoctorArgs {
    /// Where the agents are
    #[arg(long, default_value = "lifeboat-system")]
    namespace: String,
    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    run: RunArgs,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum DoctorFailure {
    /// The command line, or the environment.
    #[error("{0}")]
    Usage(String),
    /// There is nothing to look at.
    #[error("{0}")]
    Failed(String),
}

/// What is looked at.
struct Case {
    config: Config,
    /// The node we are on; `None` away from any.
    node: Option<String>,
    namespace: String,
    /// The agents' account.
    account: String,
}

/// Does what the command line says and returns the exit code.
pub async fn run(args: DoctorArgs) -> u8 {
    let output = args.output;
    let written = async {
        let report = examine(args).await?;
        let text = match output {
            Output::Json => {
                let json = serde_json::to_string_pretty(&report);
                json.map_err(|error| DoctorFailure::Failed(error.to_string()))? + "\n"
            }
            Output::Text => {
                let mut page = Page::default();
                report.page(&mut page);
                page.as_str().to_owned()
            }
        };
        page::print(&text).map_err(|error| DoctorFailure::Failed(format!("standard output: {error}")))?;
        Ok::<usize, DoctorFailure>(report.failures)
    };
    match written.await {
        Ok(0) => 0,
        Ok(_) => exit::NO,
        Err(failure) => {
            // Several lines where several settings are wrong.
            for line in failure.to_string().lines() {
                eprintln!("lifeboat doctor: {}", page::plain(line));
            }
            match failure {
                DoctorFailure::Usage(_) => exit::USAGE,
                DoctorFailure::Failed(_) => exit::FAILED,
            }
        }
    }
}

async fn examine(args: DoctorArgs) -> Result<Report, DoctorFailure> {
    let namespace = args.namespace;
    if !is_name(&namespace) {
        return Err(DoctorFailure::Usage(format!(
            "--namespace {namespace:?} is no name: give that of the agents, lifeboat-system"
        )));
    }
    let config = args.run.validate_anywhere().map_err(|error| DoctorFailure::Usage(error.to_string()))?;
    let node = Some(config.node_name.clone()).filter(|node| !node.is_empty());
    let account = format!("system:serviceaccount:{namespace}:lifeboat-agent");
    let case = Case { config, node, namespace, account };
    // Away from any node no request is about the own one; the name only has to be one.
    let node = case.node.as_deref().unwrap_or("none");
    let connected = Cluster::outside(case.config.kubeconfig.as_deref(), node).await;
    if let (Err(error), None) = (&connected, &case.node) {
        return Err(DoctorFailure::Failed(causes::chain(error)));
    }
    let (imds, store, (identity, cluster)) = tokio::join!(
        within("imds", metadata(&case)),
        within("store", crate::commands::doctor::store::check(&case.config, case.node.is_some())),
        of_cluster(&case, connected),
    );
    let found = [imds, cluster, store].concat();
    Ok(Report::new(case.node, identity, found))
}

async fn metadata(case: &Case) -> Vec<Finding> {
    match &case.node {
        Some(_) => metadata::check(&case.config.imds_endpoint).await,
        None => {
            let why = "this is no node: each agent asks its own (kubectl -n lifeboat-system exec ds/lifeboat -- lifeboat doctor)";
            vec![Finding::skipped("imds", "instance metadata", why)]
        }
    }
}

/// Everything that the API server, or the agents behind it, must be asked for.
async fn of_cluster(case: &Case, connected: Result<Cluster, ClusterError>) -> (Option<String>, Vec<Finding>) {
    let cluster = match connected {
        Ok(cluster) => cluster,
        Err(error) => {
            let found = Finding::failure("api-server", causes::chain(&error))
                .because("the agent cannot cordon, evict or see pods without it")
                .mend("run it in the agent's pod, or name a kubeconfig with --kubeconfig");
            return (None, [vec![found], local::agent(&case.config).await.0].concat());
        }
    };
    let node = case.node.as_deref();
    let sight = crate::commands::doctor::cluster_reads::look(&cluster, node, &case.namespace).await;
    let identity = sight.who.as_ref().ok().map(|who| who.name.clone());
    let way = match (&identity, case.config.impersonate_node) {
        (Some(identity), as_node) if *identity == case.account => {
            if as_node {
                Way::AsNode
            } else {
                Way::Itself
            }
        }
        _ => Way::Unknown,
    };
    let minor = sight.version.as_ref().ok().map(|version| version.minor);
    let mut found = control_plane::check(&sight, way);
    if sight.who.is_err() {
        found.extend(local::agent(&case.config).await.0);
        return (None, found);
    }
    found.extend(sight.ahead.map(|ahead| control_plane::judge_clock("the API server", ahead)));
    let (rights, policies, kubelets, (measured, facts), here) = tokio::join!(
        within(
            "rights",
            rights::check(&cluster, &sight.who, &sight.version, &case.account, &case.namespace, way)
        ),
        within("policies", control_plane::policies(&cluster, minor, &case.account)),
        within("kubelet-shutdown", kubelet::check(&cluster, &sight, node)),
        measured(case, &cluster, &sight),
        within("volumes", here(case, &sight)),
    );
    found.extend([rights, policies, measured, here].concat());
    found.extend(agents::installed(&sight, node));
    found.extend(agents::missing(&sight, node));
    if node.is_none() {
        found.push(agents::fleet(&sight));
    }
    found.extend(pods::check(&sight.pods, node));
    found.extend(budgets::check(&sight.budgets, &sight.pods, case.config.policy.respect_pdb));
    found.extend(crate::commands::doctor::capacity::check(&sight.pods, &facts));
    found.extend(crate::commands::doctor::other_drainers::check(
        &sight.pods,
        &sight.nodes,
        &sight.groups,
        node.is_none(),
    ));
    found.extend(kubelets);
    (identity, found)
}

async fn here(case: &Case, sight: &ClusterReads) -> Vec<Finding> {
    match &case.node {
        Some(_) => local::pods(&case.config, &sight.pods).await,
        None => vec![Finding::skipped(
            "volumes",
            "state volumes and engines",
            "they are seen from their node only: run it in an agent's pod",
        )],
    }
}

/// What the agents have measured: the one of this node, or those of all nodes with opted-in pods.
async fn measured(case: &Case, cluster: &Cluster, sight: &ClusterReads) -> (Vec<Finding>, Vec<Facts>) {
    if case.node.is_some() {
        let (found, facts) = local::agent(&case.config).await;
        return (found, facts.into_iter().collect());
    }
    const CHECK: &str = "headroom";
    let agents = agents::to_ask(sight);
    let asked = agents.iter().take(AGENTS).map(|agent| cluster.facts_of(agent, clock::now() + PATIENCE));
    let answers: Vec<Result<Facts, ClusterError>> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let mut found = Vec::new();
    if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
        let why = format!("{}; the right is get on pods/proxy", causes::chain(error));
        found.push(Finding::skipped(CHECK, "what some agents have measured", why));
    }
    if agents.len() > AGENTS {
        let why =
            format!("{AGENTS} of {} agents were asked; lifeboat_headroom_seconds has all", agents.len());
        found.push(Finding::skipped(CHECK, "what the other agents have measured", why));
    }
    (found, answers.into_iter().flatten().collect())
}

/// The findings, or that there are none in time.
async fn within(check: &'static str, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    bounded(GROUP, check, work).await
}

async fn bounded(
    limit: Duration,
    check: &'static str,
    work: impl Future<Output = Vec<Finding>>,
) -> Vec<Finding> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let what = format!("it came to no end within {} s", limit.as_secs_f32());
        vec![
            Finding::failure(check, what)
                .because("what it would have found is not known")
                .mend("run it again"),
        ]
    })
}

#[cfg(test)]
mod tests;
