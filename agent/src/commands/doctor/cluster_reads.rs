//! What is read of the cluster, once, for all checks. Every read may fail by itself; judging is for others.

use crate::kube::call::{Call, is_name};
use crate::kube::{Cluster, ClusterError};
use crate::pods::conditions::is_gated;
use evacuation::moment::{Moment, Span};
use host::{causes, clock};
use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// For one answer.
pub const PATIENCE: Span = Span::from_secs(8);
/// For a list of many pages.
const LONG: Span = Span::from_secs(25);
/// Pods of one page.
const PAGE: usize = 500;

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// For people.
    pub why: String,
    /// Whoever asks has no right to it: nothing is wrong with what was asked for.
    pub forbidden: bool,
}

/// Something that was read, or not.
pub type ReadResult<T> = Result<T, Unread>;

/// Who asks, as the API server sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The user's name.
    pub name: String,
    /// The node in its token.
    pub node: Option<String>,
}

/// Major and minor, and as it calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The minor version; the major one is 1.
    pub minor: u32,
    /// `v1.36.1-eks-1234`.
    pub text: String,
}

/// Everything that was read.
#[derive(Debug)]
pub struct ClusterReads {
    /// Who asks.
    pub who: ReadResult<Who>,
    /// Which API server.
    pub version: ReadResult<Version>,
    /// By how much its clock is ahead of this machine's, milliseconds.
    pub ahead: Option<i64>,
    /// The API groups that there are.
    pub groups: ReadResult<Vec<String>>,
    /// The pods that concern us: opted in, ours, other handlers'. Of the one node, or of all.
    pub pods: ReadResult<Vec<Pod>>,
    /// The nodes, or the one.
    pub nodes: ReadResult<Vec<Node>>,
    /// All disruption budgets.
    pub budgets: ReadResult<Vec<PodDisruptionBudget>>,
    /// The agents' DaemonSet.
    pub daemon_set: ReadResult<Option<DaemonSet>>,
    /// The fleet role's Deployment.
    pub fleet: ReadResult<Option<Deployment>>,
}

/// Reads everything at once, of one node or of all.
pub async fn look(cluster: &Cluster, node: Option<&str>, namespace: &str) -> ClusterReads {
    let apps = format!("/apis/apps/v1/namespaces/{namespace}");
    let (who, version, groups, pods, nodes, budgets, daemon_set, fleet) = tokio::join!(
        who(cluster),
        version(cluster),
        groups(cluster),
        pods(cluster, node),
        nodes(cluster, node),
        all::<PodDisruptionBudget>(cluster, "/apis/policy/v1/poddisruptionbudgets", "disruption budgets"),
        one::<DaemonSet>(cluster, format!("{apps}/daemonsets/lifeboat"), "DaemonSet lifeboat"),
        one::<Deployment>(cluster, format!("{apps}/deployments/lifeboat-fleet"), "Deployment lifeboat-fleet"),
    );
    let (who, ahead) = match who {
        Ok((who, ahead)) => (Ok(who), ahead),
        Err(unread) => (Err(unread), None),
    };
    ClusterReads { who, version, ahead, groups, pods, nodes, budgets, daemon_set, fleet }
}

/// One object; `None` where there is none.
pub async fn one<T: DeserializeOwned>(cluster: &Cluster, path: String, what: &str) -> ReadResult<Option<T>> {
    match cluster.send(Call::get(path, what), soon()).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(unread(&error)),
    }
}

/// By how much a clock that said `date` is ahead of ours, milliseconds: the least that fits what was seen. A `Date` has
/// whole seconds, and the answer took from `before` to `after`.
pub fn ahead(before: Timestamp, after: Timestamp, date: Timestamp) -> i64 {
    let (before, after, date) = (before.as_millisecond(), after.as_millisecond(), date.as_millisecond());
    let (least, most) = (date - after, date + 999 - before);
    if least > 0 { least } else { most.min(0) }
}

fn soon() -> Moment {
    clock::now() + PATIENCE
}

pub(super) fn unread(error: &ClusterError) -> Unread {
    let forbidden =
        matches!(error, ClusterError::Answered { status, .. } if matches!(status.code, 401 | 403));
    Unread { why: causes::chain(error), forbidden }
}

async fn who(cluster: &Cluster) -> ReadResult<(Who, Option<i64>)> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned();
    let before = Timestamp::now();
    let sent =
        cluster.send_dated::<Value>(Call::create(path, "a review of who this is", review), soon()).await;
    let (answer, date) = sent.map_err(|error| unread(&error))?;
    let ahead = date.map(|date| ahead(before, Timestamp::now(), date));
    let user = &answer["status"]["userInfo"];
    let node = user["extra"]["authentication.kubernetes.io/node-name"][0].as_str().map(str::to_owned);
    Ok((Who { name: user["username"].as_str().unwrap_or_default().to_owned(), node }, ahead))
}

