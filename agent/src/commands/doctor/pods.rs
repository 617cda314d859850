//! Pods that opted in: what they say of themselves, and what they miss.

use super::control_plane::not_read;
use super::finding::Finding;
use crate::commands::doctor::cluster_reads::{ReadResult, name, opted_in};
use crate::pods::conditions::is_gated;
use crate::pods::daemonset::DaemonRules;
use crate::pods::reader::{PodReader, PodRecord};
use engines::EngineKind;
use evacuation::names::{PREFIX, RESTORED_CONDITION};
use evacuation::pod::{Owner, RestoreMode};
use host::clock;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeSet;

/// Judges them.
pub fn check(pods: &ReadResult<Vec<Pod>>, node: Option<&str>) -> Vec<Finding> {
    const CHECK: &str = "pods";
    let pods = match pods {
        Ok(pods) => pods,
        Err(unread) => return vec![not_read(CHECK, "pods that opted in", unread)],
    };
    let opted: Vec<&Pod> = pods.iter().filter(|pod| opted_in(pod)).collect();
    if opted.is_empty() {
        let place = node.map_or_else(|| "in the cluster".to_owned(), |node| format!("on {node}"));
        return vec![
            Finding::note(CHECK, format!("no pod {place} has opted in"))
                .because("nothing is saved that does not say how: other pods are only evicted in order")
                .mend("annotate the pod template: lifeboat.dev/engine: llama-server | http | files (README.md, \"Opting in\")"),
        ];
    }
    let mut found: Vec<Finding> = opted.iter().flat_map(|pod| judge(pod)).collect();
    found.extend(priorities(&opted));
    if found.is_empty() {
        let count = crate::commands::page::count(opted.len(), "pod");
        found.push(Finding::ok(CHECK, format!("{count} opted in, and nothing is wrong with what they say")));
    }
    found
}

/// The pod as the agent reads it.
pub fn record(pod: &Pod) -> Option<PodRecord> {
    PodReader::new(DaemonRules::default(), false).distil(pod, clock::now()).map(|(record, _)| record)
}

fn said<'p>(pod: &'p Pod, annotation: &str) -> Option<&'p str> {
    let all = pod.metadata.annotations.as_ref()?;
    all.get(&format!("{PREFIX}{annotation}")).map(String::as_str)
}

fn judge(pod: &Pod) -> Vec<Finding> {
    let Some((record, errors)) = PodReader::new(DaemonRules::default(), false).distil(pod, clock::now())
    else {
        return vec![];
    };
    let mut found: Vec<Finding> = errors
        .iter()
        .map(|error| {
            Finding::failure(
                "pod-annotations",
                format!("{}: {:?} {}", error.annotation, error.value, error.problem),
            )
            .because("the pod is treated as stateless until then: its state is lost with its node")
            .mend(&error.fix)
        })
        .collect();
    let Some(settings) = &record.settings else {
        if errors.is_empty() && is_gated(pod) {
            found.push(
                Finding::warning(
                    "pod-gate",
                    "it has our readiness gate, and no annotation lifeboat.dev/engine",
                )
                .because("nothing is restored; the agent opens the gate at once")
                .mend("add lifeboat.dev/engine to the pod template, or remove the gate"),
            );
        }
        return named(found, pod);
    };
    found.extend(hold(pod, &record));
    found.extend(gate(pod, settings.restore));
    if settings.engine == EngineKind::LlamaServer
        && let Some(mount) = settings.state_volume.as_ref().map(|volume| volume.mount_path.to_string_lossy())
    {
        let spec = pod.spec.as_ref();
        let container = spec.and_then(|spec| {
            // A native sidecar is an init container.
            let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            all.find(|one| one.name == settings.container)
        });
        found.extend(container.into_iter().flat_map(|container| llama_server(container, &mount)));
    }
    found.extend(owner(&record));
    named(found, pod)
}

