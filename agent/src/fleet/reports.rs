//! What the fleet role takes from one report: what Prometheus can keep of it.
//!
//! Decides, and does nothing. Reports are written by nodes, and a node may lie: everything is bounded before it counts.

use crate::runtime::metrics::kinds::End;
use evacuation::moment::{Moment, Span};
use evacuation::notice::NoticeKind;
use evacuation::report::{DepartureOutcome, Report, StateOutcome};
use serde::{Deserialize, Serialize};

/// The newest version of the document that is understood.
const FORMAT: u32 = 1;

/// The largest report that is read, bytes.
pub const REPORT_MAX: u64 = 4 << 20;

/// More pods than any node has; the kubelet's default is 110, and EKS allows 737 at most.
const PODS_MAX: usize = 2_000;

/// An evacuation that claims to have taken longer is none: maintenance is announced two weeks ahead.
const LONGEST: Span = Span::from_secs(30 * 86_400);

/// A report's place: its node and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReportId(String);

impl ReportId {
    /// Of an object's key below `prefix`; `None` for what is no report's.
    pub fn parse(prefix: &str, key: &str) -> Option<Self> {
        let id = key.strip_prefix(prefix)?.strip_suffix(".json")?;
        let (node, id_of_node) = id.split_once('/')?;
        let whole = !node.is_empty() && !id_of_node.is_empty() && !id_of_node.contains('/');
        whole.then(|| Self(id.to_owned()))
    }

    /// Its key below `prefix`.
    pub fn key(&self, prefix: &str) -> String {
        format!("{prefix}{}.json", self.0)
    }

    /// How long it is.
    pub const fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Its node.
    pub fn node(&self) -> &str {
        self.0.split_once('/').map_or("", |(node, _)| node)
    }
}

impl std::fmt::Display for ReportId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One pod of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSummary {
    /// What became of the pod.
    pub departure: DepartureOutcome,
    /// What became of its state.
    pub state: StateOutcome,
    /// Bytes of state in the store.
    pub bytes: u64,
    /// Bytes sent for it in the last round.
    pub sent: u64,
    /// Evictions that a budget refused.
    pub refusals: u32,
    /// From the notice to the commit.
    pub committed: Option<Span>,
    /// From the notice to its end.
    pub gone: Option<Span>,
}

/// One evacuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What kind of notice it was.
    pub kind: NoticeKind,
    /// How it ended.
    pub end: End,
    /// From the notice to the report.
    pub took: Span,
    /// From the notice to the cordon.
    pub cordoned: Option<Span>,
    /// Its pods.
    pub pods: Vec<PodSummary>,
}

/// What a report is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Of an evacuation.
    Evacuation(Summary),
    /// Of a rehearsal, which is no interruption.
    Drill,
    /// Of a newer lifeboat, in this format: a newer fleet role will read it.
    Newer(u32),
    /// Not one, and why.
    Unreadable(String),
}

impl Reading {
    /// The node had a notice, and this tells of it.
    pub fn tells_of_a_notice(&self) -> bool {
        match self {
            Reading::Evacuation(summary) => summary.end != End::Withdrawn,
            // It tells of something; to say "no notice" the fleet role must know.
            Reading::Newer(_) => true,
            Reading::Drill | Reading::Unreadable(_) => false,
        }
    }
}

#[derive(Deserialize)]
struct ReportHead {
    format: u32,
}

/// Reads one report.
pub fn read(id: &ReportId, bytes: &[u8]) -> Reading {
    match serde_json::from_slice::<ReportHead>(bytes) {
        Ok(head) if head.format > FORMAT => return Reading::Newer(head.format),
        Ok(head) if head.format < FORMAT => return Reading::Unreadable(format!("format {}", head.format)),
        Ok(_) => {}
        Err(error) => return Reading::Unreadable(error.to_string()),
    }
    match serde_json::from_slice::<Report>(bytes) {
        Err(error) => Reading::Unreadable(error.to_string()),
        Ok(report) if report.node != id.node() => {
            Reading::Unreadable(format!("it says that it is of node {:?}", short(&report.node)))
        }
        Ok(report) if report.pods.len() > PODS_MAX => {
            Reading::Unreadable(format!("{} pods on one node", report.pods.len()))
        }
        Ok(report) if report.written.since(report.noticed) > LONGEST => {
            Reading::Unreadable("an evacuation of more than a month".to_owned())
        }
        Ok(report) if report.kind == NoticeKind::Drill => Reading::Drill,
        Ok(report) => Reading::Evacuation(summary(&report)),
    }
}

