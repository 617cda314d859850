//! Whole rounds on a directory with the semantics of S3, with faults of the store between them.

use super::*;
use crate::fleet::lost_nodes::tests::node;
use checkpoint::store::faulty::FaultPlan;
use checkpoint::store::{Body, StoreOptions, open};
use evacuation::moment::Span;
use serde_json::json;

const UID: &str = "uid-a";

struct Stage {
    folder: tempfile::TempDir,
    lead: watch::Receiver<Option<Moment>>,
    _leads: watch::Sender<Option<Moment>>,
}

impl Stage {
    fn new() -> Self {
        let (leads, lead) = watch::channel(Some(clock::now() + Span::from_secs(3600)));
        Self { folder: tempfile::tempdir().unwrap(), lead, _leads: leads }
    }

    fn url(&self) -> String {
        format!("dir:{}", self.folder.path().display())
    }

    /// A replica before whose eyes node-a fell silent and was deleted, with these faults of its store.
    fn replica(&self, faults: &str) -> ReportCounter {
        let faults = (!faults.is_empty()).then(|| FaultPlan::parse(faults).unwrap());
        let options = StoreOptions { faults, ..StoreOptions::default() };
        let place = StorePlace { url: self.url(), options, cluster: "c".into() };
        let (well, silent) = (node(|_| ()), node(|sight| sight.ready = false));
        let (mut vanished, now) = (LostNodes::default(), clock::now());
        let agents = BTreeSet::from(["node-a".to_owned()]);
        vanished.handle(now, &BTreeMap::from([(UID.into(), well)]), Vec::new(), &agents);
        vanished.handle(now, &BTreeMap::new(), vec![(UID.into(), silent)], &agents);
        let nodes = Arc::new(Mutex::new(Some(vanished)));
        ReportCounter::new(place, Duration::ZERO, Metrics::new(), nodes, self.lead.clone(), "fleet-1")
            .unwrap()
    }

    async fn report(&self, node: &str) {
        let report = json!({
            "format": 1, "node": node, "boot": "b", "notice": "n", "kind": {"interruption": "terminate"},
            "short": false, "withdrawn": false, "noticed": 1_000, "deadline": 116_000, "cordoned": 1_080,
            "written": 21_000, "complete": true, "pods": [],
        });
        let store = open(&self.url(), StoreOptions::default()).await.unwrap();
        let key = key::report("c", node, "1").unwrap();
        store.put(&key, Body::from(report.to_string().into_bytes()), Condition::Always).await.unwrap();
    }
}

async fn round(replica: &mut ReportCounter) -> Result<(), RoundError> {
    replica.round(Instant::now() + ROUND).await
}

fn value(replica: &ReportCounter, series: &str) -> u64 {
    let text = replica.metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

const GONE: &str = "lifeboat_fleet_spot_nodes_gone_total{how=\"without_notice\"}";
const ADOPTED: &str = "lifeboat_fleet_reports_total{outcome=\"adopted\"}";

#[tokio::test]
async fn a_node_that_went_while_the_ledger_could_not_be_written_is_counted_when_it_can() {
    let stage = Stage::new();
    let mut replica = stage.replica("put:fleet=denied*2");
    // The third is the first to write it down at all.
    round(&mut replica).await.unwrap_err();
    round(&mut replica).await.unwrap_err();
    assert_eq!(value(&replica, GONE), 0);
    round(&mut replica).await.unwrap();
    assert_eq!(value(&replica, GONE), 1);
    round(&mut replica).await.unwrap();
    assert_eq!(value(&replica, GONE), 1);
}

#[tokio::test]
async fn a_node_that_another_replica_counted_is_no_suspect_any_more() {
    let stage = Stage::new();
    let (mut first, mut second) = (stage.replica(""), stage.replica(""));
    for _ in 0..2 {
        round(&mut first).await.unwrap();
    }
    assert_eq!(value(&first, GONE), 1);
    round(&mut second).await.unwrap();
    assert_eq!(value(&second, GONE), 0);
    let sightings = second.nodes.lock().as_ref().and_then(LostNodes::sightings).unwrap();
    assert!(sightings.suspects.is_empty(), "once the ledger forgets it, it would be counted again");
}

#[tokio::test]
async fn a_report_that_the_store_will_not_give_keeps_no_other_and_no_node_from_being_counted() {
    let stage = Stage::new();
    for node in ["node-1", "node-2", "node-3"] {
        stage.report(node).await;
    }
    let mut replica = stage.replica("get:report=denied#1");
    let error = round(&mut replica).await.unwrap_err().to_string();
    assert!(error.contains("1 reports cannot be read") && error.contains("node-1/1"), "{error}");
    assert_eq!(value(&replica, ADOPTED), 2);
    round(&mut replica).await.unwrap();
    assert_eq!((value(&replica, ADOPTED), value(&replica, GONE)), (3, 1));
}
