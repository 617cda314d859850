//! What only this node can tell: its agent, its volumes, its engines.

use super::finding::Finding;
use super::pods::record;
use crate::commands::doctor::cluster_reads::{ReadResult, name, opted_in};
use crate::pods::annotations::EngineSettings;
use crate::pods::reader::PodRecord;
use crate::runtime::config::Config;
use crate::volume::{self, PodVolumes};
use checkpoint::folder::Folder;
use engines::{EngineTarget, Scheme};
use evacuation::facts::{Facts, announced};
use evacuation::moment::Span;
use futures::{StreamExt, stream};
use host::clock;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const AGENT: &str = "agent";
const VOLUMES: &str = "volumes";
const ENGINES: &str = "engines";
/// For the agent beside us.
const PATIENCE: Duration = Duration::from_secs(4);
/// For one engine, with opening its volume.
const LOOK: Span = Span::from_secs(4);
/// Pods at once.
const AT_ONCE: usize = 8;

/// What the agent of this node says: whether it is ready, and its facts.
pub async fn agent(config: &Config) -> (Vec<Finding>, Option<Facts>) {
    let url = format!("http://127.0.0.1:{}", config.admin_addr.port());
    let client = match reqwest::Client::builder().no_proxy().timeout(PATIENCE).build() {
        Ok(client) => client,
        Err(error) => return (vec![Finding::skipped(AGENT, "the agent here", error.to_string())], None),
    };
    let ready = client.get(format!("{url}/readyz")).send().await;
    let found = match ready {
        Ok(answer) if answer.status().is_success() => Finding::ok(AGENT, "the agent of this node is ready"),
        Ok(answer) => {
            let why = answer.text().await.unwrap_or_default();
            judge_unready(&why)
        }
        Err(error) if error.is_connect() => {
            let why = format!(
                "nobody listens at {url}: run this in the agent's pod (kubectl exec), or the agent does not run"
            );
            return (vec![Finding::skipped(AGENT, "the agent of this node", why)], None);
        }
        Err(error) => Finding::failure(AGENT, format!("the agent at {url} does not answer: {error}"))
            .because("it may hang")
            .mend("look at its log; its liveness probe restarts it"),
    };
    let facts = async { client.get(format!("{url}/facts")).send().await.ok()?.json::<Facts>().await.ok() };
    let facts = facts.await;
    let standing = facts.as_ref().filter(|facts| !facts.announcements.is_empty()).map(judge_announced);
    (std::iter::once(found).chain(standing).collect(), facts)
}

/// What is announced for this node: whoever looks at a quiet node should know of the reboot in an hour.
fn judge_announced(facts: &Facts) -> Finding {
    Finding::note(AGENT, format!("announced for this node: {}", announced(facts)))
        .because("what ends the instance first rules; the others count when that is over")
}

fn judge_unready(why: &str) -> Finding {
    Finding::failure(AGENT, format!("the agent of this node is not ready: {}", why.trim()))
        .because("imds, node, pods and store must each have answered once; nothing is safe before that")
        .mend("the findings about imds, rights and store say why; kubectl logs of its pod")
}

/// The kubelet's folder, and the state volume and engine of each pod that opted in here.
pub async fn pods(config: &Config, pods: &ReadResult<Vec<Pod>>) -> Vec<Finding> {
    let Ok(pods) = pods else { return vec![] };
    let mut found = Vec::new();
    if let Some(finding) = pods_folder(&config.kubelet_root) {
        return vec![finding];
    }
    let ours: Vec<(String, PodRecord)> =
        pods.iter().filter(|pod| opted_in(pod)).filter_map(|pod| Some((name(pod), record(pod)?))).collect();
    let volumes = PodVolumes::new(&config.kubelet_root);
    let look = |(name, record): (String, PodRecord)| {
        let volumes = &volumes;
        async move {
            let findings = one(config, volumes, &record).await;
            findings.into_iter().map(|finding| finding.about(&name)).collect::<Vec<_>>()
        }
    };
    let each: Vec<Vec<Finding>> = stream::iter(ours).map(look).buffered(AT_ONCE).collect().await;
    found.extend(each.into_iter().flatten());
    if found.is_empty() {
        let folder = config.kubelet_root.join("pods");
        found.push(Finding::ok(
            VOLUMES,
            format!("{} can be read; no pod here has a state volume yet", folder.display()),
        ));
    }
    found
}

