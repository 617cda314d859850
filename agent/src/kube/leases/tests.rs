//! Claims on Leases at the drill's API server: real HTTP, optimistic concurrency, and a clock of its own.

use super::super::{Cluster, Options};
use super::*;
use crate::pods::daemonset::DaemonRules;
use crate::runtime::metrics::Metrics;
use checkpoint::claim::{ClaimError, ClaimRequest, Claims, HeldClaim, Holder};
use checkpoint::key::{LineageId, Workload};
use checkpoint::store::Store;
use checkpoint::store::directory::DirectoryStore;
use checkpoint::store::faulty::{FaultPlan, FaultyStore};
use evacuation::names::LINEAGE_ANNOTATION;
use fakes::apiserver::admission::User;
use fakes::apiserver::misconduct::Misconduct;
use fakes::apiserver::storage::Storage;
use fakes::apiserver::{AGENT_NAMESPACE, ApiServer};
use std::sync::Arc;

struct Place {
    api: ApiServer,
    claims: Claims,
    store: Store,
    workload: Workload,
    folder: tempfile::TempDir,
}

async fn connect(api: &ApiServer, folder: &std::path::Path) -> Cluster {
    let kubeconfig = folder.join("kubeconfig");
    api.write_kubeconfig(&kubeconfig, "agent").unwrap();
    let options = Options {
        kubeconfig: Some(kubeconfig),
        node: "node-a".into(),
        instance: "lifeboat-x".into(),
        evict_as_node: false,
        daemons: DaemonRules::default(),
        bare_may_go: false,
    };
    Cluster::connect(options, Metrics::new()).await.unwrap()
}

