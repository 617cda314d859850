//! `lifeboat drill --node NAME`: the agent of a node of a cluster rehearses, where its operator allowed it.
//!
//! ```text
//!   --dry-run    the plan, and nothing else
//!   --save-only  every engine is flushed and saved while it serves
//!   otherwise    the whole evacuation: cordon, save, evict, report; the node is given back afterwards
//! ```
//!
//! It is asked for by an annotation of the node ([`crate::kube::drill_request`]); what happens is read from the Events that
//! the agent writes about its node and its pods.

use crate::commands::page;
use crate::commands::plan::{self, PlanArgs};
use crate::kube::drill_request::DrillRequest;
use crate::kube::{Cluster, ClusterError};
use crate::runtime::drill_scope::DrillScope;
use clap::Args;
use evacuation::moment::{Moment, Span};
use host::{causes, clock, exit};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// How long an agent may take to see the request.
const TAKEN_WITHIN: Span = Span::from_secs(15);
/// How long after its deadline a drill may still be told of.
const AFTERWARDS: Span = Span::from_secs(45);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The flags of a drill in a cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "In a cluster")]
pub struct LiveArgs {
    /// Have the agent of this node rehearse, if its operator allows it (LIFEBOAT_DRILLS)
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// Only say what would happen
    #[arg(long, requires = "node", conflicts_with = "save_only")]
    dry_run: bool,
    /// Flush and save every state, evict nothing
    #[arg(long, requires = "node")]
    save_only: bool,
    /// The time left that the drill begins with
    #[arg(long, requires = "node", value_name = "TIME", default_value = "60s", value_parser = crate::runtime::values::span)]
    left: Span,
    /// How to reach the cluster
    // No `requires`: the variable is set on many machines that rehearse without a cluster.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Why there was no drill.
#[derive(Debug, thiserror::Error)]
enum LiveDrillFailure {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "no agent on {node} took the request within {TAKEN_WITHIN}: kubectl -n lifeboat-system get pods -o wide shows whether one is ready there"
    )]
    NotTaken { node: String },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
}

/// Holds it and returns the exit code.
pub(super) async fn run(args: &LiveArgs, node: &str, as_json: bool) -> u8 {
    if args.dry_run {
        return plan::run(PlanArgs::of_node(node, args.kubeconfig.clone(), args.left, as_json)).await;
    }
    match held(args, node, as_json).await {
        Ok(true) => 0,
        Ok(false) => exit::NO,
        Err(failure) => {
            eprintln!("lifeboat drill: {}", page::plain(&failure.to_string()));
            if matches!(failure, LiveDrillFailure::Usage(_)) { exit::USAGE } else { exit::FAILED }
        }
    }
}

async fn held(args: &LiveArgs, node: &str, as_json: bool) -> Result<bool, LiveDrillFailure> {
    let extent = if args.save_only { DrillScope::Save } else { DrillScope::Full };
    let id = format!("drill-{:08x}", fastrand::u32(..));
    let asked = DrillRequest { id, extent, left_ms: args.left.as_millis() };
    // What the agent would refuse is refused here, with the flag's name.
    DrillRequest::read(&serde_json::to_string(&asked).unwrap_or_default())
        .map_err(|_| LiveDrillFailure::Usage("--left must be between 10s and 10m".to_owned()))?;
    let cluster = Cluster::outside(args.kubeconfig.as_deref(), node).await?;
    let mut story = Story::begin(&cluster, node, as_json).await?;
    let before = match extent {
        DrillScope::Save => Some(cluster.agent_status(soon()).await?),
        DrillScope::Full => None,
    };
    cluster.ask_rehearsal(Some(&asked), soon()).await?;
    if let Err(failure) = taken(&cluster, &mut story, node).await {
        // Nobody is to find it later.
        let _ = cluster.ask_rehearsal(None, soon()).await;
        return Err(failure);
    }
    let complete = match before {
        None => evacuated(&cluster, &mut story, &asked).await?,
        Some(before) => saved(&cluster, &mut story, &before, args.left).await?,
    };
    story.end(&asked, complete);
    Ok(complete)
}

fn soon() -> Moment {
    clock::now() + Span::from_secs(10)
}

async fn taken(cluster: &Cluster, story: &mut Story, node: &str) -> Result<(), LiveDrillFailure> {
    let until = clock::now() + TAKEN_WITHIN;
    while clock::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        let gone = !cluster.asks_for_rehearsal(soon()).await?;
        story.go_on(cluster).await?;
        if let Some(why) = story.note_of("DrillRefused") {
            return Err(LiveDrillFailure::Refused(why));
        }
        if gone {
            return Ok(());
        }
    }
    Err(LiveDrillFailure::NotTaken { node: node.to_owned() })
}

/// Until the report is written and nothing stands on the node any more.
async fn evacuated(
    cluster: &Cluster,
    story: &mut Story,
    asked: &DrillRequest,
) -> Result<bool, LiveDrillFailure> {
    let until = clock::now() + asked.left() + AFTERWARDS;
    let mut begun = false;
    while clock::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        // The drill goes on, whether we can look or not.
        let looked = async {
            story.go_on(cluster).await?;
            Ok::<_, LiveDrillFailure>(cluster.stands(soon()).await?)
        };
        let stands = match looked.await {
            Ok(stands) => stands,
            Err(failure) => {
                story.trouble(&failure);
                continue;
            }
        };
        if let Some(why) = story.note_of("DrillRefused") {
            return Err(LiveDrillFailure::Refused(why));
        }
        begun |= story.note_of("EvacuationStarted").is_some();
        if begun && story.note_of("EvacuationReport").is_some() && !stands {
            return Ok(story.ended_well());
        }
    }
    Ok(false)
}

