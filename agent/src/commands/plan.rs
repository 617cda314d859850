//! `lifeboat plan`: what would happen to a node, before it happens.
//!
//! ```text
//!   --node NAME   the agent there, through the API server; or the node's pods, where no agent runs
//!   --agent URL   an agent's admin address (in its pod, or forwarded)      ─► facts ─► plan ─► table or JSON
//!   --facts FILE  what somebody wrote down: what if
//! ```
//!
//! The plan is made here, of the facts: it is the core's own ([`evacuation::plan`]), so what it says is what the agent
//! would do. Nothing is changed anywhere.

mod table;

use crate::commands::page::{self, Output, Page};
use crate::kube::Cluster;
use bytesize::ByteSize;
use clap::Args;
use evacuation::facts::Facts;
use evacuation::moment::Span;
use evacuation::plan::Plan;
use host::{causes, clock, exit};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a cluster or an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The only version of the facts.
const FORMAT: u32 = 1;
/// More than the facts of any node: nothing larger is read.
const FACTS_MAX: u64 = 16 << 20;

/// The arguments of `lifeboat plan`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Without --node or --facts the agent of this machine is asked: kubectl -n lifeboat-system exec ds/lifeboat -- lifeboat plan

Exit codes: 0 there is a plan, whatever it says; 2 the facts could not be had; 64 the command line or the facts are wrong."
)]
pub struct PlanArgs {
    /// The plan of this node of a cluster
    #[arg(long, value_name = "NAME", group = "source")]
    node: Option<String>,
    /// The plan of what is written down in this file (- for standard input): see --show-facts
    #[arg(long, value_name = "FILE", group = "source")]
    facts: Option<PathBuf>,
    /// The agent to ask
    #[arg(long, value_name = "URL", group = "source", default_value = "http://127.0.0.1:9188")]
    agent: String,
    /// How to reach the cluster, for --node
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// What if the uplink carried so much per second (1250MB)
    #[arg(long, value_name = "BYTES")]
    link_rate: Option<ByteSize>,
    /// What if so much time were left until the deadline (30s)
    #[arg(long, value_name = "TIME", value_parser = crate::runtime::values::span)]
    left: Option<Span>,
    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Print the facts instead of the plan: to be changed by hand and given to --facts
    #[arg(long)]
    show_facts: bool,
}

impl PlanArgs {
    /// The plan of a node under a notice with so much time left.
    pub(crate) fn of_node(node: &str, kubeconfig: Option<PathBuf>, left: Span, as_json: bool) -> Self {
        Self {
            node: Some(node.to_owned()),
            facts: None,
            agent: String::new(),
            kubeconfig,
            link_rate: None,
            left: Some(left),
            output: if as_json { Output::Json } else { Output::Text },
            show_facts: false,
        }
    }
}

/// Why there is no plan: one line that names what to correct.
#[derive(Debug, thiserror::Error)]
enum PlanFailure {
    /// The command line, or what somebody wrote down.
    #[error("{0}")]
    Usage(String),
    /// The cluster, or the agent.
    #[error("{0}")]
    Failed(String),
}

/// Does what the command line says and returns the exit code.
pub async fn run(args: PlanArgs) -> u8 {
    let told = tell(&args).await.and_then(|text| {
        page::print(&text).map_err(|error| PlanFailure::Failed(format!("standard output: {error}")))
    });
    match told {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("lifeboat plan: {}", page::plain(&failure.to_string()));
            match failure {
                PlanFailure::Usage(_) => exit::USAGE,
                PlanFailure::Failed(_) => exit::FAILED,
            }
        }
    }
}

async fn tell(args: &PlanArgs) -> Result<String, PlanFailure> {
    let (mut facts, source) = facts(args).await?;
    if let Some(rate) = args.link_rate {
        facts.link = Some(rate.as_u64()).filter(|rate| *rate > 0);
    }
    if args.left.is_some() {
        facts.left = args.left;
    }
    if args.show_facts {
        return json(&facts);
    }
    let plan = Plan::of(&facts);
    if args.output == Output::Json {
        return json(&plan);
    }
    let mut page = Page::default();
    table::draw(&mut page, &facts, &plan, &source);
    Ok(page.as_str().to_owned())
}

fn json(document: &impl Serialize) -> Result<String, PlanFailure> {
    let text =
        serde_json::to_string_pretty(document).map_err(|error| PlanFailure::Failed(error.to_string()))?;
    Ok(text + "\n")
}

/// The facts, and where they come from.
async fn facts(args: &PlanArgs) -> Result<(Facts, String), PlanFailure> {
    if let Some(file) = &args.facts {
        return Ok((read(file)?, format!("written down in {}", file.display())));
    }
    if let Some(node) = &args.node {
        let deadline = clock::now() + Span::from_secs(PATIENCE.as_secs());
        let survey = Cluster::survey(args.kubeconfig.as_deref(), node, deadline).await;
        let survey = survey.map_err(|error| PlanFailure::Failed(causes::chain(&error)))?;
        let source = match survey.agent {
            Some(agent) => format!("told by its agent, {agent}"),
            None => {
                "the API server's: no agent runs there, so nobody knows its states and its link".to_owned()
            }
        };
        return checked(survey.facts, &source).map(|facts| (facts, source));
    }
    let source = format!("told by the agent at {}", args.agent);
    checked(ask(&args.agent).await?, &source).map(|facts| (facts, source))
}

/// What somebody wrote down.
fn read(file: &Path) -> Result<Facts, PlanFailure> {
    let wrong = |what: String| PlanFailure::Usage(format!("--facts {}: {what}", file.display()));
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(FACTS_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(FACTS_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| {
        wrong(format!("{error}; `lifeboat plan --node NAME --show-facts` writes such a file"))
    })?;
    let mut facts: Facts = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    for state in &mut facts.pods {
        // Two pods without a uid are not one pod.
        if state.pod.uid.0.is_empty() {
            state.pod.uid.0 = state.pod.display_name();
        }
        if let (Some(bytes), Some(send)) = (state.bytes, state.send)
            && send > bytes
        {
            let name = &state.pod.name;
            return Err(wrong(format!(
                "pod {name:?}: send {send} is more than its bytes {bytes}: give at most those"
            )));
        }
    }
    checked(facts, &format!("--facts {}", file.display()))
}

fn checked(facts: Facts, source: &str) -> Result<Facts, PlanFailure> {
    if facts.format != FORMAT {
        let what = format!(
            "{source}: format {} is not known here, only {FORMAT}: use the lifeboat that wrote it",
            facts.format
        );
        return Err(PlanFailure::Usage(what));
    }
    Ok(facts)
}

/// What an agent says of its node.
async fn ask(agent: &str) -> Result<Facts, PlanFailure> {
    let url = format!("{}/facts", agent.trim_end_matches('/'));
    let failed = |error: reqwest::Error| {
        let what = causes::chain(&error);
        PlanFailure::Failed(format!("{what}: run it where an agent runs, or give --agent, --node or --facts"))
    };
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(failed)?;
    let answer =
        client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    answer.json().await.map_err(failed)
}

#[cfg(test)]
mod tests;
