//! The token of node-a's agent, taken from its pod: what it can do to anything outside node-a is refused by RBAC, by the
//! admission policies or by the limits of impersonation, and what it is for on node-a is allowed with the same request.
//!
//! The token is the one that the kubelet mounted, read from the node's disk. Requests are sent as the agent sends them, and
//! others besides; what counts is the code and who refused.

use crate::cast::{Template, leaves, node, ready, uid};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::caller::{Caller, mounted_token};

/// Who must have refused: a part of the message.
pub(crate) const RBAC: &str = "cannot ";
const IMPERSONATION: &str = "cannot impersonate";
pub(crate) const POLICY: &str = "denied request: ";
const NODE_RESTRICTION: &str = "spec.nodeName set to itself";

/// One request.
pub(crate) struct Try {
    method: &'static str,
    path: String,
    body: Value,
    impersonated: Vec<&'static str>,
}

pub(crate) fn of(method: &'static str, path: impl Into<String>, body: Value) -> Try {
    Try { method, path: path.into(), body, impersonated: Vec::new() }
}

impl Try {
    fn by(mut self, impersonated: &[&'static str]) -> Self {
        self.impersonated = impersonated.to_vec();
        self
    }

    async fn code(&self, thief: &Caller) -> Result<(u16, String)> {
        let answer = thief.ask(self.method, &self.path, &self.body, &self.impersonated).await?;
        let message = answer.body["message"].as_str().unwrap_or_default().to_owned();
        Ok((answer.code, message))
    }

    pub(crate) async fn is_refused(&self, thief: &Caller, by: &str) -> Result<()> {
        let (code, message) = self.code(thief).await?;
        let shown = format!("{} {} as {:?}: {code} {message}", self.method, self.path, self.impersonated);
        ensure!(code == 403 && message.contains(by), "not refused as it should be ({by:?}): {shown}");
        Ok(())
    }

    pub(crate) async fn is_done(&self, thief: &Caller) -> Result<()> {
        let (code, message) = self.code(thief).await?;
        let shown = format!("{} {} as {:?}: {code} {message}", self.method, self.path, self.impersonated);
        ensure!((200..300).contains(&code), "not allowed: {shown}");
        Ok(())
    }
}

pub(crate) fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn note(node: &str) -> Try {
    of(
        "PATCH",
        format!("/api/v1/nodes/{node}"),
        json!({"metadata": {"annotations": {"lifeboat.dev/note": "x"}}}),
    )
}

fn cordon(node: &str) -> Try {
    of("PATCH", format!("/api/v1/nodes/{node}"), json!({"spec": {"unschedulable": true}}))
}

pub(crate) fn open_gate(pod: &str) -> Try {
    let condition =
        json!({"type": "lifeboat.dev/restored", "status": "True", "reason": "Stolen", "message": "x"});
    of("PATCH", format!("{}/status", pod_path(pod)), json!({"status": {"conditions": [condition]}}))
}

pub(crate) fn delete(pod: &str) -> Try {
    of("DELETE", pod_path(pod), json!({"gracePeriodSeconds": 1}))
}

pub(crate) fn evict(pod: &str) -> Try {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "default"}});
    of("POST", format!("{}/eviction", pod_path(pod)), body)
}

/// An Event that claims to come from `source`.
fn event(about: Value, source: &str) -> Try {
    let body = json!({"metadata": {"generateName": "stolen-", "namespace": "default"}, "involvedObject": about,
        "reason": "Stolen", "message": "x", "type": "Normal", "reportingComponent": "lifeboat",
        "reportingInstance": "lifeboat", "action": "Stolen", "source": {"component": "lifeboat", "host": source},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1});
    of("POST", "/api/v1/namespaces/default/events", body)
}

fn node_object(name: &str) -> Value {
    json!({"kind": "Node", "apiVersion": "v1", "name": name, "uid": name})
}

const OWN: &[&str] = &["system:node:node-a"];
const OTHER: &[&str] = &["system:node:node-b"];
const OTHER_WITH_GROUP: &[&str] = &["system:node:node-b", "system:nodes"];
const ADMIN: &[&str] = &["admin", "system:masters"];

