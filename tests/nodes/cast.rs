//! The pods of the scenarios, and what is asked of them.

use anyhow::{Context, Result, bail};
use lifeboat::drill::talk::{Controls, Talk};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

/// Where every engine keeps its state.
pub const STATE: &str = "/state";

/// The preStop of docs/protocol.md: the pod waits inside its own eviction until its state is saved.
pub const HOLD: &str =
    r#"until [ "$(cat /state/.lifeboat/hold 2>/dev/null || echo 0)" -le "$(date +%s)" ]; do sleep 0.2; done"#;

/// A pod template, made step by step.
#[derive(Clone, Debug)]
pub struct Template {
    app: String,
    annotations: Value,
    spec: Value,
}

impl Template {
    /// llama-server with two slots, as its documentation has it for saving slots.
    pub fn llama(app: &str) -> Self {
        let arguments = [
            "--host",
            "0.0.0.0",
            "--port",
            "8080",
            "-m",
            "/models/tiny-a.gguf",
            "--slot-save-path",
            STATE,
            "--no-cache-idle-slots",
            "-np",
            "2",
            "-c",
            "8192",
            "-t",
            "1",
            "--metrics",
            "--offline",
        ];
        let mut command = vec!["/usr/bin/llama-server"];
        command.extend(arguments);
        let container = json!({
            "name": "engine",
            "image": "registry.local/llama-server:1",
            "imagePullPolicy": "Never",
            "command": command,
            "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
            "volumeMounts": [{"name": "state", "mountPath": STATE}],
        });
        let annotations = json!({"lifeboat.dev/engine": "llama-server", "lifeboat.dev/port": "8080",
            "lifeboat.dev/state-volume": "state"});
        Self::new(app, annotations, container).held()
    }

    /// Our engine of contract v1 with so many bytes of state in its memory; 0 is a fresh one, as a replacement is.
    pub fn engine(app: &str, seed: u64, bytes: u64) -> Self {
        let mut env = vec![json!({"name": "WEIGHTS", "value": "blake3:0001"})];
        if bytes > 0 {
            env.push(json!({"name": "SEED", "value": seed.to_string()}));
            env.push(json!({"name": "STATE_BYTES", "value": bytes.to_string()}));
        }
        let container = json!({
            "name": "engine",
            "image": "registry.local/engine:1",
            "imagePullPolicy": "Never",
            "env": env,
            "ports": [{"containerPort": 9100}],
            "readinessProbe": {"httpGet": {"path": "/lifeboat/v1/info", "port": 9100}, "periodSeconds": 1},
            "volumeMounts": [{"name": "state", "mountPath": STATE}],
        });
        let annotations = json!({"lifeboat.dev/engine": "http", "lifeboat.dev/port": "9100", "lifeboat.dev/state-volume": "state"});
        Self::new(app, annotations, container).held()
    }

    /// A pod that holds nothing and ends at once when it's told to.
    pub fn plain(app: &str) -> Self {
        let container = json!({
            "name": "main",
            "image": "registry.local/busybox:1",
            "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
        });
        Self::new(app, json!({}), container)
    }

    fn new(app: &str, annotations: Value, container: Value) -> Self {
        let spec = json!({
            "terminationGracePeriodSeconds": 30,
            "automountServiceAccountToken": false,
            "containers": [container],
            "volumes": [{"name": "state", "emptyDir": {}}],
        });
        Self { app: app.to_owned(), annotations, spec }
    }

    /// Waits inside its own eviction, and is ready only when its state is back.
    pub fn held(self) -> Self {
        self.edit(|spec| {
            spec["containers"][0]["lifecycle"] =
                json!({"preStop": {"exec": {"command": ["/bin/sh", "-c", HOLD]}}});
            spec["readinessGates"] = json!([{"conditionType": "lifeboat.dev/restored"}]);
        })
    }

