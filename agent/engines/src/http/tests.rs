//! The client against our sidecar, behaving and misbehaving.

use super::*;
use crate::conformance::{ConformanceOptions, Verdict, conformance};
use crate::{EngineKind, Scheme, connect};
use checkpoint::folder::Folder;
use evacuation::event::FailureKind;
use fakes::sidecar::{Behaviour, Sidecar, SidecarOptions, StateSeed};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const TOKEN: &str = "s3cret";

struct Pod {
    dir: tempfile::TempDir,
    sidecar: Sidecar,
    engine: Arc<dyn Engine>,
}

impl Pod {
    async fn with(bytes: Option<u64>, rate: Option<u64>, weights: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let facts = [("engine", "acme"), ("engine_version", "1"), ("model", "m"), ("weights", weights)];
        let sidecar = Sidecar::start(SidecarOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: dir.path().to_owned(),
            state: bytes.map(|bytes| StateSeed { seed: 7, bytes, files: 3 }),
            token: Some(TOKEN.to_owned()),
            facts: facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            bytes_per_second: rate,
        })
        .await
        .unwrap();
        let engine = connect(EngineKind::Http, target(&dir, sidecar.addr().port())).unwrap();
        Self { dir, sidecar, engine }
    }

    async fn stateful() -> Self {
        Self::with(Some(300_000), None, "blake3:1").await
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }
}

fn target(dir: &tempfile::TempDir, port: u16) -> EngineTarget {
    EngineTarget {
        ip: [127, 0, 0, 1].into(),
        port,
        scheme: Scheme::Http,
        token: Some(TOKEN.to_owned()),
        folder: Arc::new(Folder::open(dir.path()).unwrap()),
        flush_timeout: Span::from_secs(60),
        max_bytes: None,
        facts: BTreeMap::from([("image".to_owned(), "sha256:1".to_owned())]),
        compat_key: None,
        life: "one".to_owned(),
        allow_loopback: true,
    }
}

fn within(ms: u64) -> Moment {
    clock::now() + Span::from_millis(ms)
}

/// Moves the volume's files, as a save and a fetch do, and hands them over.
async fn moved(from: &Pod, to: &Pod, flushed: &Flushed) -> Result<Option<u64>, EngineError> {
    for file in &flushed.files {
        std::fs::create_dir_all(to.path(&file.path).parent().unwrap()).unwrap();
        std::fs::copy(from.path(&file.path), to.path(&file.path)).unwrap();
    }
    let paths: Vec<String> = flushed.files.iter().map(|file| file.path.clone()).collect();
    to.engine.hand_over(&flushed.facts, &paths, within(5000)).await
}

#[tokio::test]
async fn state_goes_from_one_sidecar_to_another_byte_for_byte_and_is_shown_to_be_used() {
    for (bytes, rate) in [(300_000, None), (3_000_000, None), (300_000, Some(1_000_000))] {
        let (old, new) = (Pod::with(Some(bytes), rate, "w").await, Pod::with(None, rate, "w").await);
        let looked = old.engine.look(within(5000)).await.unwrap();
        assert_eq!((looked.state_bytes, looked.busy), (bytes, false));
        let flushed = old.engine.flush(FlushKind::Final, "notice-1", within(5000)).await.unwrap();
        assert_eq!((flushed.bytes, flushed.files.len(), flushed.is_partial()), (bytes, 3, false));
        let proven = new.engine.prove(&looked.fingerprint, within(5000)).await.unwrap();
        assert_eq!(proven.state_bytes, 0);
        let tokens = moved(&old, &new, &flushed).await.unwrap();
        assert_eq!(tokens, Some(bytes / 16));
        assert_eq!(new.sidecar.state_digest(), old.sidecar.state_digest());
        let reuse = new.engine.verify(&flushed.facts, within(5000)).await.unwrap();
        assert_eq!(reuse, Verification::Used { tokens: bytes / 16 });
    }
}

