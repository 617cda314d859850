//! The agents of a testbed and its fleet role: where they are, whether they are ready, what they log.

use super::{Testbed, condition};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::time::Duration;

impl Testbed {
    /// The agents' pods; the fleet role's are in the same namespace.
    ///
    /// # Errors
    /// The request failed.
    pub async fn agents(&self) -> Result<Vec<Value>> {
        self.list(&component("agent")).await
    }

    /// The pods of the fleet role; see [`Testbed::start_fleet`].
    ///
    /// # Errors
    /// The request failed.
    pub async fn fleet(&self) -> Result<Vec<Value>> {
        self.list(&component("fleet")).await
    }

    /// Starts the fleet role, of which the testbed's manifests have no replica, and waits until two are ready.
    ///
    /// # Errors
    /// They are not within a minute.
    pub async fn start_fleet(&self, orphan_after: Duration) -> Result<Vec<Value>> {
        let env = json!([{"name": "LIFEBOAT_ORPHAN_AFTER", "value": format!("{}s", orphan_after.as_secs())}]);
        let patch = json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "fleet", "env": env}]}}}});
        let patch = patch.to_string();
        self.kubectl(&["-n", "lifeboat-system", "patch", "deployment", "lifeboat-fleet", "-p", &patch])?;
        self.until("two replicas of the fleet role", Duration::from_secs(60), async |bed| {
            let pods = bed.fleet().await?;
            let ready = pods.iter().filter(|pod| condition(pod, "Ready") == Some("True")).count();
            match ready == 2 && pods.len() == 2 {
                true => Ok(Some(pods)),
                false => bail!("{}", pods.iter().map(pod_line).collect::<String>()),
            }
        })
        .await
    }

    /// Waits until the agent runs and is ready on every node that is ready.
    ///
    /// # Errors
    /// It is not within a minute.
    pub async fn agents_ready(&self) -> Result<()> {
        self.until("the agents to be ready", Duration::from_secs(60), async |bed| {
            let nodes = bed.list("/api/v1/nodes").await?;
            let nodes: Vec<&str> = nodes
                .iter()
                .filter(|node| condition(node, "Ready") == Some("True"))
                .filter_map(|node| node["metadata"]["name"].as_str())
                .collect();
            let agents = bed.agents().await?;
            let ready = |node: &str| {
                agents
                    .iter()
                    .any(|pod| pod["spec"]["nodeName"] == node && condition(pod, "Ready") == Some("True"))
            };
            match nodes.iter().find(|node| !ready(node)) {
                None => Ok(Some(())),
                Some(node) => {
                    bail!("none is ready on {node}: {}", agents.iter().map(pod_line).collect::<String>())
                }
            }
        })
        .await
    }

    /// The log of a node's agent, for a failure's message; never what a test asserts on.
    pub async fn agent_log(&self, node: &str) -> String {
        let agents = self.agents().await.unwrap_or_default();
        let agent = agents.iter().find(|pod| pod["spec"]["nodeName"] == node);
        let name = agent.and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default();
        self.kubectl(&["-n", "lifeboat-system", "logs", name, "--tail=200"])
            .unwrap_or_else(|error| format!("{error:#}"))
    }
}

/// The list of a component's pods.
fn component(name: &str) -> String {
    format!("/api/v1/namespaces/lifeboat-system/pods?labelSelector=app.kubernetes.io%2Fcomponent%3D{name}")
}

fn pod_line(pod: &Value) -> String {
    let text = |path: &str| pod.pointer(path).map(Value::to_string).unwrap_or_default();
    format!(
        "{} on {}: {} {}; ",
        text("/metadata/name"),
        text("/spec/nodeName"),
        text("/status/phase"),
        text("/status/containerStatuses/0/state")
    )
}