async fn version(cluster: &Cluster) -> ReadResult<Version> {
    let call = Call::get("/version".into(), "the API server's version");
    let answer: Value = cluster.send(call, soon()).await.map_err(|error| unread(&error))?;
    // EKS says "36+".
    let digits: String =
        answer["minor"].as_str().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    let text = answer["gitVersion"].as_str().unwrap_or_default().to_owned();
    let strange = || Unread { why: format!("its version {answer} is none"), forbidden: false };
    Ok(Version { minor: digits.parse().map_err(|_| strange())?, text })
}

async fn groups(cluster: &Cluster) -> ReadResult<Vec<String>> {
    let call = Call::get("/apis".into(), "the API groups");
    let answer: Value = cluster.send(call, soon()).await.map_err(|error| unread(&error))?;
    let names = answer["groups"].as_array().into_iter().flatten().filter_map(|group| group["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

async fn all<T>(cluster: &Cluster, path: &str, what: &str) -> ReadResult<Vec<T>>
where
    T: k8s_openapi::ListableResource + DeserializeOwned,
{
    let call = Call::get(path.to_owned(), what);
    let list: List<T> = cluster.send(call, clock::now() + LONG).await.map_err(|error| unread(&error))?;
    Ok(list.items)
}

async fn nodes(cluster: &Cluster, node: Option<&str>) -> ReadResult<Vec<Node>> {
    let Some(node) = node else { return all(cluster, "/api/v1/nodes", "nodes").await };
    let found = one(cluster, format!("/api/v1/nodes/{node}"), &format!("node {node}")).await?;
    let absent = || Unread {
        why: format!("there is no node {node}: set NODE_NAME to spec.nodeName"),
        forbidden: false,
    };
    Ok(vec![found.ok_or_else(absent)?])
}

/// Page by page, and of each page only what concerns us: a cluster may have many thousands.
async fn pods(cluster: &Cluster, node: Option<&str>) -> ReadResult<Vec<Pod>> {
    let deadline = clock::now() + LONG;
    let on = node.filter(|node| is_name(node)).map(|node| format!("&fieldSelector=spec.nodeName%3D{node}"));
    let on = on.unwrap_or_default();
    let (mut kept, mut from) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/pods?limit={PAGE}{on}{from}");
        let list: List<Pod> =
            cluster.send(Call::get(path, "pods"), deadline).await.map_err(|error| unread(&error))?;
        kept.extend(list.items.into_iter().filter(concerns_us));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            // It is base64 for addresses; anything else cannot stand in one.
            Some(token) if token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)) => {
                from = format!("&continue={token}");
            }
            _ => return Ok(kept),
        }
    }
}

/// The pod asks for something of ours, or would like to.
pub fn opted_in(pod: &Pod) -> bool {
    let said = pod.metadata.annotations.iter().flatten();
    let lives = !matches!(
        pod.status.as_ref().and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    );
    let annotated = said.into_iter().any(|(key, _)| key.starts_with(evacuation::names::PREFIX));
    lives && pod.metadata.deletion_timestamp.is_none() && (annotated || is_gated(pod))
}

/// Of a component of ours: `agent` or `fleet`.
pub fn is_ours(pod: &Pod, component: &str) -> bool {
    let label =
        |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    label("app.kubernetes.io/name") == Some("lifeboat")
        && label("app.kubernetes.io/component") == Some(component)
}

/// `namespace/name`.
pub fn name(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

fn concerns_us(pod: &Pod) -> bool {
    opted_in(pod) || is_ours(pod, "agent") || crate::commands::doctor::other_drainers::is_one(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn a_clock_is_ahead_by_the_least_that_fits_the_answer() {
        // Whole seconds: 10.0 s may be anything up to 10.999 s.
        assert_eq!(ahead(at(10_400), at(10_500), at(10_000)), 0);
        assert_eq!(ahead(at(10_400), at(10_500), at(15_000)), 4_500);
        assert_eq!(ahead(at(10_400), at(10_500), at(5_000)), -4_401);
    }

    #[test]
    fn a_pod_concerns_us_by_an_annotation_or_by_its_gate_while_it_lives() {
        let pod = |value: Value| serde_json::from_value::<Pod>(value).unwrap();
        let gate = json!({"containers": [], "readinessGates": [{"conditionType": "lifeboat.dev/restored"}]});
        let said = json!({"annotations": {"lifeboat.dev/engine": "http"}});
        assert!(opted_in(&pod(json!({"metadata": said, "spec": {"containers": []}}))));
        assert!(opted_in(&pod(json!({"metadata": {}, "spec": gate}))));
        assert!(!opted_in(&pod(json!({"metadata": said, "status": {"phase": "Failed"}}))));
        assert!(!opted_in(&pod(json!({"metadata": {"annotations": {"other": "x"}}}))));
    }
}