/// Until every engine that has state has a generation that it had not before.
async fn saved(
    cluster: &Cluster,
    story: &mut Story,
    before: &Value,
    left: Span,
) -> Result<bool, LiveDrillFailure> {
    let until = clock::now() + left + AFTERWARDS;
    let old: BTreeSet<String> = copies(before).filter_map(|copy| copy.generation).collect();
    let mut waiting = vec!["the agent's word".to_owned()];
    while clock::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = async {
            story.go_on(cluster).await?;
            Ok::<_, LiveDrillFailure>(cluster.agent_status(soon()).await?)
        };
        let now = match looked.await {
            Ok(now) => now,
            Err(failure) => {
                story.trouble(&failure);
                continue;
            }
        };
        waiting.clear();
        for copy in copies(&now) {
            match copy.generation.filter(|generation| !old.contains(generation)) {
                Some(generation) => story.saved(&copy.pod, &generation),
                None if copy.bytes == 0 => story.nothing(&copy.pod),
                None => waiting.push(copy.pod),
            }
        }
        if waiting.is_empty() {
            return Ok(true);
        }
    }
    for pod in waiting {
        story.line(&format!("{pod}: not saved in this time"));
    }
    Ok(false)
}

/// One engine, as the agent's status has it.
struct Copy {
    pod: String,
    bytes: u64,
    generation: Option<String>,
}

fn copies(status: &Value) -> impl Iterator<Item = Copy> {
    let pods = status["pods"].as_array().into_iter().flatten();
    pods.filter(|pod| pod["engine"] == true).map(|pod| Copy {
        pod: format!(
            "{}/{}",
            pod["departure"]["namespace"].as_str().unwrap_or_default(),
            pod["departure"]["name"].as_str().unwrap_or_default()
        ),
        bytes: pod["state_bytes"].as_u64().unwrap_or(0),
        generation: pod["precopied"].as_str().map(str::to_owned),
    })
}

/// The agent's Events as they come.
struct Story {
    node: String,
    seen: BTreeSet<String>,
    told: Vec<(String, String, String, bool)>,
    results: BTreeSet<String>,
    began: Moment,
    as_json: bool,
}

impl Story {
    async fn begin(cluster: &Cluster, node: &str, as_json: bool) -> Result<Self, LiveDrillFailure> {
        let before = cluster.lifeboat_events(soon()).await?;
        let seen = before.iter().map(uid).collect();
        Ok(Self {
            node: node.to_owned(),
            seen,
            told: Vec::new(),
            results: BTreeSet::new(),
            began: clock::now(),
            as_json,
        })
    }

    async fn go_on(&mut self, cluster: &Cluster) -> Result<(), LiveDrillFailure> {
        let mut events = cluster.lifeboat_events(soon()).await?;
        events.retain(|event| {
            event["source"]["host"] == self.node.as_str() && !self.seen.contains(&uid(event))
        });
        events.sort_by_key(|event| event["eventTime"].as_str().unwrap_or_default().to_owned());
        for event in &events {
            self.seen.insert(uid(event));
            let text =
                |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (about, reason, note) = (text("/involvedObject/name"), text("/reason"), text("/message"));
            let warning = text("/type") == "Warning";
            self.line(&format!("{about}: {reason}: {note}"));
            self.told.push((about, reason, note, warning));
        }
        Ok(())
    }

    fn line(&self, text: &str) {
        if !self.as_json {
            let at = clock::now().since(self.began);
            // A terminal that is closed ends nothing.
            let _ = page::print(&format!("T+{at}  {}\n", page::plain(text)));
        }
    }

    /// It cannot be looked at now: said once for each reason.
    fn trouble(&mut self, failure: &LiveDrillFailure) {
        let why = format!("it cannot be looked at: {}", causes::chain(failure));
        if self.results.insert(why.clone()) {
            self.line(&why);
        }
    }

    fn saved(&mut self, pod: &str, generation: &str) {
        if self.results.insert(pod.to_owned()) {
            self.line(&format!("{pod}: saved as {generation}"));
            self.told.push((pod.to_owned(), "Saved".to_owned(), generation.to_owned(), false));
        }
    }

    fn nothing(&mut self, pod: &str) {
        if self.results.insert(pod.to_owned()) {
            self.line(&format!("{pod}: its engine has no state"));
        }
    }

    fn note_of(&self, wanted: &str) -> Option<String> {
        self.told.iter().rev().find(|(_, reason, ..)| reason == wanted).map(|(_, _, note, _)| note.clone())
    }

    /// The last report is a complete one.
    fn ended_well(&self) -> bool {
        let last = self.told.iter().rev().find(|(_, reason, ..)| reason == "EvacuationReport");
        last.is_some_and(|(.., warning)| !warning)
    }

    fn end(&self, asked: &DrillRequest, complete: bool) {
        let took = clock::now().since(self.began);
        let text = if self.as_json {
            let events = self.told.iter().map(|(about, reason, note, warning)| {
                json!({ "about": about, "reason": reason, "note": note, "warning": warning })
            });
            let document = json!({
                "drill": asked.id, "node": self.node, "extent": asked.extent, "complete": complete,
                "milliseconds": took.as_millis(), "events": events.collect::<Vec<_>>(),
            });
            format!("{document:#}\n")
        } else if complete {
            format!("\nThe drill is over after {took}: everything was done in time.\n")
        } else {
            format!("\nThe drill is over after {took}: not everything was done, see above.\n")
        };
        let _ = page::print(&text);
    }
}

fn uid(event: &Value) -> String {
    event["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}
