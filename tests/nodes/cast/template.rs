//! The pod templates of the scenarios.

use serde_json::{Value, json};

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

    /// llama-server with so many slots.
    pub fn slots(self, slots: u32) -> Self {
        self.edit(|spec| {
            let command = spec["containers"][0]["command"].as_array_mut();
            let given = command.and_then(|all| all.iter_mut().skip_while(|word| *word != "-np").nth(1));
            if let Some(given) = given {
                *given = slots.to_string().into();
            }
        })
    }

    /// On nodes of their own, one of them on this one.
    pub fn apart(self, node: &str) -> Self {
        let apart = json!({"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": self.app}}}]});
        self.prefers(node).edit(|spec| spec["affinity"]["podAntiAffinity"] = apart)
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
        self.annotated("lifeboat.dev/inject", "no-hold").edit(|spec| {
            if let Some(container) = spec["containers"][0].as_object_mut() {
                container.remove("lifecycle");
            }
        })
    }

    /// With one annotation, `lifeboat.dev/engine`, and nothing else of ours: what is missing is injected.
    pub fn opted_in_only(mut self) -> Self {
        self.annotations = json!({"lifeboat.dev/engine": self.annotations["lifeboat.dev/engine"]});
        self.edit(|spec| {
            for (object, field) in [("", "readinessGates"), ("", "volumes")]
                .into_iter()
                .chain([("/containers/0", "lifecycle"), ("/containers/0", "volumeMounts")])
            {
                if let Some(object) = spec.pointer_mut(object).and_then(Value::as_object_mut) {
                    object.remove(field);
                }
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