    /// Without the preStop: it is saved first and evicted then.
    pub fn not_held(self) -> Self {
        self.edit(|spec| {
            if let Some(container) = spec["containers"][0].as_object_mut() {
                container.remove("lifecycle");
            }
        })
    }

    /// With one annotation more.
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations[name] = value.into();
        self
    }

    /// With this PriorityClass (see [`priority_classes`]).
    pub fn priority(self, class: &str) -> Self {
        self.edit(|spec| spec["priorityClassName"] = class.into())
    }

    /// On this node, by its scheduler's choice: a later pod of the same template goes there too.
    pub fn on(self, node: &str) -> Self {
        self.edit(|spec| spec["nodeSelector"] = json!({"kubernetes.io/hostname": node}))
    }

    /// Prefers this node; its replacement goes elsewhere when the node is cordoned.
    pub fn prefers(self, node: &str) -> Self {
        let terms = json!([{"weight": 100, "preference": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}}]);
        self.edit(|spec| {
            spec["affinity"] =
                json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}})
        })
    }

    /// Our engine holds the state that it begins with on this node only: elsewhere it begins empty, as a replacement
    /// of the same template does. (An engine that has state of its own is not given another's.)
    pub fn born_on(self, node: &str) -> Self {
        let script = format!("[ \"$NODE\" = {node} ] || unset SEED STATE_BYTES; exec /usr/bin/engine");
        self.edit(|spec| {
            let container = &mut spec["containers"][0];
            container["command"] = json!(["/bin/sh", "-c", script]);
            if let Some(env) = container["env"].as_array_mut() {
                env.push(json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}));
            }
        })
    }

    /// Our engine writes and reads so many bytes of state per second.
    pub fn rate(self, bytes_per_second: u64) -> Self {
        self.edit(|spec| {
            if let Some(env) = spec["containers"][0]["env"].as_array_mut() {
                env.push(json!({"name": "RATE", "value": bytes_per_second.to_string()}));
            }
        })
    }

    /// Anything else of the pod's spec.
    pub fn edit(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        edit(&mut self.spec);
        self
    }

    fn metadata(&self) -> Value {
        json!({"labels": {"app": self.app}, "annotations": self.annotations})
    }

    /// A Deployment of it.
    pub fn deployment(&self, replicas: u32) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.app, "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": self.app}},
                "template": {"metadata": self.metadata(), "spec": self.spec}}})
    }

    /// A StatefulSet of it.
    pub fn stateful_set(&self, replicas: u32) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": self.app, "namespace": "default"},
            "spec": {"replicas": replicas, "serviceName": self.app, "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": self.app}},
                "template": {"metadata": self.metadata(), "spec": self.spec}}})
    }

    /// A DaemonSet of it.
    pub fn daemon_set(&self) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": self.app, "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": self.app}},
                "template": {"metadata": self.metadata(), "spec": self.spec}}})
    }

    /// One pod without a controller.
    pub fn pod(&self) -> Value {
        let mut metadata = self.metadata();
        metadata["name"] = self.app.clone().into();
        metadata["namespace"] = "default".into();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec})
    }
}

/// PriorityClasses `gold` (1000), `silver` (100), `bronze` (10) and `batch` (-10).
pub fn priority_classes() -> Vec<Value> {
    let class = |(name, value): (&str, i64)| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "Never"})
    };
    [("gold", 1000), ("silver", 100), ("bronze", 10), ("batch", -10)].map(class).to_vec()
}

/// A disruption budget over `app`: so many may be unavailable.
pub fn budget(name: &str, app: &str, max_unavailable: u32) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"maxUnavailable": max_unavailable, "selector": {"matchLabels": {"app": app}}}})
}

/// A string of an object, by JSON pointer; empty if it's not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A pod's uid.
pub fn uid(pod: &Value) -> &str {
    text(pod, "/metadata/uid")
}

/// A pod's name.
pub fn name(pod: &Value) -> &str {
    text(pod, "/metadata/name")
}