/// What is wrong with the kubelet's folder of pods.
fn pods_folder(kubelet_root: &Path) -> Option<Finding> {
    let folder = kubelet_root.join("pods");
    let error = std::fs::read_dir(&folder).err()?;
    Some(
        Finding::failure(VOLUMES, format!("{} cannot be read: {error}", folder.display()))
            .because("no state can be saved from this node, and none put back")
            .mend(
                "mount the kubelet's pods directory there (manifests/base/daemonset.yaml), set LIFEBOAT_KUBELET_ROOT to the kubelet's \
                 --root-dir, and run as root with DAC_OVERRIDE; on SELinux see manifests/components/bottlerocket",
            ),
    )
}

async fn one(config: &Config, volumes: &PodVolumes, record: &PodRecord) -> Vec<Finding> {
    let Some(settings) = &record.settings else { return vec![] };
    let Some(volume) = &settings.state_volume else {
        return vec![
            Finding::note(ENGINES, "it has no state volume")
                .because("nothing can be flushed into files and no hold be written"),
        ];
    };
    let folder = match volumes.state_folder(&record.facts.uid.0, &volume.name) {
        Ok(folder) => folder,
        Err(error) if !record.facts.running => {
            return vec![Finding::skipped(
                VOLUMES,
                "its state volume",
                format!("its engine's container does not run: {error}"),
            )];
        }
        Err(error) => {
            return vec![
                Finding::failure(VOLUMES, error.to_string())
                    .because("its state can be neither saved nor put back")
                    .mend("compare LIFEBOAT_KUBELET_ROOT with the kubelet's --root-dir; restart the agent's pod if the mount is older than the volume"),
            ];
        }
    };
    let opened = Finding::ok(VOLUMES, "state volumes can be opened");
    if !record.facts.running {
        return vec![opened, Finding::skipped(ENGINES, "its engine", "its container does not run")];
    }
    vec![opened, engine_answers(config, settings, record, folder).await]
}