impl Place {
    async fn new(faults: &[&str]) -> Self {
        let faults: Vec<_> = faults.iter().map(|text| text.parse().unwrap()).collect();
        let users = vec![User { name: "agent".into(), node: Some("node-a".into()) }];
        let storage = Arc::new(Storage::default());
        let api = ApiServer::start(storage, vec![], Misconduct::new(&faults), users).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("store")).unwrap();
        // What Leases are for.
        let store = Arc::new(DirectoryStore::open(folder.path().join("store")).unwrap());
        let ignoring = FaultPlan::parse("put=unconditional").unwrap();
        let store: Store = Arc::new(FaultyStore::new(store, ignoring));
        let cluster = connect(&api, folder.path()).await;
        let claims = Claims::on(Arc::new(LeaseBoard::new(cluster)), Arc::clone(&store));
        Self { api, claims, store, workload: Workload::new("cluster", "chat", "llama").unwrap(), folder }
    }

    async fn claim(&self, pod: &str, lineage: &str) -> Result<HeldClaim, ClaimError> {
        let request = ClaimRequest {
            lineage: LineageId::new(lineage).unwrap(),
            holder: Holder { pod_uid: pod.into(), pod_name: format!("name-{pod}"), node: "node-b".into() },
            lease: Duration::from_secs(30),
            named: false,
        };
        self.claims.take(self.store.as_ref(), &self.workload, &request, soon()).await
    }

    fn leases(&self) -> Vec<Arc<Value>> {
        self.api.storage().list("leases").0
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn a_claim_is_one_lease_that_people_can_read() {
    let place = Place::new(&[]).await;
    let mut held = place.claim("a", "llama-0").await.unwrap();
    held.renew(soon()).await.unwrap();
    let leases = place.leases();
    assert_eq!(leases.len(), 1);
    let (metadata, spec) = (&leases[0]["metadata"], &leases[0]["spec"]);
    assert_eq!(metadata["namespace"], AGENT_NAMESPACE);
    let key = place.workload.claim(&LineageId::new("llama-0").unwrap());
    assert_eq!(metadata["annotations"][LINEAGE_ANNOTATION], key);
    assert_eq!(spec["holderIdentity"], "pod name-a (uid a) on node node-b");
    assert_eq!((&spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(30), &json!(0)));
    for time in ["acquireTime", "renewTime"] {
        let text = spec[time].as_str().unwrap();
        assert!(
            text.len() == "2026-11-23T08:00:00.000000Z".len() && text.parse::<Timestamp>().is_ok(),
            "{text}"
        );
    }
    // The real API server takes the type, not only our JSON.
    serde_json::from_value::<Lease>((*leases[0]).clone()).unwrap();
    let update = place.api.audit().into_iter().find(|request| request.verb == "update").unwrap();
    assert!(update.body["metadata"]["resourceVersion"].is_string(), "an update is a comparison");
    assert!(update.body["metadata"]["uid"].is_string(), "and of this very Lease");
}

#[tokio::test]
async fn a_lease_is_stolen_only_when_it_ran_out_by_the_api_servers_clock() {
    // The node's clock is an hour behind it, or ahead.
    for wrong in [3600, -3600] {
        let place = Place::new(&[]).await;
        place.api.storage().advance_clock(wrong);
        let mut first = place.claim("a", "llama-0").await.unwrap();
        place.api.storage().advance_clock(20);
        let error = place.claim("b", "llama-0").await.unwrap_err();
        let ClaimError::Held { by, expires_in: Some(left) } = &error else { panic!("{error}") };
        assert_eq!(by.pod_uid, "a");
        assert!(*left <= Duration::from_secs(11), "{left:?}");
        // A renewal counts by the same clock.
        first.renew(soon()).await.unwrap();
        place.api.storage().advance_clock(20);
        assert!(matches!(place.claim("b", "llama-0").await, Err(ClaimError::Held { .. })));
        place.api.storage().advance_clock(12);
        let mut second = place.claim("b", "llama-0").await.unwrap();
        assert_eq!(second.epoch(), 2);
        assert!(matches!(first.renew(soon()).await, Err(ClaimError::Fenced { epoch: 1, .. })));
        assert!(matches!(first.finish(soon()).await, Err(ClaimError::Fenced { .. })));
        second.finish(soon()).await.unwrap();
        assert_eq!(place.leases()[0]["spec"]["leaseTransitions"], 1);
    }
}

#[tokio::test]
async fn a_holder_whose_lease_was_deleted_is_fenced() {
    let place = Place::new(&[]).await;
    let mut first = place.claim("a", "llama-0").await.unwrap();
    let lease = place.leases().remove(0);
    let text = |field: &str| lease["metadata"][field].as_str().unwrap().to_owned();
    let storage = place.api.storage();
    storage.remove("leases", AGENT_NAMESPACE, &text("name"), &text("uid")).unwrap();
    assert!(matches!(first.renew(soon()).await, Err(ClaimError::Fenced { .. })));
    // Another of the same name is another.
    place.claim("b", "llama-0").await.unwrap();
    assert!(matches!(first.renew(soon()).await, Err(ClaimError::Fenced { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_eight_that_claim_one_lineage_on_a_lease_one_wins_in_each_of_1000_races() {
    let place = Arc::new(Place::new(&[]).await);
    let race = |round: usize, racers: std::ops::Range<usize>| {
        let racers: Vec<_> = racers
            .map(|racer| {
                let place = Arc::clone(&place);
                tokio::spawn(async move { place.claim(&racer.to_string(), &format!("race-{round}")).await })
            })
            .collect();
        async move {
            let mut winners = Vec::new();
            for racer in racers {
                match racer.await.unwrap() {
                    Ok(held) => winners.push(held.epoch()),
                    Err(ClaimError::Held { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            winners
        }
    };
    for round in 0..500 {
        assert_eq!(race(round, 0..8).await, [1], "round {round}: who creates");
        place.api.storage().advance_clock(40);
        assert_eq!(race(round, 8..16).await, [2], "round {round}: who takes over");
    }
}

#[tokio::test]
async fn an_api_server_that_fails_for_a_moment_is_asked_again() {
    let place = Place::new(&["api=503*2"]).await;
    place.api.begin(clock::now());
    let mut held = place.claim("a", "llama-0").await.unwrap();
    held.finish(soon()).await.unwrap();
    assert!(place.api.struck("503"));
}

#[tokio::test]
async fn without_the_right_the_role_that_grants_it_is_named() {
    let place = Place::new(&[]).await;
    let mut config = kube::Config::new(place.api.url().parse().unwrap());
    config.default_namespace = "elsewhere".into();
    config.auth_info.token = Some("agent".to_owned().into());
    let cluster = connect(&place.api, place.folder.path()).await;
    let cluster = Cluster::with_config(config, (*cluster.options).clone(), Metrics::new()).unwrap();
    let claims = Claims::on(Arc::new(LeaseBoard::new(cluster)), Arc::clone(&place.store));
    let lineage = LineageId::new("llama-0").unwrap();
    let error = claims.read(&place.workload, &lineage, soon()).await.unwrap_err().to_string();
    assert!(error.contains("lifeboat-agent-claims") && error.contains("forbidden"), "{error}");
}

#[test]
fn an_entry_of_ours_is_the_one_that_counts() {
    let entry = |manager: &str, time: &str| json!({"manager": manager, "operation": "Update", "time": time});
    let stamped = |entries: Value| {
        let lease = json!({"creationTimestamp": "2026-11-23T07:00:00Z", "managedFields": entries});
        written(&serde_json::from_value(lease).unwrap()).unwrap().to_string()
    };
    let ours = entry(MANAGER, "2026-11-23T08:00:00Z");
    let label = entry("kubectl-label", "2026-11-23T09:00:00Z");
    assert_eq!(stamped(json!([label, ours])), "2026-11-23T08:00:00Z", "a label is no renewal");
    assert_eq!(stamped(json!([label])), "2026-11-23T09:00:00Z");
    assert_eq!(stamped(json!([])), "2026-11-23T07:00:00Z");
}