/// A pod's node.
pub fn node(pod: &Value) -> &str {
    text(pod, "/spec/nodeName")
}

/// It is being deleted.
pub fn leaves(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

/// Waits until exactly `count` pods of `app` are ready and none is leaving; on `node` if it is given.
pub async fn ready(bed: &Testbed, app: &str, count: usize, on: Option<&str>) -> Result<Vec<Value>> {
    bed.until(&format!("{count} ready pods of {app}"), Duration::from_secs(60), async |bed| {
        let pods: Vec<Value> = bed.pods(app).await?.into_iter().filter(|pod| !leaves(pod)).collect();
        let fits = |pod: &Value| {
            testbed::bed::condition(pod, "Ready") == Some("True")
                && on.is_none_or(|wanted| node(pod) == wanted)
        };
        if pods.len() == count && pods.iter().all(fits) {
            return Ok(Some(pods));
        }
        bail!("{}", pods.iter().map(describe).collect::<Vec<_>>().join("; "))
    })
    .await
}

/// Waits for the one ready pod of `app` that is not `old`.
pub async fn replacement(bed: &Testbed, app: &str, old: &Value) -> Result<Value> {
    replacement_within(bed, app, old, Duration::from_secs(90)).await
}

/// The same within a limit.
pub async fn replacement_within(bed: &Testbed, app: &str, old: &Value, limit: Duration) -> Result<Value> {
    let old = uid(old);
    bed.until(&format!("a ready replacement of {app}"), limit, async |bed| {
        let pods = bed.pods(app).await?;
        let found = pods.iter().find(|pod| {
            uid(pod) != old && !leaves(pod) && testbed::bed::condition(pod, "Ready") == Some("True")
        });
        match found {
            Some(pod) => Ok(Some(pod.clone())),
            None => bail!("{}", pods.iter().map(describe).collect::<Vec<_>>().join("; ")),
        }
    })
    .await
}

/// Waits until a pod's object is gone.
pub async fn gone(bed: &Testbed, pod: &Value, limit: Duration) -> Result<()> {
    let path = format!("/api/v1/namespaces/default/pods/{}", name(pod));
    bed.until(&format!("{} to be gone", name(pod)), limit, async |bed| {
        let there = bed.get(&path).await?.filter(|there| uid(there) == uid(pod));
        Ok(there.is_none().then_some(()))
    })
    .await
}

/// A pod in a few words, for a failure's message.
pub fn describe(pod: &Value) -> String {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let not: Vec<String> = conditions
        .iter()
        .filter(|condition| condition["status"] != "True")
        .map(|condition| format!("{} {} {}", condition["type"], condition["reason"], condition["message"]))
        .collect();
    let state = pod.pointer("/status/containerStatuses/0/state").map(Value::to_string).unwrap_or_default();
    let left = if leaves(pod) { " leaving" } else { "" };
    format!("{} on {}{left}: {} {state} {}", name(pod), node(pod), text(pod, "/status/phase"), not.join(", "))
}

/// The conversation with a llama-server pod.
pub fn talk(pod: &Value, about: &str, controls: &Controls) -> Result<Talk> {
    let ip = text(pod, "/status/podIP");
    anyhow::ensure!(!ip.is_empty(), "{} has no address", name(pod));
    Ok(Talk::new(about, &format!("http://{ip}:8080"), controls)?)
}

/// What our engine says of itself: `digest`, `bytes`, `calls`, …
pub async fn counters(pod: &Value) -> Result<Value> {
    let url = format!("http://{}:9101/counters", text(pod, "/status/podIP"));
    Ok(http()?.get(url).send().await?.json().await?)
}

/// Tells our engine something: `behaviour/hang`, `touch/0.1`, `generating/on`, `exit/1`.
pub async fn tell(pod: &Value, what: &str) -> Result<()> {
    let url = format!("http://{}:9101/{what}", text(pod, "/status/podIP"));
    let answer = http()?.post(url).send().await?;
    anyhow::ensure!(answer.status().is_success(), "{what}: {}", answer.status());
    Ok(())
}

fn http() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?)
}

