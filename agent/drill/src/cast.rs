//! The pods of the drill: who they are, and their objects.

use serde::Serialize;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The namespace they all live in.
pub const NAMESPACE: &str = "chat";

/// The name of their state volume.
pub const VOLUME: &str = "state";

/// Where a container sees it.
pub const MOUNT: &str = "/state";

/// The condition that a replacement's readiness waits for.
pub const GATE: &str = "lifeboat.dev/restored";

/// The file in the state volume with the engine's bearer token.
pub const TOKEN_FILE: &str = "token";

/// The bearer token of every engine: the pods put it into their state volumes.
pub const TOKEN: &str = "drill-engine-token";

/// The one line of shell by which a pod waits for its save: the preStop of manifests/examples/llama-server.yaml.
pub const HOLD: &str = "until [ \"$(cat /state/.lifeboat/hold 2>/dev/null || echo 0)\" -le \"$(date +%s)\" ]; \
                        do sleep 0.2; done";

/// Of two pods of one workload, which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the leaving node.
    Source,
    /// On the other one.
    Replacement,
}

/// What a pod is to the drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Has state, and waits for its save inside its own eviction.
    HeldState,
    /// Has state, and is evicted after its save.
    NamedState,
    /// Shed at once, and its controller has no room for another.
    Shadow,
    /// Shed at once; its Job is not run again in the drill.
    Batch,
    /// No state, behind a disruption budget.
    Stateless,
    /// Stays.
    Daemon,
}

/// One workload of the cast, with one pod on the leaving node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The workload's name; its pods' names begin with it.
    pub name: &'static str,
    /// Its part.
    pub part: Part,
    /// The value of its PriorityClass.
    pub priority: i32,
    /// `terminationGracePeriodSeconds`.
    pub grace: u64,
}

/// Who plays, highest priority first.
pub const CAST: &[Member] = &[
    Member { name: "gold", part: Part::HeldState, priority: 1000, grace: 5 },
    Member { name: "silver", part: Part::NamedState, priority: 100, grace: 3 },
    Member { name: "web", part: Part::Stateless, priority: 50, grace: 2 },
    Member { name: "mirror", part: Part::Shadow, priority: 20, grace: 2 },
    Member { name: "nightly", part: Part::Batch, priority: 10, grace: 2 },
    Member { name: "logs", part: Part::Daemon, priority: 2_000_001_000, grace: 2 },
];

/// How the engines of a drill are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineTemplate {
    /// `lifeboat.dev/engine`.
    pub engine: &'static str,
    /// Command and arguments as they stand in the pod: the same for source and replacement.
    pub command: Vec<String>,
    /// The port, the same for every pod: each has an address of its own.
    pub port: u16,
    /// `lifeboat.dev/restore`.
    pub restore: &'static str,
}