/// A pod that is not evicted is saved late, or not at all.
fn owner(record: &PodRecord) -> Option<Finding> {
    const CHECK: &str = "pod-owner";
    let saved_late = "so it is not evicted: it serves until the last moment, its state is saved then, and it dies with the node";
    match record.facts.owner {
        Owner::Bare { may_go: false } => Some(
            Finding::warning(CHECK, "it has no controller")
                .because(format!("nobody would make a replacement, {saved_late}"))
                .mend("use a Deployment or StatefulSet, or say lifeboat.dev/drain: \"true\""),
        ),
        Owner::Static => Some(
            Finding::warning(CHECK, "it is a static pod, which only the kubelet can end")
                .because("its state is not saved: no node but this one would start it again")
                .mend("run it as a Deployment or StatefulSet, or remove lifeboat.dev/engine"),
        ),
        Owner::Daemon { .. } if record.facts.serves_to_the_end() => Some(
            Finding::note(CHECK, "it is a DaemonSet's")
                .because(format!("a new one comes on every node in any case, {saved_late}")),
        ),
        Owner::Bare { .. } | Owner::Daemon { .. } | Owner::Finished | Owner::Named | Owner::Replicated => {
            None
        }
    }
}

fn named(found: Vec<Finding>, pod: &Pod) -> Vec<Finding> {
    found.into_iter().map(|finding| finding.about(name(pod))).collect()
}

fn hold(pod: &Pod, record: &PodRecord) -> Option<Finding> {
    const CHECK: &str = "pod-hold";
    if record.facts.engine.as_ref().is_none_or(|engine| engine.holds) {
        return None;
    }
    let what = "a container has no preStop that waits for the hold";
    if said(pod, "inject") == Some("no-hold") {
        let why = "it asks for that (lifeboat.dev/inject: no-hold): it is saved before it is evicted, and whoever else deletes it \
                   is not waited for";
        return Some(Finding::note(CHECK, what).because(why));
    }
    Some(
        Finding::warning(CHECK, what)
            .because(
                "the pod cannot be evicted before its state is saved, so its replacement comes later; and whoever else deletes it \
                 (a rollout, kubectl drain, Karpenter) ends it before its state is saved",
            )
            .mend("give every container the preStop of README.md, \"Opting in\", or let the policy lifeboat-opt-in add it (remove lifeboat.dev/inject)"),
    )
}

fn gate(pod: &Pod, restore: RestoreMode) -> Option<Finding> {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let gated = gates.iter().any(|gate| gate.condition_type == RESTORED_CONDITION);
    (restore == RestoreMode::Gate && !gated).then(|| {
        Finding::warning("pod-gate", "the readiness gate lifeboat.dev/restored is missing")
            .because("it takes traffic before its state is back, and an engine that has state of its own is not given another's")
            .mend("add readinessGates: [{conditionType: lifeboat.dev/restored}], or say lifeboat.dev/restore: background")
    })
}

/// What llama-server must be started with. A start script that hides it is not looked into.
fn llama_server(container: &Container, mount: &str) -> Vec<Finding> {
    const CHECK: &str = "pod-engine";
    let words: Vec<&str> = container
        .command
        .iter()
        .chain(&container.args)
        .flatten()
        .flat_map(|word| word.split_whitespace())
        .collect();
    let value_of = |flag: &str| {
        words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(flag)? {
            "" => words.get(at + 1).copied(),
            rest => rest.strip_prefix('='),
        })
    };
    if !words.iter().any(|word| word.starts_with("--") || word.starts_with('-')) {
        let why = "command and args of the container have no flags: they are in the image or in a script";
        return vec![Finding::skipped(CHECK, "the flags of llama-server", why)];
    }
    let mut found = Vec::new();
    if !words.contains(&"--no-cache-idle-slots") {
        found.push(
            Finding::warning(CHECK, "llama-server runs without --no-cache-idle-slots")
                .because("idle slots are moved to a cache in memory, and saving one then saves nothing")
                .mend("add --no-cache-idle-slots to its args"),
        );
    }
    match value_of("--slot-save-path").map(|path| path.trim_matches(['"', '\'']).trim_end_matches('/')) {
        Some(path) if path == mount.trim_end_matches('/') => {}
        Some(path) => found.push(
            Finding::failure(
                CHECK,
                format!("--slot-save-path is {path}, and the state volume is mounted at {mount}"),
            )
            .because("a saved slot appears where the agent does not look: the flush fails")
            .mend(format!("set --slot-save-path {mount}")),
        ),
        None => found.push(
            Finding::failure(CHECK, "llama-server runs without --slot-save-path")
                .because("it refuses to save slots")
                .mend(format!("add --slot-save-path {mount} to its args")),
        ),
    }
    found
}

