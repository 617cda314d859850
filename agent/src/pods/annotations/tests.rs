use super::*;
use engines::EngineKind;
use serde_json::{Value, json};

fn pod(annotations: Value) -> Pod {
    owned(annotations, "ReplicaSet")
}

fn owned(annotations: Value, kind: &str) -> Pod {
    let owners = match kind {
        "" => json!([]),
        kind => {
            json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "o", "controller": true }])
        }
    };
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "chat", "annotations": annotations, "ownerReferences": owners },
        "spec": {
            "containers": [
                {
                    "name": "engine",
                    "ports": [{ "containerPort": 8080 }, { "containerPort": 9090 }],
                    "volumeMounts": [
                        { "name": "state", "mountPath": "/state" },
                        { "name": "part", "mountPath": "/part", "subPath": "x" },
                        { "name": "claim", "mountPath": "/claim" },
                    ],
                },
                { "name": "web" },
            ],
            "initContainers": [
                { "name": "bridge", "restartPolicy": "Always", "ports": [{ "containerPort": 7 }] },
                { "name": "prepare" },
            ],
            "volumes": [
                { "name": "state", "emptyDir": { "sizeLimit": "8Gi", "medium": "Memory" } },
                { "name": "part", "emptyDir": {} },
                { "name": "claim", "persistentVolumeClaim": { "claimName": "c" } },
            ],
        },
    }))
    .unwrap()
}

/// The one error, as `annotation: message`; the pod must be stateless.
fn error(annotations: Value) -> AnnotationError {
    let read = read(&pod(annotations));
    assert_eq!(read.errors.len(), 1, "{:#?}", read.errors);
    assert_eq!(read.engine, None);
    read.errors[0].clone()
}

#[test]
fn a_pod_that_says_nothing_is_active_and_stateless() {
    assert_eq!(read(&pod(json!({ "other.dev/engine": "x" }))), Annotations::default());
    let bare: Pod = serde_json::from_value(json!({ "metadata": {} })).unwrap();
    assert_eq!(read(&bare), Annotations::default());
}

#[test]
fn two_annotations_are_enough_and_the_rest_has_defaults() {
    let all =
        read(&pod(json!({ "lifeboat.dev/engine": "llama-server", "lifeboat.dev/state-volume": "state" })));
    assert_eq!(all.errors, []);
    let wanted = EngineSettings {
        engine: EngineKind::LlamaServer,
        evict: EvictWhen::Auto,
        port: 8080,
        container: "engine".into(),
        state_volume: Some(StateVolume {
            name: "state".into(),
            mount_path: "/state".into(),
            size_limit: Some(8 << 30),
            in_memory: true,
        }),
        auth_file: None,
        flush_timeout: DEFAULT_FLUSH_TIMEOUT,
        interval: None,
        max_bytes: None,
        restore: RestoreMode::Gate,
        on_delete: OnDelete::Save,
        state_key: None,
        compat_key: None,
    };
    assert_eq!(all.engine, Some(wanted));
}

#[test]
fn every_annotation_arrives() {
    let all = read(&pod(json!({
        "lifeboat.dev/engine": "http",
        "lifeboat.dev/evict": "first",
        "lifeboat.dev/port": "9000",
        "lifeboat.dev/scheme": "http",
        "lifeboat.dev/container": "engine",
        "lifeboat.dev/state-volume": "state",
        "lifeboat.dev/auth-file": "secrets/token",
        "lifeboat.dev/flush-timeout": "1m 30s",
        "lifeboat.dev/interval": "2m",
        "lifeboat.dev/max-bytes": "64Gi",
        "lifeboat.dev/restore": "background",
        "lifeboat.dev/on-delete": "release",
        "lifeboat.dev/state-key": "llm-eu",
        "lifeboat.dev/compat-key": "weights@v3",
        "lifeboat.dev/role": "canary",
    })));
    assert_eq!(all.errors, []);
    assert_eq!(all.role, Role::Canary);
    let engine = all.engine.unwrap();
    assert_eq!((engine.engine, engine.evict, engine.port), (EngineKind::Http, EvictWhen::First, 9000));
    assert_eq!(engine.auth_file, Some("secrets/token".into()));
    assert_eq!((engine.flush_timeout, engine.interval), (Span::from_secs(90), Some(Span::from_secs(120))));
    assert_eq!(engine.max_bytes, Some(64 << 30));
    assert_eq!((engine.restore, engine.on_delete), (RestoreMode::Background, OnDelete::Release));
    assert_eq!(
        (engine.state_key.as_deref(), engine.compat_key.as_deref()),
        (Some("llm-eu"), Some("weights@v3"))
    );
}