impl Member {
    /// The member that a pod's name belongs to.
    pub fn of(pod: &str) -> Option<&'static Member> {
        CAST.iter().find(|member| {
            pod.strip_prefix(member.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    }

    /// Its pods have state to lose.
    pub const fn has_state(&self) -> bool {
        matches!(self.part, Part::HeldState | Part::NamedState)
    }

    /// Shed at the notice.
    pub const fn is_shed(&self) -> bool {
        matches!(self.part, Part::Shadow | Part::Batch)
    }

    /// Is to leave the node.
    pub const fn leaves(&self) -> bool {
        !matches!(self.part, Part::Daemon)
    }

    /// Another pod takes its place on the other node.
    pub const fn is_replaced(&self) -> bool {
        matches!(self.part, Part::HeldState | Part::NamedState | Part::Stateless)
    }

    /// The name of its `n`th pod: a StatefulSet's keeps its name.
    pub fn pod_name(&self, n: u32) -> String {
        match self.part {
            Part::NamedState => format!("{}-0", self.name),
            Part::Daemon => format!("{}-{}", self.name, ["x7k2p", "m4c9d"][(n % 2) as usize]),
            _ => format!("{}-{}-{}", self.name, template_hash(self.name), suffix(n)),
        }
    }

    /// A pod of it, bound to `node` (`None` leaves it Pending).
    pub fn pod(&self, n: u32, node: Option<&str>, engine: &EngineTemplate) -> Value {
        let (kind, owner) = match self.part {
            Part::NamedState => ("StatefulSet", self.name.to_owned()),
            Part::Daemon => ("DaemonSet", self.name.to_owned()),
            Part::Batch => ("Job", format!("{}-29", self.name)),
            _ => ("ReplicaSet", format!("{}-{}", self.name, template_hash(self.name))),
        };
        let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let mut labels = json!({"app": self.name});
        if kind == "ReplicaSet" {
            labels["pod-template-hash"] = json!(template_hash(self.name));
        }
        let mut container = json!({
            "name": "engine", "image": format!("registry.drill/{}:1.0", self.name),
            "imagePullPolicy": "IfNotPresent", "resources": {},
            "ports": [{"containerPort": engine.port, "protocol": "TCP"}],
        });
        let mut annotations = json!({});
        let mut volumes = json!([]);
        let mut gates = json!([]);
        if self.has_state() {
            container["command"] = json!(engine.command);
            container["volumeMounts"] = json!([{"name": VOLUME, "mountPath": MOUNT}]);
            volumes = json!([{"name": VOLUME, "emptyDir": {}}]);
            gates = json!([{"conditionType": GATE}]);
            annotations = json!({
                "lifeboat.dev/engine": engine.engine,
                "lifeboat.dev/port": engine.port.to_string(),
                "lifeboat.dev/state-volume": VOLUME,
                "lifeboat.dev/auth-file": TOKEN_FILE,
                "lifeboat.dev/restore": engine.restore,
            });
        }
        match self.part {
            Part::HeldState => {
                container["lifecycle"] = json!({"preStop": {"exec": {"command": ["/bin/sh", "-c", HOLD]}}});
            }
            Part::Shadow => annotations["lifeboat.dev/role"] = json!("shadow"),
            Part::Batch => annotations["lifeboat.dev/role"] = json!("batch"),
            _ => {}
        }
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.pod_name(n), "namespace": NAMESPACE, "labels": labels, "annotations": annotations,
                "ownerReferences": [{"apiVersion": group, "kind": kind, "name": owner, "controller": true,
                    "blockOwnerDeletion": true, "uid": owner_uid(self.name)}],
            },
            "spec": {
                "containers": [container], "volumes": volumes, "readinessGates": gates,
                "priority": self.priority, "priorityClassName": self.name, "preemptionPolicy": "PreemptLowerPriority",
                "restartPolicy": if self.part == Part::Batch { "Never" } else { "Always" },
                "terminationGracePeriodSeconds": self.grace, "dnsPolicy": "ClusterFirst",
                "schedulerName": "default-scheduler", "enableServiceLinks": true, "securityContext": {},
                "tolerations": self.tolerations(),
            },
            "status": {"phase": "Pending", "qosClass": "BestEffort", "conditions": []},
        });
        if let Some(node) = node {
            pod["spec"]["nodeName"] = json!(node);
        }
        pod
    }

    fn tolerations(&self) -> Value {
        let for_seconds = |key: &str, seconds: Option<u64>| {
            let mut toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
            if let Some(seconds) = seconds {
                toleration["tolerationSeconds"] = json!(seconds);
            }
            toleration
        };
        let (not_ready, unreachable) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
        match self.part {
            // What the DaemonSet controller adds: cordon does not keep it away.
            Part::Daemon => json!([
                for_seconds(not_ready, None),
                for_seconds(unreachable, None),
                {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
            ]),
            _ => json!([for_seconds(not_ready, Some(300)), for_seconds(unreachable, Some(300))]),
        }
    }
}

/// Addresses on loopback: each pod has one of its own, as in a cluster, so that all share one port.
#[derive(Debug)]
pub struct Addresses {
    high: [u8; 2],
    next: std::sync::atomic::AtomicU8,
}

impl Addresses {
    /// A range that another drill on this machine is unlikely to use.
    pub fn new() -> Self {
        let pid = std::process::id();
        Self { high: [64 + (pid >> 8) as u8 % 128, pid as u8], next: std::sync::atomic::AtomicU8::new(2) }
    }

    /// The next address.
    pub fn next(&self) -> Ipv4Addr {
        let last = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ipv4Addr::new(127, self.high[0], self.high[1], last.max(2))
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self::new()
    }
}

/// Five letters and digits, as a ReplicaSet gives them.
fn suffix(n: u32) -> String {
    const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = blake3::hash(&n.to_le_bytes());
    digest.as_bytes().iter().take(5).map(|byte| SAFE[*byte as usize % SAFE.len()] as char).collect()
}

fn template_hash(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex()[..9].to_owned()
}

fn owner_uid(name: &str) -> String {
    let hex = blake3::hash(name.as_bytes()).to_hex();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[12..15], &hex[15..18], &hex[18..30])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> EngineTemplate {
        EngineTemplate { engine: "http", command: vec!["engine".into()], port: 8080, restore: "gate" }
    }

    #[test]
    fn every_pod_is_a_pod_to_the_real_types() {
        for member in CAST {
            let pod = member.pod(1, Some("node-a"), &template());
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
            let spec = pod.spec.unwrap();
            assert_eq!(spec.priority, Some(member.priority));
            assert_eq!(Member::of(pod.metadata.name.as_deref().unwrap()), Some(member));
        }
    }

    #[test]
    fn a_stateful_sets_pod_keeps_its_name_and_the_others_do_not() {
        for member in CAST {
            assert_eq!(
                member.pod_name(1) == member.pod_name(3),
                matches!(member.part, Part::NamedState | Part::Daemon)
            );
        }
    }
}