async fn engine_answers(
    config: &Config,
    settings: &EngineSettings,
    record: &PodRecord,
    folder: Arc<Folder>,
) -> Finding {
    let kind = settings.engine.as_str();
    let failure = |why: String| {
        Finding::failure(ENGINES, format!("its engine ({kind}, port {}) does not answer as one: {why}", settings.port))
            .because("its state cannot be flushed: it is lost with the node")
            .mend("correct lifeboat.dev/engine, port, container and auth-file; a NetworkPolicy must let the node's agent in; docs/protocol.md has the contract")
    };
    let ip = match record.pod_ip {
        _ if !settings.engine.has_api() => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(ip) => ip,
        None => return Finding::skipped(ENGINES, "its engine", "the pod has no address yet"),
    };
    let deadline = clock::now() + LOOK;
    let ask = async {
        let token = match &settings.auth_file {
            Some(path) => Some(
                volume::auth_token(&folder, &path.to_string_lossy())
                    .await
                    .map_err(|error| error.to_string())?,
            ),
            None => None,
        };
        let target = EngineTarget {
            ip,
            port: settings.port,
            scheme: Scheme::Http,
            token,
            folder: Arc::clone(&folder),
            flush_timeout: settings.flush_timeout,
            max_bytes: settings.max_bytes,
            facts: record
                .image_id
                .iter()
                .map(|id| ("image".to_owned(), id.clone()))
                .collect::<BTreeMap<_, _>>(),
            compat_key: settings.compat_key.clone(),
            life: format!("{}/{}/{}", record.facts.uid, record.restarts, config.boot),
            allow_loopback: config.allow_loopback_pods,
        };
        let engine = engines::connect(settings.engine, target).map_err(|error| error.to_string())?;
        engine.look(deadline).await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout_at(clock::instant(deadline + Span::from_secs(1)), ask).await {
        Ok(Ok(_)) => Finding::ok(ENGINES, format!("engines of kind {kind} answer")),
        Ok(Err(why)) => failure(why),
        Err(_) => failure(format!("nothing came within {LOOK}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use clap::Parser;
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: crate::runtime::config::RunArgs,
    }

    fn config(root: &Path, more: &[&str]) -> Config {
        let root = format!("--kubelet-root={}", root.display());
        let args = ["lifeboat", "--node-name=a", "--allow-loopback-pods", &root];
        Cli::try_parse_from(args.iter().chain(more)).unwrap().run.validate().unwrap()
    }

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"namespace": "chat", "name": "a", "uid": "u-1", "annotations": {"lifeboat.dev/engine": "files",
                "lifeboat.dev/state-volume": "state", "lifeboat.dev/compat-key": "m"}},
            "spec": {"volumes": [{"name": "state", "emptyDir": {}}],
                "containers": [{"name": "engine", "volumeMounts": [{"name": "state", "mountPath": "/state"}]}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "engine", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "state": {"running": {}}}]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    async fn found(root: &Path, pod: Pod) -> Vec<(&'static str, Severity)> {
        let found = pods(&config(root, &[]), &Ok(vec![pod])).await;
        found.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    fn volume(root: &Path) {
        std::fs::create_dir_all(root.join("pods/u-1/volumes/kubernetes.io~empty-dir/state")).unwrap();
    }

    #[tokio::test]
    async fn a_volume_that_opens_and_an_engine_that_answers_are_as_they_should_be() {
        let root = tempfile::tempdir().unwrap();
        volume(root.path());
        assert_eq!(found(root.path(), pod(|_| ())).await, [(VOLUMES, Severity::Ok), (ENGINES, Severity::Ok)]);
    }

    #[tokio::test]
    async fn without_the_kubelets_folder_nothing_else_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(found(root.path(), pod(|_| ())).await, [(VOLUMES, Severity::Failure)]);
    }

    #[tokio::test]
    async fn a_volume_that_is_not_there_is_a_failure_of_a_pod_that_runs() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("pods")).unwrap();
        assert_eq!(found(root.path(), pod(|_| ())).await, [(VOLUMES, Severity::Failure)]);
        let pending = pod(|pod| pod["status"] = json!({"phase": "Pending"}));
        assert_eq!(found(root.path(), pending).await, [(VOLUMES, Severity::Skipped)]);
    }

    #[tokio::test]
    async fn an_engine_beside_a_container_that_is_down_is_asked() {
        let root = tempfile::tempdir().unwrap();
        volume(root.path());
        let beside_a_crash = pod(|pod| {
            pod["status"]["containerStatuses"].as_array_mut().unwrap().push(
                json!({"name": "proxy", "image": "p",
                "imageID": "p", "ready": false, "restartCount": 9,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
            );
        });
        assert_eq!(
            found(root.path(), beside_a_crash).await,
            [(VOLUMES, Severity::Ok), (ENGINES, Severity::Ok)]
        );
    }

    #[tokio::test]
    async fn an_engine_where_nobody_listens_is_a_failure_that_names_the_port() {
        let root = tempfile::tempdir().unwrap();
        volume(root.path());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dead = pod(|pod| {
            pod["metadata"]["annotations"] = json!({"lifeboat.dev/engine": "http", "lifeboat.dev/port": port.to_string(),
                "lifeboat.dev/state-volume": "state"});
            pod["status"]["podIP"] = json!("127.0.0.1");
        });
        let found = pods(&config(root.path(), &[]), &Ok(vec![dead])).await;
        assert_eq!((found[1].check, found[1].severity), (ENGINES, Severity::Failure), "{found:?}");
        assert!(found[1].what.contains(&port.to_string()), "{found:?}");
    }

    #[tokio::test]
    async fn an_agent_that_is_not_here_is_skipped_and_one_that_waits_says_for_what() {
        let root = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (found, facts) = agent(&config(root.path(), &[&format!("--admin-addr={port}")])).await;
        assert_eq!(found[0].severity, Severity::Skipped);
        assert!(facts.is_none());
        assert!(judge_unready("waiting for: store\n").what.ends_with("waiting for: store"));
    }
}