#[test]
fn each_wrong_value_names_its_annotation_and_the_fix() {
    for (name, value, fix) in [
        ("port", "0", "1 to 65535"),
        ("port", "65536", "1 to 65535"),
        ("port", "http", "1 to 65535"),
        ("scheme", "https", "use http"),
        ("scheme", "ftp", "use http"),
        ("container", "prepare", "engine, web"),
        ("state-volume", "nowhere", "state, part"),
        ("state-volume", "claim", "emptyDir"),
        ("state-volume", "part", "whole volume"),
        ("auth-file", "/etc/token", "relative"),
        ("auth-file", "../token", "relative"),
        ("auth-file", "a/../../token", "relative"),
        ("auth-file", "", "relative"),
        ("flush-timeout", "30", "30s or 2m"),
        ("flush-timeout", "0s", "1s to 600s"),
        ("flush-timeout", "2h", "1s to 600s"),
        ("interval", "-1m", "1s to"),
        ("max-bytes", "lots", "64GiB"),
        ("max-bytes", "0", "64GiB"),
        ("evict", "later", "auto, first, last"),
        ("restore", "maybe", "gate, background, off"),
        ("on-delete", "keep", "save, release"),
        ("state-key", "../other", "lowercase"),
        ("state-key", "a/b", "lowercase"),
        ("compat-key", "two words", "visible"),
        ("role", "main", "canary"),
        ("drain", "early", "pod without controller"),
        ("drain", "soon", "early, late, true"),
    ] {
        let mut annotations = json!({ "lifeboat.dev/engine": "http", "lifeboat.dev/state-volume": "state" });
        annotations[format!("lifeboat.dev/{name}")] = json!(value);
        let error = error(annotations);
        assert_eq!(error.annotation, format!("lifeboat.dev/{name}"), "{error}");
        assert_eq!(error.value, value);
        let line = error.to_string();
        assert!(line.contains(fix) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn engines_of_later_versions_are_told_from_typing_errors() {
    for later in ["vllm", "sglang", "lmcache", "triton"] {
        assert!(
            error(json!({ "lifeboat.dev/engine": later })).problem.contains("not supported by this version")
        );
    }
    assert!(error(json!({ "lifeboat.dev/engine": "llamaserver" })).fix.contains("llama-server"));
}

#[test]
fn an_unknown_annotation_names_the_nearest_known_one() {
    for (slip, meant) in
        [("stat-volume", "state-volume"), ("intervall", "interval"), ("on_delete", "on-delete")]
    {
        let mut annotations = json!({ "lifeboat.dev/engine": "http" });
        annotations[format!("lifeboat.dev/{slip}")] = json!("x");
        let error = error(annotations);
        assert_eq!(error.annotation, format!("lifeboat.dev/{slip}"));
        assert!(error.fix.contains(&format!("lifeboat.dev/{meant},")), "{error}");
    }
}

#[test]
fn an_annotation_without_an_engine_is_not_silently_ignored() {
    assert!(error(json!({ "lifeboat.dev/state-volume": "state" })).fix.contains("lifeboat.dev/engine"));
}

#[test]
fn what_an_engine_needs_is_asked_for() {
    assert!(
        error(json!({ "lifeboat.dev/engine": "llama-server" })).fix.contains("lifeboat.dev/state-volume")
    );
    assert!(
        error(json!({ "lifeboat.dev/engine": "http", "lifeboat.dev/auth-file": "t" }))
            .fix
            .contains("state-volume")
    );
    let portless = error(json!({ "lifeboat.dev/engine": "http", "lifeboat.dev/container": "web" }));
    assert_eq!(portless.annotation, "lifeboat.dev/port");
    let sidecar = read(&pod(json!({ "lifeboat.dev/engine": "http", "lifeboat.dev/container": "bridge" })));
    assert_eq!(sidecar.engine.unwrap().port, 7);
}

#[test]
fn a_directory_of_files_needs_a_volume_and_the_owners_word_and_is_never_called() {
    let files = |more: Value| {
        let mut annotations = json!({ "lifeboat.dev/engine": "files", "lifeboat.dev/state-volume": "state" });
        for (name, value) in more.as_object().unwrap() {
            annotations[name] = value.clone();
        }
        annotations
    };
    let settings = read(&pod(files(json!({ "lifeboat.dev/compat-key": "llama-3-8b@rev7" })))).engine.unwrap();
    assert_eq!((settings.engine, settings.port), (EngineKind::Files, 0));
    assert!(error(files(json!({}))).fix.contains("lifeboat.dev/compat-key"));
    let called = error(files(json!({ "lifeboat.dev/compat-key": "k", "lifeboat.dev/port": "80" })));
    assert_eq!(called.annotation, "lifeboat.dev/port");
    let nowhere = json!({ "lifeboat.dev/engine": "files", "lifeboat.dev/compat-key": "k" });
    assert!(error(nowhere).fix.contains("lifeboat.dev/state-volume"));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let read = read(&pod(json!({
        "lifeboat.dev/engine": "http",
        "lifeboat.dev/port": "x",
        "lifeboat.dev/restore": "x",
        "lifeboat.dev/role": "shadow",
        "lifeboat.dev/x": "x",
    })));
    assert_eq!(read.errors.len(), 3, "{:#?}", read.errors);
    // What is right still holds: a shadow is shed whatever else is wrong with it.
    assert_eq!((read.role, read.engine), (Role::Shadow, None));
}

#[test]
fn when_a_pod_drains_depends_on_its_owner() {
    let drain = |value: &str, kind: &str| {
        let read = read(&owned(json!({ "lifeboat.dev/drain": value }), kind));
        (read.drain, read.errors.len())
    };
    assert_eq!(drain("late", "DaemonSet"), (Some(Drain::Late), 0));
    assert_eq!(drain("early", "DaemonSet"), (Some(Drain::Early), 0));
    assert_eq!(drain("true", "DaemonSet"), (None, 1));
    assert_eq!(drain("true", ""), (Some(Drain::Yes), 0));
    assert_eq!(drain("late", ""), (None, 1));
}

#[test]
fn a_value_of_any_length_makes_a_short_line() {
    let line = error(json!({ "lifeboat.dev/role": "ü".repeat(100_000) })).to_string();
    assert!(line.len() < 1024, "{}", line.len());
}

#[test]
fn what_is_to_be_injected_is_one_of_its_values_and_needs_an_engine() {
    for value in ["all", "no-hold", "off"] {
        let all = read(&pod(json!({ "lifeboat.dev/engine": "http", "lifeboat.dev/inject": value })));
        assert!(all.engine.is_some(), "{value}: {:?}", all.errors);
    }
    let wrong = error(json!({ "lifeboat.dev/engine": "http", "lifeboat.dev/inject": "gate" }));
    assert_eq!(wrong.annotation, "lifeboat.dev/inject");
    assert!(wrong.fix.contains("all, no-hold, off"), "{wrong}");
    let alone = error(json!({ "lifeboat.dev/inject": "off" }));
    assert!(alone.fix.contains("lifeboat.dev/engine"), "{alone}");
}