/// Who is saved first is said by PriorityClasses alone.
fn priorities(opted: &[&Pod]) -> Option<Finding> {
    const CHECK: &str = "priority";
    let engines: Vec<&&Pod> = opted.iter().filter(|pod| said(pod, "engine").is_some()).collect();
    let class = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.priority_class_name.clone());
    let classes: BTreeSet<Option<String>> = engines.iter().map(|pod| class(pod)).collect();
    (engines.len() > 1 && classes.len() == 1 && classes.contains(&None)).then(|| {
        Finding::warning(CHECK, format!("none of {} has a PriorityClass", crate::commands::page::count(engines.len(), "opted-in pod")))
            .because("where two minutes are not enough for all, nothing says which state is worth more")
            .mend("kubectl apply -f manifests/examples/priority-classes.yaml, and set priorityClassName in the pod templates")
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use serde_json::{Value, json};

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"namespace": "chat", "name": "a", "uid": "a",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-1", "uid": "r", "controller": true}],
                "annotations": {"lifeboat.dev/engine": "llama-server", "lifeboat.dev/state-volume": "state"}},
            "spec": {
                "priorityClassName": "gold",
                "readinessGates": [{"conditionType": "lifeboat.dev/restored"}],
                "volumes": [{"name": "state", "emptyDir": {}}],
                "containers": [{"name": "engine", "ports": [{"containerPort": 8080}],
                    "args": ["--slot-save-path", "/state", "--no-cache-idle-slots"],
                    "volumeMounts": [{"name": "state", "mountPath": "/state"}],
                    "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "until [ $(cat /state/.lifeboat/hold) ]; do :; done"]}}}}]},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    /// The check and severity of everything that is found.
    fn found(change: impl FnOnce(&mut Value)) -> Vec<(&'static str, Severity)> {
        let found = check(&Ok(vec![pod(change)]), None);
        found.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_pod_as_the_readme_has_it_is_as_it_should_be() {
        assert_eq!(found(|_| ()), [("pods", Severity::Ok)]);
    }

    #[test]
    fn a_missing_hold_is_a_warning_unless_it_was_asked_for() {
        let none =
            |pod: &mut Value| drop(pod["spec"]["containers"][0].as_object_mut().unwrap().remove("lifecycle"));
        assert_eq!(found(none), [("pod-hold", Severity::Warning)]);
        let asked = found(|pod| {
            none(pod);
            pod["metadata"]["annotations"]["lifeboat.dev/inject"] = json!("no-hold");
        });
        assert_eq!(asked, [("pod-hold", Severity::Note)]);
    }

    #[test]
    fn a_missing_gate_is_a_warning_unless_it_restores_in_the_background() {
        let none = |pod: &mut Value| pod["spec"]["readinessGates"] = json!([]);
        assert_eq!(found(none), [("pod-gate", Severity::Warning)]);
        let background = found(|pod| {
            none(pod);
            pod["metadata"]["annotations"]["lifeboat.dev/restore"] = json!("background");
        });
        assert_eq!(background, [("pods", Severity::Ok)]);
        // A gate and nothing that opens it but us.
        let no_engine = found(|pod| pod["metadata"]["annotations"] = json!({}));
        assert_eq!(no_engine, [("pod-gate", Severity::Warning)]);
    }

    #[test]
    fn an_annotation_that_cannot_be_followed_is_a_failure_that_names_it_and_the_fix() {
        let wrong = check(
            &Ok(vec![pod(|pod| pod["metadata"]["annotations"]["lifeboat.dev/engine"] = json!("lama"))]),
            None,
        );
        assert_eq!(wrong[0].severity, Severity::Failure);
        assert!(wrong[0].what.contains("lama") && wrong[0].fix.contains("llama-server"), "{wrong:?}");
        assert_eq!(wrong[0].about, ["chat/a"]);
        // A hostPath cannot be opened.
        let host =
            found(|pod| pod["spec"]["volumes"] = json!([{"name": "state", "hostPath": {"path": "/data"}}]));
        assert_eq!(host, [("pod-annotations", Severity::Failure)]);
    }

    #[test]
    fn the_flags_of_llama_server_are_looked_at_however_they_are_written() {
        let with = |args: Value| found(|pod| pod["spec"]["containers"][0]["args"] = args);
        assert_eq!(
            with(json!(["--slot-save-path=/state/", "--no-cache-idle-slots"])),
            [("pods", Severity::Ok)]
        );
        let script = json!(["exec llama-server --no-cache-idle-slots --slot-save-path '/state'"]);
        assert_eq!(with(script), [("pods", Severity::Ok)]);
        assert_eq!(with(json!(["--slot-save-path", "/state"])), [("pod-engine", Severity::Warning)]);
        assert_eq!(with(json!(["--no-cache-idle-slots"])), [("pod-engine", Severity::Failure)]);
        assert_eq!(
            with(json!(["--slot-save-path", "/tmp", "--no-cache-idle-slots"])),
            [("pod-engine", Severity::Failure)]
        );
        assert_eq!(with(json!([])), [("pod-engine", Severity::Skipped)], "what is hidden is not judged");
    }

    #[test]
    fn the_flags_of_a_llama_server_that_is_a_native_sidecar_are_looked_at() {
        let found = found(|pod| {
            let mut engine = pod["spec"]["containers"][0].clone();
            engine["restartPolicy"] = json!("Always");
            engine["args"] = json!(["--slot-save-path", "/tmp", "--no-cache-idle-slots"]);
            pod["spec"]["initContainers"] = json!([engine]);
            pod["spec"]["containers"][0]["name"] = json!("app");
            pod["metadata"]["annotations"]["lifeboat.dev/container"] = json!("engine");
        });
        assert_eq!(found, [("pod-engine", Severity::Failure)]);
    }

    #[test]
    fn pods_without_any_priority_class_are_told_once() {
        let none = || pod(|pod| drop(pod["spec"].as_object_mut().unwrap().remove("priorityClassName")));
        let found = check(&Ok(vec![none(), none()]), None);
        assert!(found.len() == 1 && found[0].check == "priority", "{found:?}");
        let one_has = check(&Ok(vec![none(), pod(|_| ())]), None);
        assert_eq!(one_has[0].severity, Severity::Ok, "{one_has:?}");
    }

    #[test]
    fn a_bare_pod_is_named_and_nobody_at_all_is_a_note() {
        assert_eq!(
            found(|pod| pod["metadata"]["ownerReferences"] = json!([])),
            [("pod-owner", Severity::Warning)]
        );
        assert_eq!(check(&Ok(vec![]), None)[0].severity, Severity::Note);
    }

    #[test]
    fn who_is_not_evicted_is_told_whether_its_state_is_saved() {
        let told = |change: fn(&mut Value)| {
            let found = check(&Ok(vec![pod(change)]), None);
            let owner = found.iter().find(|finding| finding.check == "pod-owner").unwrap();
            (owner.severity, owner.why.clone())
        };
        let (severity, why) =
            told(|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("hash"));
        assert!(severity == Severity::Warning && why.contains("is not saved"), "{why}");
        let (severity, why) = told(|pod| pod["metadata"]["ownerReferences"][0]["kind"] = json!("DaemonSet"));
        assert!(severity == Severity::Note && why.contains("its state is saved"), "{why}");
    }
}