#[tokio::test]
async fn an_engine_uses_its_state_or_not_or_shows_neither() {
    let dir = tempfile::tempdir().unwrap();
    let restored = Arc::new(parking_lot::Mutex::new(json!(null)));
    let info = {
        let restored = Arc::clone(&restored);
        move || async move {
            axum::Json(json!({
                "protocol": 1, "engine": "e", "fingerprint": { "model": "m" }, "state_bytes": 9, "busy": false,
                "weights": { "digest": "blake3:1" }, "restored": *restored.lock(),
            }))
        }
    };
    let router = axum::Router::new().route("/lifeboat/v1/info", axum::routing::get(info));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let engine = connect(EngineKind::Http, target(&dir, port)).unwrap();
    let given = super::Ours { checkpoint_id: "c/1".to_owned(), bytes: 9, engine: Map::new() }.write();
    for (shown, reuse) in [
        (json!({ "checkpoint_id": "c/1", "bytes": 9, "tokens": 500 }), "used 500"),
        (json!({ "checkpoint_id": "c/1", "bytes": 9, "tokens": 0 }), "not used"),
        (json!({ "checkpoint_id": "c/1", "bytes": 8, "tokens": 500 }), "not used"),
        (json!({ "checkpoint_id": "c/0", "bytes": 9, "tokens": 500 }), "not used"),
        (json!({ "checkpoint_id": "c/1", "bytes": 9 }), "not shown"),
        (json!(null), "not shown"),
    ] {
        *restored.lock() = shown.clone();
        let answer = match engine.verify(&given, within(5000)).await.unwrap() {
            Verification::Used { tokens } => format!("used {tokens}"),
            Verification::NotUsed { .. } => "not used".to_owned(),
            Verification::NotShown { .. } => "not shown".to_owned(),
        };
        assert_eq!(answer, reuse, "{shown}");
    }
    let evidence = engine.evidence(within(5000)).await.unwrap();
    assert_eq!(evidence.facts["weights"], "blake3:1");
}

#[tokio::test]
async fn an_engine_that_says_it_wrote_a_file_and_did_not_is_named_with_the_file() {
    let pod = Pod::stateful().await;
    pod.sidecar.set_behaviour(Behaviour::Lies);
    let error = pod.engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::BrokenPromise { why, .. } if why.contains("state/part-00000.bin")),
        "{error}"
    );
    // A file of another size is no better than none.
    pod.sidecar.set_behaviour(Behaviour::Normal);
    pod.engine.flush(FlushKind::Final, "2", within(5000)).await.unwrap();
    std::fs::write(pod.path("state/part-00001.bin"), "short").unwrap();
    let error = pod.engine.flush(FlushKind::Final, "2", within(5000)).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::BrokenPromise { why, .. } if why.contains("part-00001.bin") && why.contains('5')),
        "{error}"
    );
}

#[tokio::test]
async fn a_web_page_names_the_annotation_to_check() {
    let pod = Pod::stateful().await;
    pod.sidecar.set_behaviour(Behaviour::Html);
    let error = pod.engine.look(within(5000)).await.unwrap_err();
    let wanted = format!("engine at http://{}/lifeboat/v1/info", pod.sidecar.addr());
    assert!(error.to_string().starts_with(&wanted), "{error}");
    assert!(
        error.to_string().ends_with(
            "answered text/html; charset=utf-8, not JSON: check lifeboat.dev/port and lifeboat.dev/engine"
        ),
        "{error}"
    );
    assert_eq!(error.kind(), FailureKind::Permanent);
    pod.engine.quiesce(within(5000)).await.unwrap_err();
    pod.engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
}

#[tokio::test]
async fn an_engine_that_hangs_costs_no_more_than_the_deadline() {
    let pod = Pod::stateful().await;
    pod.sidecar.set_behaviour(Behaviour::Hang);
    let began = clock::now();
    let deadline = within(400);
    assert!(matches!(
        pod.engine.flush(FlushKind::Final, "1", deadline).await,
        Err(EngineError::TimedOut { .. })
    ));
    assert!(matches!(pod.engine.quiesce(deadline).await, Err(EngineError::TimedOut { .. })));
    let took = clock::now().since(began).as_millis();
    assert!((350..700).contains(&took), "{took}");
}