/// The report of a node's evacuation, as it lies in the store; waits for it.
pub async fn report(bed: &Testbed, node: &str, limit: Duration) -> Result<Value> {
    bed.until(&format!("the report of {node}"), limit, async |bed| {
        let objects = bed.objects()?;
        let found = objects
            .iter()
            .filter(|object| object.key.contains("/report/") || object.key.contains("/reports/"));
        let mut reports = found
            .filter_map(|object| serde_json::from_slice::<Value>(&std::fs::read(&object.path).ok()?).ok());
        Ok(reports.rfind(|report| report.to_string().contains(&format!("\"{node}\""))))
    })
    .await
}

/// The condition that our gate is.
pub fn gate(pod: &Value) -> Result<&Value> {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let found =
        conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "lifeboat.dev/restored"));
    found.with_context(|| format!("{} has no gate", name(pod)))
}

/// What the first pod of `app` begins with, beside its template and not in it: see [`Template::seeded`].
pub fn seed(app: &str, seed: u64, bytes: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{app}-seed"), "namespace": "default"},
        "data": {"SEED": seed.to_string(), "STATE_BYTES": bytes.to_string()}})
}

/// From now on pods of `app` begin empty, as a replacement must that is to take what was saved.
pub fn forget_seed(bed: &Testbed, app: &str) -> Result<()> {
    bed.kubectl(&["delete", "configmap", &format!("{app}-seed")]).map(drop)
}

impl Template {
    /// Our engine begins with the state of [`seed`] as long as that ConfigMap is there, and empty afterwards.
    pub fn seeded(self) -> Self {
        let from = format!("{}-seed", self.app);
        self.edit(|spec| {
            let variable = |name: &str| {
                let key = json!({"name": from, "key": name, "optional": true});
                json!({"name": name, "valueFrom": {"configMapKeyRef": key}})
            };
            if let Some(env) = spec["containers"][0]["env"].as_array_mut() {
                env.extend(["SEED", "STATE_BYTES"].map(variable));
            }
        })
    }
}

/// The generations of a lineage as they lie in the store, oldest first: a pod's uid, or a StatefulSet pod's name.
pub fn generations(bed: &Testbed, lineage: &str) -> Result<Vec<testbed::s3_log::Object>> {
    let mut found = bed.objects()?;
    found.retain(|object| object.key.contains(&format!("/lineage/{lineage}/gen/")));
    found.sort_by_key(|object| object.at);
    Ok(found)
}

/// Every claim in the store: the lineage, and the uid of the pod that holds it.
pub fn claimants(bed: &Testbed) -> Result<Vec<(String, String)>> {
    let objects = bed.objects()?;
    let claims = objects.iter().filter_map(|object| {
        let lineage = object.key.strip_suffix("/claim")?.rsplit('/').next()?;
        Some((lineage.to_owned(), object))
    });
    claims
        .map(|(lineage, object)| {
            let claim: Value = serde_json::from_slice(&std::fs::read(&object.path)?)?;
            Ok((lineage, text(&claim, "/holder/pod_uid").to_owned()))
        })
        .collect()
}

/// The uid of the pod that claimed this lineage.
pub fn claimed_by(bed: &Testbed, lineage: &str) -> Result<String> {
    let found = claimants(bed)?.into_iter().find(|(of, _)| of == lineage);
    Ok(found.with_context(|| format!("nobody claimed {lineage}"))?.1)
}

/// The eviction of a pod that was done.
pub fn eviction(bed: &Testbed, pod: &str) -> Result<testbed::audit::Entry> {
    let done = bed.audit()?.into_iter().find(|one| one.is_eviction() && one.name == pod && one.succeeded());
    done.with_context(|| format!("{pod} was not evicted"))
}
