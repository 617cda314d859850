//! How long an evacuation took, from what others recorded: the API server's audit log and the S3 server's files.
//!
//! Each scenario that measures writes one JSON file into `LIFEBOAT_TIMINGS`; `tests/timings` puts them together and
//! prints them as the README's table. Seconds count from the moment at which the metadata service began to show the
//! notice.

use crate::bed::Testbed;
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One evacuation of one node.
#[derive(Clone, Debug, Serialize)]
pub struct Timings {
    /// What was shown.
    pub scenario: String,
    /// The node that was evacuated.
    pub node: String,
    /// To the cordon's patch.
    pub cordon: Option<f64>,
    /// To the first eviction that was granted.
    pub first_eviction: Option<f64>,
    /// To the last one.
    pub last_eviction: Option<f64>,
    /// From the first pack that was whole in the store to the last commit.
    pub save: Option<f64>,
    /// To the last commit.
    pub commit: Option<f64>,
    /// To the first answer of a replacement from restored state, as the scenario saw it.
    pub serving: Option<f64>,
    /// To the first token that a replacement generated from restored state.
    pub first_token: Option<f64>,
    /// The longest time in which a steady client got no answer through the Service.
    pub gap: Option<f64>,
    /// What the agent of the node asked the API server from the notice on, by verb.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of packs that were put after the notice, by workload.
    pub bytes: BTreeMap<String, u64>,
}

impl Timings {
    /// What the records say so far.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn of(bed: &Testbed, scenario: &str, node: &str, notice: Timestamp) -> Result<Self> {
        let since = |at: Timestamp| at.duration_since(notice).as_secs_f64();
        let audit: Vec<_> = bed.audit()?.into_iter().filter(|entry| entry.at >= notice).collect();
        let ours: Vec<_> = audit.iter().filter(|entry| entry.by_agent_of(node)).collect();
        let cordoned = |entry: &&&crate::audit::Entry| {
            entry.writes_node(node) && entry.succeeded() && entry.body.to_string().contains("unschedulable")
        };
        let evictions: Vec<f64> = ours
            .iter()
            .filter(|entry| (entry.is_eviction() || entry.is_pod_deletion()) && entry.succeeded())
            .map(|entry| since(entry.at))
            .collect();
        let mut requests = BTreeMap::new();
        for entry in &ours {
            let verb = if entry.is_eviction() { "evict" } else { &entry.verb };
            *requests.entry(verb.to_owned()).or_default() += 1;
        }
        let put: Vec<_> = bed.objects()?.into_iter().filter(|object| object.at >= notice).collect();
        let mut bytes = BTreeMap::new();
        for object in put.iter().filter(|object| object.key.contains("/pack/")) {
            let workload = object.key.split("/pack/").next().and_then(|prefix| prefix.rsplit('/').next());
            *bytes.entry(workload.unwrap_or_default().to_owned()).or_default() += object.size;
        }
        let commits = put.iter().filter(|object| object.key.contains("/gen/")).map(|object| since(object.at));
        let commit = commits.fold(None, |last: Option<f64>, at| Some(last.map_or(at, |last| last.max(at))));
        let state = put.iter().filter(|object| object.key.contains("/pack/"));
        let began = state.map(|object| since(object.at)).fold(f64::INFINITY, f64::min);
        Ok(Self {
            scenario: scenario.to_owned(),
            node: node.to_owned(),
            cordon: ours.iter().find(cordoned).map(|entry| since(entry.at)),
            first_eviction: evictions.first().copied(),
            last_eviction: evictions.last().copied(),
            save: commit.filter(|_| began.is_finite()).map(|commit| (commit - began).max(0.0)),
            commit,
            serving: None,
            first_token: None,
            gap: None,
            requests,
            bytes,
        })
    }

    /// With the moment at which a replacement had answered from restored state.
    pub fn serving_at(mut self, notice: Timestamp, at: Timestamp) -> Self {
        self.serving = Some(at.duration_since(notice).as_secs_f64());
        self
    }

    /// With the moment of the first token from restored state.
    pub fn first_token_at(mut self, notice: Timestamp, at: Timestamp) -> Self {
        self.first_token = Some(at.duration_since(notice).as_secs_f64());
        self
    }

    /// With the longest time in which a steady client got no answer.
    pub fn with_gap(mut self, gap: std::time::Duration) -> Self {
        self.gap = Some(gap.as_secs_f64());
        self
    }

    /// Writes it where this run collects them, if it does.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self) -> Result<()> {
        let Some(folder) = std::env::var_os("LIFEBOAT_TIMINGS").map(PathBuf::from) else { return Ok(()) };
        std::fs::create_dir_all(&folder)?;
        let file = format!("{}-{}.json", self.scenario.replace([' ', '/'], "-"), self.node);
        std::fs::write(folder.join(file), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}