#[tokio::test]
async fn an_engine_that_restarts_in_the_middle_of_a_flush_is_asked_again() {
    let pod = Pod::with(Some(300_000), Some(400_000), "w").await;
    let flushing = tokio::spawn({
        let engine = Arc::clone(&pod.engine);
        async move { engine.flush(FlushKind::Final, "1", within(8000)).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    pod.sidecar.set_behaviour(Behaviour::Restarted);
    let flushed = flushing.await.unwrap().unwrap();
    assert_eq!((flushed.bytes, flushed.files.len()), (0, 0), "its state is gone, and that is what it says");
    let flushes = pod.sidecar.calls().iter().filter(|call| call.path.ends_with("/flush")).count();
    assert_eq!(flushes, 2);
}

#[tokio::test]
async fn what_was_flushed_as_garbage_is_not_taken() {
    let (old, new) = (Pod::stateful().await, Pod::with(None, None, "w").await);
    old.sidecar.set_behaviour(Behaviour::WritesGarbage);
    let flushed = old.engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap();
    let error = moved(&old, &new, &flushed).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Mismatch, "{error}");
    assert_eq!(new.sidecar.state_bytes(), 0);
}

#[tokio::test]
async fn prove_waits_for_an_engine_that_starts_late_and_refuses_other_weights_by_name() {
    let old = Pod::stateful().await;
    let expected = old.engine.look(within(5000)).await.unwrap().fingerprint;
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let engine = connect(EngineKind::Http, target(&dir, port)).unwrap();
    let proving = tokio::spawn(async move { engine.prove(&expected, within(8000)).await });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let _sidecar = Sidecar::start(SidecarOptions {
        listen: ([127, 0, 0, 1], port).into(),
        state_dir: dir.path().to_owned(),
        state: None,
        token: Some(TOKEN.to_owned()),
        facts: [("engine", "acme"), ("engine_version", "1"), ("model", "m"), ("weights", "blake3:2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        bytes_per_second: None,
    })
    .await
    .unwrap();
    let error = proving.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), FailureKind::Mismatch);
    assert!(error.to_string().contains(r#"weights differs: it is "blake3:2", was "blake3:1""#), "{error}");
}

#[tokio::test]
async fn prove_says_what_it_last_saw_when_the_engine_never_comes_up() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let engine = connect(EngineKind::Http, target(&dir, port)).unwrap();
    let error = engine.prove(&Fingerprint::default(), within(600)).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::TimedOut { last: Some(last), .. } if last.contains("refused")),
        "{error}"
    );
}

#[tokio::test]
async fn every_call_carries_the_time_left_and_never_a_time_of_day() {
    let pod = Pod::stateful().await;
    let deadline = within(5000);
    pod.engine.look(deadline).await.unwrap();
    pod.engine.quiesce(deadline).await.unwrap();
    assert!(pod.sidecar.is_quiesced());
    let flushed = pod.engine.flush(FlushKind::Final, "1", deadline).await.unwrap();
    let paths: Vec<String> = flushed.files.iter().map(|file| file.path.clone()).collect();
    pod.engine.hand_over(&flushed.facts, &paths, deadline).await.unwrap();
    pod.engine.resume(deadline).await.unwrap();
    assert!(!pod.sidecar.is_quiesced());
    let calls = pod.sidecar.calls();
    assert_eq!(calls.len(), 5, "{calls:?}");
    for call in calls {
        let left = match call.method.as_str() {
            "GET" => call.path.split("time_left_ms=").nth(1).unwrap().parse::<u64>().unwrap(),
            _ => call.body["time_left_ms"].as_u64().unwrap(),
        };
        assert!((3000..=4750).contains(&left), "{call:?}");
    }
}

#[tokio::test]
async fn a_final_flush_cuts_a_generation_and_a_pre_copy_does_not() {
    let pod = Pod::stateful().await;
    pod.sidecar.generating(true);
    pod.engine.flush(FlushKind::PreCopy, "1", within(5000)).await.unwrap();
    assert!(pod.engine.look(within(5000)).await.unwrap().busy);
    pod.engine.flush(FlushKind::Final, "2", within(5000)).await.unwrap();
    assert!(!pod.engine.look(within(5000)).await.unwrap().busy);
}

#[tokio::test]
async fn a_state_that_is_larger_than_allowed_is_refused_before_it_is_written() {
    let pod = Pod::stateful().await;
    let small = EngineTarget { max_bytes: Some(1000), ..target(&pod.dir, pod.sidecar.addr().port()) };
    let engine = connect(EngineKind::Http, small).unwrap();
    let error = engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
    assert!(matches!(error, EngineError::TooLarge { .. }), "{error}");
    assert!(!pod.path("state").exists());
}

#[tokio::test]
async fn an_engine_that_wrote_more_than_allowed_is_refused() {
    let pod = Pod::stateful().await;
    pod.engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap();
    let small = EngineTarget { max_bytes: Some(1000), ..target(&pod.dir, pod.sidecar.addr().port()) };
    let engine = connect(EngineKind::Http, small).unwrap();
    // The same flush once more is answered with what it wrote before, whatever is allowed now.
    let error = engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
    assert!(matches!(&error, EngineError::TooLarge { why, .. } if why.contains("it wrote")), "{error}");
}

#[tokio::test]
async fn a_wrong_token_names_the_annotation() {
    let pod = Pod::stateful().await;
    for token in [None, Some("wrong".to_owned())] {
        let engine =
            connect(EngineKind::Http, EngineTarget { token, ..target(&pod.dir, pod.sidecar.addr().port()) })
                .unwrap();
        let error = engine.look(within(5000)).await.unwrap_err();
        assert!(matches!(error, EngineError::Denied { status: 401, .. }), "{error}");
        assert!(error.to_string().contains("lifeboat.dev/auth-file"), "{error}");
    }
}

#[tokio::test]
async fn an_engine_cannot_grow_our_memory_nor_send_us_elsewhere() {
    use axum::response::{IntoResponse, Redirect};
    let elsewhere = Pod::stateful().await;
    let there = format!("http://{}/lifeboat/v1/info", elsewhere.sidecar.addr());
    let router = axum::Router::new()
        .route(
            "/lifeboat/v1/info",
            axum::routing::get(move || async move { Redirect::temporary(&there).into_response() }),
        )
        .route(
            "/lifeboat/v1/flush",
            axum::routing::post(|| async {
                let endless = futures::stream::repeat_with(|| {
                    Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 65536]))
                });
                axum::body::Body::from_stream(endless)
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let engine = connect(EngineKind::Http, target(&elsewhere.dir, port)).unwrap();
    let error = engine.look(within(5000)).await.unwrap_err();
    assert!(error.to_string().contains("redirect, which is not followed"), "{error}");
    assert!(elsewhere.sidecar.calls().is_empty());
    let error = engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
    assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
}

#[test]
fn addresses_that_no_pod_has_are_never_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let dialled = |ip: &str, allow_loopback| {
        let target = EngineTarget { ip: ip.parse().unwrap(), allow_loopback, ..target(&dir, 8080) };
        connect(EngineKind::Http, target).map(|_| ())
    };
    for ip in [
        "169.254.169.254",
        "169.254.170.23",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "::",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
    ] {
        let error = dialled(ip, true).unwrap_err();
        assert!(matches!(error, EngineError::Forbidden { .. }), "{ip}: {error}");
    }
    for ip in ["127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1"] {
        assert!(dialled(ip, false).is_err(), "{ip}");
        assert!(dialled(ip, true).is_ok(), "{ip}");
    }
    for ip in ["10.0.0.7", "100.64.0.1", "fd12:3456::7"] {
        assert!(dialled(ip, false).is_ok(), "{ip}");
    }
    let https = EngineTarget { scheme: Scheme::Https, ..target(&dir, 8080) };
    let error = connect(EngineKind::Http, https).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("lifeboat.dev/scheme"), "{error}");
}