/// Two nodes with agents, pods `mine…` on node-a and `theirs` on node-b, and the token of node-a's agent.
async fn robbed() -> Result<(Testbed, Caller)> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let mine = ["mine", "mine-to-evict", "mine-to-delete"].map(|app| Template::plain(app).on("node-a").pod());
    bed.apply(&mine)?;
    let mut elsewhere = Template::plain("theirs-too").on("node-b").pod();
    elsewhere["metadata"]["namespace"] = "elsewhere".into();
    // With its account, which the controller would make a moment later than the pod asks for it.
    bed.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "elsewhere"}}),
    ])?;
    bed.apply(&[Template::plain("theirs").on("node-b").pod(), elsewhere])?;
    for (app, node) in
        [("mine", "node-a"), ("mine-to-evict", "node-a"), ("mine-to-delete", "node-a"), ("theirs", "node-b")]
    {
        ready(&bed, app, 1, Some(node)).await?;
    }
    let agents = bed.agents().await?;
    let agent = agents.iter().find(|pod| pod["spec"]["nodeName"] == "node-a").context("no agent")?;
    let thief = Caller::with_token(&bed, &mounted_token(&bed, "node-a", uid(agent))?).await?;
    Ok((bed, thief))
}

#[tokio::test]
async fn a_stolen_token_changes_its_own_node_and_no_other() -> Result<()> {
    let (bed, thief) = robbed().await?;

    // The policies: the same request, the own node and another's.
    for on in [note, cordon] {
        on("node-b").is_refused(&thief, POLICY).await?;
        on("node-a").is_done(&thief).await?;
    }
    open_gate("theirs").is_refused(&thief, POLICY).await?;
    open_gate("mine").is_done(&thief).await?;
    delete("theirs").is_refused(&thief, POLICY).await?;
    delete("mine-to-delete").is_done(&thief).await?;
    event(node_object("node-b"), "node-b").is_refused(&thief, POLICY).await?;
    event(node_object("node-b"), "node-a").is_refused(&thief, POLICY).await?;
    event(node_object("node-a"), "node-a").is_done(&thief).await?;
    let theirs = json!({"kind": "Pod", "apiVersion": "v1", "name": "theirs", "namespace": "default"});
    event(theirs.clone(), "node-b").is_refused(&thief, POLICY).await?;
    // The one thing that reaches beyond the node (manifests/README.md): an Event that says where it came from.
    event(theirs, "node-a").is_done(&thief).await?;
    let elsewhere = "/api/v1/namespaces/elsewhere/pods/theirs-too";
    of("DELETE", elsewhere, json!({})).is_refused(&thief, POLICY).await?;
    // Not everything of the own node either.
    let label = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    of("PATCH", "/api/v1/nodes/node-a", label).is_refused(&thief, POLICY).await?;
    let address = json!({"status": {"phase": "Failed"}});
    of("PATCH", format!("{}/status", pod_path("mine")), address).is_refused(&thief, POLICY).await?;

    // Leases: claims in the agents' own namespace, by name, and no node's heartbeat.
    let leases = |namespace: &str, name: &str| {
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases{name}")
    };
    let lease =
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lifeboat-x"}});
    of("POST", leases("lifeboat-system", ""), lease).is_done(&thief).await?;
    of("GET", leases("lifeboat-system", "/lifeboat-x"), Value::Null).is_done(&thief).await?;
    of("GET", leases("lifeboat-system", ""), Value::Null).is_refused(&thief, RBAC).await?;
    of("DELETE", leases("lifeboat-system", "/lifeboat-x"), json!({})).is_refused(&thief, RBAC).await?;
    of("GET", leases("kube-node-lease", "/node-b"), Value::Null).is_refused(&thief, RBAC).await?;

    let election = leases("lifeboat-system", "/lifeboat-fleet");
    let seat = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lifeboat-fleet"}});
    of("POST", leases("lifeboat-system", ""), seat.clone()).is_refused(&thief, POLICY).await?;
    let seat = bed.create(&leases("lifeboat-system", ""), &seat).await?;
    of("PUT", election, seat).is_refused(&thief, POLICY).await?;

    // Impersonation: the own node, to evict its own pods, and nothing else.
    evict("theirs").by(OWN).is_refused(&thief, NODE_RESTRICTION).await?;
    evict("theirs").by(OTHER).is_refused(&thief, IMPERSONATION).await?;
    evict("theirs").by(OTHER_WITH_GROUP).is_refused(&thief, IMPERSONATION).await?;
    evict("theirs").by(ADMIN).is_refused(&thief, IMPERSONATION).await?;
    delete("theirs").by(OWN).is_refused(&thief, IMPERSONATION).await?;
    for as_node in [OWN, OTHER] {
        of("PATCH", "/api/v1/nodes/node-b/status", json!({}))
            .by(as_node)
            .is_refused(&thief, IMPERSONATION)
            .await?;
        of("GET", "/api/v1/namespaces/lifeboat-system/secrets/testbed-s3", Value::Null)
            .by(as_node)
            .is_refused(&thief, IMPERSONATION)
            .await?;
    }
    evict("mine-to-evict").by(OWN).is_done(&thief).await?;

    // RBAC: what the account may not do anywhere.
    for name in ["node-a", "node-b"] {
        of("PUT", format!("/api/v1/nodes/{name}"), json!({})).is_refused(&thief, RBAC).await?;
        of("PATCH", format!("/api/v1/nodes/{name}/status"), json!({})).is_refused(&thief, RBAC).await?;
        of("DELETE", format!("/api/v1/nodes/{name}"), json!({})).is_refused(&thief, RBAC).await?;
    }
    for pod in ["mine", "theirs"] {
        of("PATCH", pod_path(pod), json!({"metadata": {"labels": {"app": "x"}}}))
            .is_refused(&thief, RBAC)
            .await?;
        evict(pod).is_refused(&thief, RBAC).await?;
        of("POST", format!("{}/exec?command=id", pod_path(pod)), Value::Null)
            .is_refused(&thief, RBAC)
            .await?;
    }
    for namespace in ["default", "kube-system", "lifeboat-system"] {
        let path = |what: &str| format!("/api/v1/namespaces/{namespace}/{what}");
        for what in ["secrets", "configmaps", "serviceaccounts"] {
            of("GET", path(what), Value::Null).is_refused(&thief, RBAC).await?;
        }
        of("POST", path("pods"), json!({})).is_refused(&thief, RBAC).await?;
        of("DELETE", path("pods"), json!({})).is_refused(&thief, RBAC).await?;
    }
    let token = "/api/v1/namespaces/lifeboat-system/serviceaccounts/lifeboat-agent/token";
    of("POST", token, json!({})).is_refused(&thief, RBAC).await?;
    let daemon = "/apis/apps/v1/namespaces/lifeboat-system/daemonsets/lifeboat";
    of("PATCH", daemon, json!({})).is_refused(&thief, RBAC).await?;
    let policy =
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/lifeboat-agent-nodes";
    of("DELETE", policy, json!({})).is_refused(&thief, RBAC).await?;

    // A token of the account that names no node changes nothing at all.
    let bare = bed.kubectl(&["-n", "lifeboat-system", "create", "token", "lifeboat-agent"])?;
    let bare = Caller::with_token(&bed, &bare).await?;
    note("node-a").is_refused(&bare, "names no node").await?;
    delete("mine").is_refused(&bare, "names no node").await?;
    evict("mine").by(OWN).is_refused(&bare, IMPERSONATION).await?;

    // And nothing came of it.
    let theirs = bed.get(&pod_path("theirs")).await?.context("it was deleted")?;
    ensure!(!leaves(&theirs) && !theirs.to_string().contains("Stolen"), "{theirs}");
    let theirs = bed.get(elsewhere).await?.context("it was deleted in its namespace")?;
    ensure!(!leaves(&theirs) && node(&theirs) == "node-b", "{theirs}");
    let other = bed.get("/api/v1/nodes/node-b").await?.unwrap_or_default();
    ensure!(other["spec"]["unschedulable"] != true, "node-b is cordoned");
    Ok(())
}

