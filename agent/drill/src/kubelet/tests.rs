//! The life of pods, with real files and real engines.

use super::{Kubelet, Node};
use crate::cast::{Addresses, CAST, EngineTemplate, Member, NAMESPACE, Place};
use crate::chronicle::Chronicle;
use crate::controllers::Controllers;
use crate::engine_room::{EngineChoice, EngineRoom};
use crate::trail::{Trail, Trails};
use fakes::apiserver::deletion;
use fakes::apiserver::storage::Storage;
use fakes::node_object;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

struct World {
    folder: tempfile::TempDir,
    storage: Arc<Storage>,
    trails: Arc<Trails>,
    chronicle: Arc<Chronicle>,
    template: EngineTemplate,
    _kubelet: Kubelet,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(Storage::default());
        storage.create("nodes", "", node_object("node-a", "SPOT")).unwrap();
        let trails = Arc::new(Trails::default());
        let chronicle = Arc::new(Chronicle::new(Box::new(|_| {})));
        let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let template = EngineTemplate { engine: "http", command: vec![], port, restore: "gate" };
        let kubelet = Kubelet::start(Node {
            name: "node-a",
            place: Place::Source,
            root: folder.path().to_owned(),
            storage: Arc::clone(&storage),
            engines: Arc::new(EngineRoom {
                engine: EngineChoice::Http { bytes: 4096, seed: 1 },
                faults: vec![],
            }),
            port,
            addresses: Arc::new(Addresses::new()),
            trails: Arc::clone(&trails),
            chronicle: Arc::clone(&chronicle),
            pull: Duration::ZERO,
            zero: Arc::new(OnceLock::new()),
            flip_restored: false,
        });
        Self { folder, storage, trails, chronicle, template, _kubelet: kubelet }
    }

    /// A running pod: its name and uid.
    async fn pod(&self, member: &Member) -> (String, String) {
        let pod =
            self.storage.create("pods", NAMESPACE, member.pod(1, Some("node-a"), &self.template)).unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        self.until(|| self.trails.of(&uid).is_some_and(|trail| trail.started.is_some())).await;
        (member.pod_name(1), uid)
    }

    fn hold(&self, uid: &str, seconds_ahead: i64) {
        let file = self.volume(uid).join(".lifeboat/hold");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, (Timestamp::now().as_second() + seconds_ahead).to_string()).unwrap();
    }

    fn volume(&self, uid: &str) -> PathBuf {
        self.folder.path().join("pods").join(uid).join("volumes/kubernetes.io~empty-dir/state")
    }

    fn delete(&self, name: &str, grace: u64) {
        deletion::delete(&self.storage, "pods", NAMESPACE, name, &json!({"gracePeriodSeconds": grace}))
            .unwrap();
    }

    fn exists(&self, name: &str) -> bool {
        self.storage.get("pods", NAMESPACE, name).is_some()
    }

    async fn gone(&self, uid: &str) -> Trail {
        self.until(|| self.trails.of(uid).is_some_and(|trail| trail.gone.is_some())).await;
        self.trails.of(uid).unwrap()
    }

    async fn until(&self, is: impl Fn() -> bool) {
        let waits = async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(8), waits).await.unwrap();
    }
}

const GOLD: &Member = &CAST[0];
const SILVER: &Member = &CAST[1];

#[tokio::test]
async fn a_held_pod_lives_until_its_hold_is_released() {
    let world = World::new();
    let (name, uid) = world.pod(GOLD).await;
    world.hold(&uid, 60);
    world.delete(&name, 20);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(world.exists(&name) && world.volume(&uid).is_dir());
    // What is asked for later shortens the object and not the kubelet.
    world.delete(&name, 1);
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert!(world.exists(&name));
    world.hold(&uid, -1);
    let trail = world.gone(&uid).await;
    assert!(!trail.killed && !world.exists(&name) && !world.volume(&uid).exists());
    assert_eq!(trail.grace, Some(20));
}

#[tokio::test]
async fn a_hold_is_bounded_by_the_grace_that_was_given_at_first() {
    let world = World::new();
    let (name, uid) = world.pod(GOLD).await;
    world.hold(&uid, 60);
    world.delete(&name, 1);
    let trail = world.gone(&uid).await;
    assert!(trail.killed);
    assert!(trail.gone.unwrap().since(trail.terminating.unwrap()).as_millis() >= 1000);
}

#[tokio::test]
async fn without_an_agent_nothing_hangs_and_without_a_pre_stop_nothing_is_held() {
    let world = World::new();
    for member in [GOLD, SILVER] {
        let (name, uid) = world.pod(member).await;
        if member == SILVER {
            world.hold(&uid, 60);
        }
        world.delete(&name, 20);
        let trail = world.gone(&uid).await;
        assert!(trail.gone.unwrap().since(trail.terminating.unwrap()).as_millis() < 1000, "{}", member.name);
    }
}

#[tokio::test]
async fn readiness_waits_for_the_gate() {
    let world = World::new();
    let (name, uid) = world.pod(GOLD).await;
    assert!(world.trails.of(&uid).unwrap().ready.is_none());
    let open = |old: &Value| {
        let mut new = old.clone();
        super::status::set_condition(&mut new, crate::cast::GATE, true);
        Ok(Some(new))
    };
    world.storage.update("pods", NAMESPACE, &name, open).unwrap();
    world.until(|| world.trails.of(&uid).is_some_and(|trail| trail.ready.is_some())).await;
}

#[tokio::test]
async fn controllers_replace_each_kind_in_its_own_time() {
    let world = World::new();
    let start = || {
        let (storage, chronicle) = (Arc::clone(&world.storage), Arc::clone(&world.chronicle));
        Controllers::start(storage, world.template.clone(), chronicle, "node-a", "node-b")
    };
    let _controllers = start();
    let on_b = |member: &'static Member| {
        let (pods, _) = world.storage.list("pods");
        pods.iter()
            .any(|pod| pod["metadata"]["labels"]["app"] == member.name && pod["spec"]["nodeName"] == "node-b")
    };
    let (gold, gold_uid) = world.pod(GOLD).await;
    world.hold(&gold_uid, 60);
    world.delete(&gold, 20);
    world.until(|| on_b(GOLD)).await;
    assert!(world.exists(&gold), "a ReplicaSet does not wait until the old pod is gone");

    let (silver, silver_uid) = world.pod(SILVER).await;
    world.delete(&silver, 20);
    world.gone(&silver_uid).await;
    world.until(|| on_b(SILVER)).await;
    let new = world.storage.get("pods", NAMESPACE, &silver).unwrap();
    assert_ne!(new["metadata"]["uid"], silver_uid.as_str(), "the same name, another pod");

    // A NoSchedule taint keeps the DaemonSet away; its removal would bring it back.
    let logs = &CAST[5];
    let (name, uid) = world.pod(logs).await;
    let taint = |old: &Value| {
        let mut new = old.clone();
        new["spec"]["taints"] = json!([{"key": "lifeboat.dev/interruption", "effect": "NoSchedule"}]);
        Ok(Some(new))
    };
    world.storage.update("nodes", "", "node-a", taint).unwrap();
    world.delete(&name, 1);
    world.gone(&uid).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (pods, _) = world.storage.list("pods");
    assert!(!pods.iter().any(|pod| pod["metadata"]["labels"]["app"] == "logs"));
}