async fn conforms(pod: &Pod) -> crate::conformance::ConformanceReport {
    let options = ConformanceOptions {
        token: Some(TOKEN.to_owned()),
        state_dir: pod.dir.path().to_owned(),
        patience: Span::from_secs(5),
    };
    conformance(&format!("http://{}", pod.sidecar.addr()), options).await.unwrap()
}

#[tokio::test]
async fn our_sidecar_conforms_whether_it_answers_at_once_or_later() {
    for bytes in [300_000, 3_000_000] {
        let pod = Pod::with(Some(bytes), None, "blake3:1").await;
        let digest = pod.sidecar.state_digest();
        let report = conforms(&pod).await;
        assert!(report.conforms(), "{report}");
        assert!(report.checks.iter().all(|check| check.verdict == Verdict::Kept), "{report}");
        assert_eq!(pod.sidecar.state_digest(), digest, "its state is what it was");
    }
}

#[tokio::test]
async fn the_specification_lists_exactly_the_sentences_that_are_tested() {
    let specification = include_str!("../../../../docs/protocol.md");
    let (_, table) = specification.split_once("| sentence |\n|---|\n").unwrap();
    let listed: Vec<&str> = table.lines().map(|line| line.trim_matches(['|', ' '])).collect();
    let report = conforms(&Pod::stateful().await).await;
    let mut tested: Vec<&str> = report.checks.iter().map(|check| check.sentence).collect();
    tested.dedup();
    assert_eq!(listed, tested);
}

#[test]
fn the_examples_of_the_specification_are_what_the_types_say() {
    let specification = include_str!("../../../../docs/protocol.md");
    let examples: Vec<&str> =
        specification.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [info, flush, flushed, operations, restore, restored] = examples.as_slice() else {
        panic!("{}", examples.len())
    };
    let info: Info = serde_json::from_str(info).unwrap();
    assert_eq!((info.protocol, info.restored.unwrap().tokens), (PROTOCOL, Some(3617)));
    serde_json::from_str::<crate::contract::FlushRequest>(flush).unwrap();
    serde_json::from_str::<RestoreRequest>(restore).unwrap();
    for operation in operations.lines().chain([*flushed, *restored]) {
        serde_json::from_str::<Operation>(operation).unwrap();
    }
}

#[tokio::test]
async fn a_sidecar_that_misbehaves_does_not_conform() {
    for behaviour in [Behaviour::Html, Behaviour::Lies, Behaviour::WritesGarbage] {
        let pod = Pod::stateful().await;
        pod.sidecar.set_behaviour(behaviour);
        let report = conforms(&pod).await;
        assert!(!report.conforms(), "{behaviour:?}:\n{report}");
    }
}