fn summary(report: &Report) -> Summary {
    // Nothing that is told happened after it was told.
    let after = |moment: Moment| moment.min(report.written).since(report.noticed);
    let end = match (report.withdrawn, report.complete) {
        (true, _) => End::Withdrawn,
        (false, false) => End::Incomplete,
        (false, true) if report.written > report.deadline => End::Late,
        (false, true) => End::Complete,
    };
    let pods = report.pods.iter().map(|pod| PodSummary {
        departure: pod.departure,
        state: pod.state,
        bytes: pod.bytes,
        sent: pod.sent,
        refusals: pod.refusals,
        committed: pod.committed.map(after),
        gone: pod.gone.map(after),
    });
    Summary {
        kind: report.kind,
        end,
        took: after(report.written),
        cordoned: report.cordoned.map(after),
        pods: pods.collect(),
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn id() -> ReportId {
        ReportId::parse("v1/c/report/", "v1/c/report/node-a/100-abc.json").unwrap()
    }

    fn report(change: impl FnOnce(&mut Value)) -> Reading {
        let mut report = json!({
            "format": 1, "node": "node-a", "boot": "b", "notice": "n", "kind": {"interruption": "terminate"},
            "short": false, "withdrawn": false, "noticed": 1_000, "deadline": 116_000, "cordoned": 1_080,
            "written": 20_000, "complete": true,
            "pods": [{
                "uid": "u", "namespace": "chat", "name": "llama-0", "priority": 100, "departure": "gone",
                "reason": null, "state": "saved", "state_reason": null, "generation": "1-1", "bytes": 4096,
                "sent": 1024, "refusals": 2, "evicted": 1_100, "committed": 14_000, "gone": 15_000,
            }],
        });
        change(&mut report);
        read(&id(), report.to_string().as_bytes())
    }

    fn evacuation(change: impl FnOnce(&mut Value)) -> Summary {
        match report(change) {
            Reading::Evacuation(summary) => summary,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_report_says_is_what_is_counted_with_times_from_the_notice() {
        let summary = evacuation(|_| ());
        assert_eq!((summary.end, summary.took), (End::Complete, Span::from_secs(19)));
        assert_eq!(summary.cordoned, Some(Span::from_millis(80)));
        let pod = summary.pods[0];
        assert_eq!((pod.bytes, pod.sent, pod.refusals), (4096, 1024, 2));
        assert_eq!(pod.committed, Some(Span::from_secs(13)));
        assert_eq!(pod.gone, Some(Span::from_secs(14)));
    }

    #[test]
    fn each_end_is_told_apart() {
        assert_eq!(evacuation(|report| report["written"] = json!(117_000)).end, End::Late);
        assert_eq!(evacuation(|report| report["complete"] = json!(false)).end, End::Incomplete);
        assert_eq!(evacuation(|report| report["withdrawn"] = json!(true)).end, End::Withdrawn);
    }

    #[test]
    fn a_rehearsal_is_no_evacuation_and_tells_of_no_notice() {
        let drill = report(|report| report["kind"] = json!("drill"));
        assert_eq!(drill, Reading::Drill);
        assert!(!drill.tells_of_a_notice());
        assert!(report(|_| ()).tells_of_a_notice());
        assert!(!report(|report| report["withdrawn"] = json!(true)).tells_of_a_notice());
    }

    #[test]
    fn what_is_no_report_of_that_node_is_not_counted_and_a_newer_one_is_left_to_a_newer_fleet_role() {
        let unreadable = |reading: Reading| matches!(reading, Reading::Unreadable(_));
        assert!(unreadable(read(&id(), b"{}")));
        assert!(unreadable(read(&id(), b"\xff")));
        assert!(unreadable(report(|report| report["format"] = json!(0))));
        assert!(unreadable(report(|report| report["node"] = json!("node-b"))));
        assert!(unreadable(report(|report| report["pods"][0]["departure"] = json!("eaten"))));
        assert!(unreadable(report(|report| report["written"] = json!(u64::MAX))));
        let many = |report: &mut Value| report["pods"] = json!(vec![report["pods"][0].clone(); PODS_MAX + 1]);
        assert!(unreadable(report(many)));
        assert_eq!(report(|report| report["format"] = json!(2)), Reading::Newer(2));
        assert_eq!(read(&id(), b"{\"format\": 9}"), Reading::Newer(9));
    }

    #[test]
    fn a_moment_that_lies_ahead_of_the_report_is_no_longer_than_the_report() {
        let summary = evacuation(|report| report["pods"][0]["gone"] = json!(u64::MAX));
        assert_eq!(summary.pods[0].gone, Some(summary.took));
    }

    #[test]
    fn only_keys_of_reports_are_ids() {
        assert_eq!(id().node(), "node-a");
        assert_eq!(id().key("v1/c/report/"), "v1/c/report/node-a/100-abc.json");
        for key in ["v1/c/report/a.json", "v1/c/report/a/b/c.json", "v1/c/report/a/b", "v1/d/report/a/b.json"]
        {
            assert_eq!(ReportId::parse("v1/c/report/", key), None, "{key}");
        }
    }
}
