//! The token of a replica of the fleet role, taken from its pod: it opens gates, and nothing else.
//!
//! As in [`crate::stolen_token`]: the token is the one that the kubelet mounted, what counts is the code and who refused,
//! and what the fleet role itself does is allowed with the same request.

use crate::cast::{Template, name, node, uid};
use crate::stolen_token::{POLICY, RBAC, Try, delete, evict, of, pod_path};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::caller::{Caller, mounted_token};

/// A patch of a pod's status with one condition.
fn condition(pod: &str, condition: &str, status: &str, reason: &str) -> Try {
    let condition = json!({"type": condition, "status": status, "reason": reason, "message": "x"});
    of("PATCH", format!("{}/status", pod_path(pod)), json!({"status": {"conditions": [condition]}}))
}

fn event(about: &str, reason: &str, instance: &str) -> Try {
    let about = json!({"kind": about, "apiVersion": "v1", "name": "gated", "namespace": "default"});
    let body = json!({"metadata": {"generateName": "stolen-", "namespace": "default"}, "involvedObject": about,
        "reason": reason, "message": "x", "type": "Warning", "reportingComponent": "lifeboat",
        "reportingInstance": instance, "action": "Opened", "source": {"component": "lifeboat", "host": "node-a"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1});
    of("POST", "/api/v1/namespaces/default/events", body)
}

#[tokio::test]
async fn the_fleet_roles_token_opens_gates_and_nothing_else() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    // So long that it does nothing by itself here.
    let fleet = bed.start_fleet(Duration::from_secs(3600)).await?;
    let replica = &fleet[0];
    let thief = Caller::with_token(&bed, &mounted_token(&bed, node(replica), uid(replica))?).await?;
    // Bound nowhere, so that no agent and no kubelet changes them meanwhile.
    let nowhere = |app: &str| Template::plain(app).on("nowhere");
    let gate = json!([{"conditionType": "lifeboat.dev/restored"}]);
    bed.apply(&[nowhere("gated").edit(|spec| spec["readinessGates"] = gate).pod(), nowhere("other").pod()])?;
    const GATE: &str = "lifeboat.dev/restored";

    // The policy: the same request, to a pod with the gate and to one without; the own condition and others.
    condition("other", GATE, "True", "NoAgent").is_refused(&thief, POLICY).await?;
    condition("gated", GATE, "False", "NoAgent").is_refused(&thief, POLICY).await?;
    condition("gated", GATE, "True", "Restored").is_refused(&thief, POLICY).await?;
    condition("gated", "Ready", "True", "NoAgent").is_refused(&thief, POLICY).await?;
    condition("gated", "DisruptionTarget", "True", "NoAgent").is_refused(&thief, POLICY).await?;
    let status = |body: Value| of("PATCH", format!("{}/status", pod_path("gated")), body);
    for more in [
        json!({"metadata": {"labels": {"app": "x"}}}),
        json!({"metadata": {"annotations": {"lifeboat.dev/role": "shadow"}}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"status": {"podIP": "10.0.0.1"}}),
    ] {
        status(more).is_refused(&thief, POLICY).await?;
    }
    let wrong = json!({"metadata": {"uid": "another"}, "status": {"conditions": [
        {"type": GATE, "status": "True", "reason": "NoAgent", "message": "x"}]}});
    let answer = thief.ask("PATCH", &format!("{}/status", pod_path("gated")), &wrong, &[]).await?;
    ensure!(matches!(answer.code, 409 | 422), "the uid is no precondition: {answer:?}");
    condition("gated", GATE, "True", "NoAgent").is_done(&thief).await?;

    event("Pod", "Stolen", name(replica)).is_refused(&thief, POLICY).await?;
    event("Pod", "GateOpenedByFleet", "another").is_refused(&thief, POLICY).await?;
    event("Node", "GateOpenedByFleet", name(replica)).is_refused(&thief, POLICY).await?;
    event("Pod", "GateOpenedByFleet", name(replica)).is_done(&thief).await?;

    // One Lease, its own.
    let leases = |namespace: &str, name: &str| {
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases{name}")
    };
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lifeboat-claim"}});
    of("POST", leases("lifeboat-system", ""), lease.clone()).is_refused(&thief, POLICY).await?;
    bed.create(&leases("lifeboat-system", ""), &lease).await?;
    for (method, path) in [
        ("GET", leases("lifeboat-system", "/lifeboat-claim")),
        ("PUT", leases("lifeboat-system", "/lifeboat-claim")),
        ("GET", leases("lifeboat-system", "")),
        ("DELETE", leases("lifeboat-system", "/lifeboat-fleet")),
        ("GET", leases("kube-node-lease", "/node-a")),
    ] {
        let body = if method == "PUT" { lease.clone() } else { Value::Null };
        of(method, path, body).is_refused(&thief, RBAC).await?;
    }
    of("GET", leases("lifeboat-system", "/lifeboat-fleet"), Value::Null).is_done(&thief).await?;

    // RBAC: everything else, of the agents' rights too.
    let pods = "/api/v1/pods?limit=1";
    of("GET", pods, Value::Null).is_done(&thief).await?;
    of("GET", pod_path("gated"), Value::Null).is_refused(&thief, RBAC).await?;
    of("PATCH", pod_path("gated"), json!({"metadata": {"labels": {"app": "x"}}}))
        .is_refused(&thief, RBAC)
        .await?;
    delete("gated").is_refused(&thief, RBAC).await?;
    evict("gated").is_refused(&thief, RBAC).await?;
    // Nodes it may list: which of them went is for it to know.
    of("GET", "/api/v1/nodes?limit=1", Value::Null).is_done(&thief).await?;
    for what in ["/api/v1/nodes/node-a", "/api/v1/secrets", "/apis/apps/v1/deployments"] {
        of("GET", what, Value::Null).is_refused(&thief, RBAC).await?;
    }
    of("PATCH", "/api/v1/nodes/node-a", json!({"spec": {"unschedulable": true}}))
        .is_refused(&thief, RBAC)
        .await?;
    for what in ["secrets", "configmaps", "serviceaccounts"] {
        of("GET", format!("/api/v1/namespaces/lifeboat-system/{what}"), Value::Null)
            .is_refused(&thief, RBAC)
            .await?;
    }
    let token = "/api/v1/namespaces/lifeboat-system/serviceaccounts/lifeboat-fleet/token";
    of("POST", token, json!({})).is_refused(&thief, RBAC).await?;
    let as_node = thief.ask("GET", "/api/v1/nodes/node-a", &Value::Null, &["system:node:node-a"]).await?;
    ensure!(as_node.code == 403, "it may impersonate: {as_node:?}");

    // A token of the account that names no pod changes nothing.
    let bare = bed.kubectl(&["-n", "lifeboat-system", "create", "token", "lifeboat-fleet"])?;
    let bare = Caller::with_token(&bed, &bare).await?;
    condition("gated", GATE, "True", "NoAgent").is_refused(&bare, "names no pod").await?;

    // And nothing came of it.
    let gated = bed.get(&pod_path("gated")).await?.context("it was deleted")?;
    ensure!(!gated.to_string().contains("DisruptionTarget"), "{gated}");
    let other = bed.get(&pod_path("other")).await?.context("it was deleted")?;
    ensure!(!other.to_string().contains(GATE), "{other}");
    Ok(())
}

#[tokio::test]
#[ignore = "the way back of the one before it: LIFEBOAT_LONG=1 tests/run nodes"]
async fn without_its_policy_the_fleet_roles_token_could_set_any_condition() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    let replica = bed.start_fleet(Duration::from_secs(3600)).await?.remove(0);
    let thief = Caller::with_token(&bed, &mounted_token(&bed, node(&replica), uid(&replica))?).await?;
    bed.apply(&[Template::plain("other").on("nowhere").pod()])?;
    let ready = condition("other", "Ready", "True", "Stolen");
    ready.is_refused(&thief, POLICY).await?;
    bed.kubectl(&["delete", "validatingadmissionpolicybinding", "lifeboat-fleet"])?;
    bed.until("the policy to be gone", Duration::from_secs(30), async |_| {
        ready.is_done(&thief).await.map(Some)
    })
    .await
}
