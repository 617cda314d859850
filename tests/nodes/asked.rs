//! What the API server was asked for in an evacuation, read from its audit log.

use crate::cast::text;
use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use testbed::Testbed;
use testbed::audit::Entry;

/// The agent keeps this between its deadline and the time in the notice.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);

/// The window of an evacuation, by the API server's clock, which is this machine's.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// When the cordon came in.
    pub cordon: Timestamp,
    /// When everything must have ended.
    pub deadline: Timestamp,
}

impl Window {
    /// Of a node that was given a notice for this time.
    pub fn of(audit: &[Entry], node: &str, notice: Timestamp) -> Result<Self> {
        let cordons = |entry: &&Entry| {
            entry.writes_node(node)
                && entry.by_agent_of(node)
                && entry.succeeded()
                && entry.body["spec"]["unschedulable"] == true
        };
        let cordon = audit.iter().find(cordons).with_context(|| format!("{node} was never cordoned"))?;
        Ok(Self { cordon: cordon.at, deadline: notice - MARGIN })
    }

    /// From the cordon to the deadline, in seconds.
    pub fn seconds(self) -> f64 {
        seconds(self.cordon, self.deadline)
    }

    /// So long after the cordon a pod that could not be evicted is let go: its grace, 15 s and a quarter of the window
    /// at most, and two seconds for the commit are kept free before the deadline (`budget::cutoff`).
    pub fn cut_off(self, grace: f64) -> f64 {
        let window = self.seconds();
        window - grace.min(15.0).min(window / 4.0) - f64::min(2.0, window / 10.0)
    }

    /// When this came in, in seconds after the cordon.
    pub fn after(self, entry: &Entry) -> f64 {
        seconds(self.cordon, entry.at)
    }

    /// The seconds that were left when this came in.
    pub fn left(self, entry: &Entry) -> f64 {
        seconds(entry.at, self.deadline)
    }
}

/// From one moment to another, in seconds.
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// The evictions of one pod that an agent asked for, accepted or not.
pub fn evictions<'a>(audit: &'a [Entry], pod: &str) -> Vec<&'a Entry> {
    audit.iter().filter(|entry| entry.by_agent() && entry.is_eviction() && entry.name == pod).collect()
}

/// The deletions of one pod that an agent asked for.
pub fn deletions<'a>(audit: &'a [Entry], pod: &str) -> Vec<&'a Entry> {
    audit.iter().filter(|entry| entry.by_agent() && entry.is_pod_deletion() && entry.name == pod).collect()
}

/// When the kubelet removed the pod's object: everything of it has ended.
pub fn removed(audit: &[Entry], pod: &str) -> Option<Timestamp> {
    let by_kubelet = |entry: &&Entry| {
        entry.user.starts_with("system:node:")
            && entry.is_pod_deletion()
            && entry.name == pod
            && entry.succeeded()
    };
    audit.iter().find(by_kubelet).map(|entry| entry.at)
}

/// Waits for this moment, plus some seconds.
pub async fn wait_for(moment: Timestamp, more: i64) {
    let left = (moment + SignedDuration::from_secs(more)).duration_since(Timestamp::now());
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
}

/// The pods of a report, once its deadline has passed and it was written for the last time.
pub async fn final_report(bed: &Testbed, node: &str, window: Window) -> Result<Vec<Value>> {
    wait_for(window.deadline, 3).await;
    let report = crate::cast::report(bed, node, std::time::Duration::from_secs(10)).await?;
    report["pods"].as_array().cloned().context("a report without pods")
}

/// The entry of one pod.
pub fn entry<'a>(report: &'a [Value], pod: &str) -> Result<&'a Value> {
    let found = report.iter().find(|entry| text(entry, "/name") == pod);
    found.with_context(|| format!("the report does not name {pod}: {}", Value::from(report.to_vec())))
}

/// When the pod's containers had ended, to the second, as the kubelet told it last.
pub fn finished(audit: &[Entry], pod: &str) -> Option<Timestamp> {
    let told = audit.iter().filter(|entry| {
        entry.name == pod
            && entry.subresource == "status"
            && entry.user.starts_with("system:node:")
            && entry.impersonated.is_none()
    });
    let mut ended = told.filter_map(|entry| {
        let statuses = entry.body.pointer("/status/containerStatuses")?.as_array()?;
        let times = statuses.iter().map(|status| text(status, "/state/terminated/finishedAt").parse().ok());
        times.collect::<Option<Vec<Timestamp>>>()?.into_iter().max()
    });
    ended.next_back()
}
