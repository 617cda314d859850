//! What these tests play against: an API server with one node and some pods, and the agent of that node.

use super::*;
use fakes::apiserver::ApiServer;
use fakes::apiserver::admission::User;
use fakes::apiserver::audit::Request;
use fakes::apiserver::deletion::Budget;
use fakes::apiserver::misconduct::{Instead, Misconduct};
use fakes::apiserver::storage::Storage;

const AGENT: &str = "agent-a";

pub(super) struct World {
    pub(super) server: ApiServer,
}

impl World {
    pub(super) async fn start(node: Value, pods: Vec<Value>) -> World {
        Self::with_budgets(node, pods, vec![]).await
    }

    pub(super) async fn with_budgets(node: Value, pods: Vec<Value>, budgets: Vec<Budget>) -> World {
        let storage = Arc::new(Storage::default());
        storage.create("nodes", "", node).unwrap();
        for pod in pods {
            storage.create("pods", "chat", pod).unwrap();
        }
        let agent = User { name: AGENT.into(), node: Some(NODE.into()) };
        let server = ApiServer::start(storage, budgets, Misconduct::default(), vec![agent]).await.unwrap();
        World { server }
    }

    pub(super) fn cluster(&self) -> Cluster {
        self.cluster_with(options(false))
    }

    pub(super) fn cluster_with(&self, options: Options) -> Cluster {
        let mut config = kube::Config::new(self.server.url().parse().unwrap());
        config.auth_info.token = Some(AGENT.to_owned().into());
        Cluster::with_config(config, options, Metrics::new()).unwrap()
    }

    pub(super) fn kubeconfig(&self) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        self.server.write_kubeconfig(&path, AGENT).unwrap();
        (folder, path)
    }

    pub(super) fn storage(&self) -> &Storage {
        self.server.storage()
    }

    pub(super) fn node(&self) -> Arc<Value> {
        self.storage().get("nodes", "", NODE).unwrap()
    }

    pub(super) fn change_pod(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.storage().update("pods", "chat", name, |_| Ok(Some(pod.clone()))).unwrap();
    }

    /// These pods in place of those that are there.
    pub(super) fn replace_pods(&self, pods: Vec<Value>) {
        for pod in self.storage().list("pods").0 {
            let (name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
            self.storage().remove("pods", "chat", name.as_str().unwrap(), uid.as_str().unwrap()).unwrap();
        }
        for pod in pods {
            self.storage().create("pods", "chat", pod).unwrap();
        }
    }

    pub(super) fn script(&self, verb: &'static str, end: &'static str, instead: Instead) {
        self.server.script(verb, end, instead);
    }

    /// The first Events, as soon as there is one.
    pub(super) async fn first_events(&self) -> Vec<Request> {
        let written = async {
            loop {
                match self.requests("create", "/events") {
                    none if none.is_empty() => tokio::time::sleep(Duration::from_millis(50)).await,
                    events => return events,
                }
            }
        };
        timeout(Duration::from_secs(10), written).await.expect("an Event")
    }

    /// Requests with a verb on paths that end so.
    pub(super) fn requests(&self, verb: &str, end: &str) -> Vec<Request> {
        let mut all = self.server.audit();
        all.retain(|request| request.verb == verb && request.path.ends_with(end));
        all
    }
}