#[tokio::test]
async fn each_protection_that_is_taken_away_lets_a_stolen_token_through() -> Result<()> {
    let (bed, thief) = robbed().await?;
    let until_done = async |what: &str, request: &Try| {
        bed.until(what, Duration::from_secs(30), async |_| request.is_done(&thief).await.map(Some)).await
    };

    note("node-b").is_refused(&thief, POLICY).await?;
    bed.kubectl(&["delete", "validatingadmissionpolicybinding", "lifeboat-agent-nodes"])?;
    until_done("the policy to be gone", &note("node-b")).await?;

    let secrets = of("GET", "/api/v1/namespaces/lifeboat-system/secrets", Value::Null);
    secrets.is_refused(&thief, RBAC).await?;
    widen(&bed, "lifeboat-agent", json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}))?;
    until_done("the role to be wider", &secrets).await?;

    let as_other = evict("theirs").by(OTHER_WITH_GROUP);
    as_other.is_refused(&thief, IMPERSONATION).await?;
    let impersonate = json!({"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]});
    widen(&bed, "lifeboat-agent-eviction", impersonate)?;
    until_done("anybody to be impersonated", &as_other).await
}

/// A role with one rule more.
fn widen(bed: &Testbed, role: &str, rule: Value) -> Result<()> {
    let patch = json!([{"op": "add", "path": "/rules/-", "value": rule}]).to_string();
    bed.kubectl(&["patch", "clusterrole", role, "--type=json", "-p", &patch]).map(drop)
}
