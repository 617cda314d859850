//! A stand-in that answers like llama-server (the shapes that llama.cpp 0.7.0, build 11669, answered with), for what the
//! real one cannot be made to do on demand.

use super::*;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use evacuation::event::FailureKind;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex as Lock;

/// Two slots, each with some tokens; what it is asked is written down.
#[derive(Default)]
struct Script {
    dir: PathBuf,
    tokens: Lock<HashMap<u64, u64>>,
    busy: Lock<Vec<u64>>,
    asked: Lock<Vec<String>>,
    /// Saves answer that nothing was there.
    emptied: bool,
    /// Saves write less than they say.
    short: bool,
    /// Tokens that a completion finds in its cache.
    cache_n: u64,
}

type Shared = Arc<Script>;

async fn start(script: Script) -> (Shared, u16) {
    let shared = Arc::new(script);
    let router = axum::Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/props", get(|| async {
            Json(json!({ "build_info": "b1", "model_path": "/m/x.gguf", "total_slots": 2, "default_generation_settings": { "n_ctx": 64 } }))
        }))
        .route("/slots", get(slots))
        .route("/slots/{id}", post(act))
        .route("/completion", post(complete))
        .with_state(Arc::clone(&shared));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (shared, port)
}

async fn slots(State(script): State<Shared>) -> Json<Value> {
    let (tokens, busy) = (script.tokens.lock().unwrap(), script.busy.lock().unwrap());
    let slot = |id: u64| json!({ "id": id, "is_processing": busy.contains(&id), "id_task": id, "n_prompt_tokens": tokens.get(&id) });
    Json(json!([slot(0), slot(1)]))
}

async fn act(
    State(script): State<Shared>,
    Path(id): Path<u64>,
    Query(query): Query<HashMap<String, String>>,
    Json(body): Json<Value>,
) -> Response {
    let action = query["action"].clone();
    script.asked.lock().unwrap().push(format!("{action} {id}"));
    let tokens = script.tokens.lock().unwrap().get(&id).copied().unwrap_or(0);
    match action.as_str() {
        "save" => {
            let file = script.dir.join(body["filename"].as_str().unwrap());
            let script = Arc::clone(&script);
            // A task of its own: the real one carries a save out even if nobody waits for it any more.
            let saving = tokio::spawn(async move {
                while script.busy.lock().unwrap().contains(&id) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                let tokens = script.tokens.lock().unwrap().get(&id).copied().unwrap_or(0);
                let n_saved = if script.emptied { 0 } else { tokens };
                let content = vec![7_u8; usize::try_from(40 + n_saved * 8).unwrap()];
                std::fs::write(file, if script.short { &content[..20] } else { &content[..] }).unwrap();
                json!({ "n_saved": n_saved, "n_written": content.len() })
            });
            Json(saving.await.unwrap()).into_response()
        }
        "restore" if script.dir.join(body["filename"].as_str().unwrap()).exists() => {
            Json(json!({ "n_restored": tokens })).into_response()
        }
        "restore" => {
            (StatusCode::BAD_REQUEST, Json(json!({ "error": { "message": "Unable to restore slot" } })))
                .into_response()
        }
        _ => {
            script.tokens.lock().unwrap().insert(id, 0);
            Json(json!({ "n_erased": tokens })).into_response()
        }
    }
}

async fn complete(State(script): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    let id = body["id_slot"].as_u64().unwrap();
    script.asked.lock().unwrap().push(format!("complete {id}"));
    let probabilities = json!([{ "top_logprobs": [{ "id": 5, "logprob": -0.5 }] }]);
    Json(
        json!({ "id_slot": id, "tokens": [5], "timings": { "cache_n": script.cache_n }, "completion_probabilities": probabilities }),
    )
}

fn used(dir: &tempfile::TempDir) -> Script {
    Script {
        dir: dir.path().to_owned(),
        tokens: Lock::new(HashMap::from([(0, 10), (1, 20)])),
        ..Script::default()
    }
}

#[tokio::test]
async fn a_busy_slot_is_never_probed_and_the_fingerprint_then_lacks_its_probe() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(Script { busy: Lock::new(vec![0, 1]), ..used(&dir) }).await;
    let engine = engine(dir.path(), port, "a");
    let looked = engine.look(within(5000)).await.unwrap();
    assert!(looked.busy && looked.fingerprint.probe.is_none());
    assert!(script.asked.lock().unwrap().is_empty(), "{:?}", script.asked.lock().unwrap());
    // As soon as one is idle it is probed, and what it held is put back.
    script.busy.lock().unwrap().retain(|id| *id != 1);
    assert!(engine.look(within(5000)).await.unwrap().fingerprint.probe.is_some());
    assert_eq!(*script.asked.lock().unwrap(), ["save 1", "complete 1", "save 1", "restore 1"]);
    assert_eq!(names(dir.path()), [".lifeboat"], "nothing of the probe is left");
}

#[tokio::test]
async fn an_empty_slot_is_probed_before_a_used_one_and_erased_after() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(Script { tokens: Lock::new(HashMap::from([(0, 10)])), ..used(&dir) }).await;
    engine(dir.path(), port, "a").look(within(5000)).await.unwrap();
    assert_eq!(*script.asked.lock().unwrap(), ["save 1", "complete 1", "save 1", "erase 1"]);
}

#[tokio::test]
async fn slots_that_were_used_and_save_nothing_name_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let (_, port) = start(Script { emptied: true, ..used(&dir) }).await;
    let error = engine(dir.path(), port, "a").flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
    assert!(error.to_string().contains("--no-cache-idle-slots"), "{error}");
    assert_eq!(error.kind(), FailureKind::Permanent);
    assert_eq!(names(dir.path()), [".lifeboat"], "an empty file is not kept: servers crashed on those");
}

#[tokio::test]
async fn a_file_that_is_shorter_than_it_says_is_a_broken_promise() {
    let dir = tempfile::tempdir().unwrap();
    let (_, port) = start(Script { short: true, ..used(&dir) }).await;
    let error = engine(dir.path(), port, "a").flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
    assert!(matches!(error, EngineError::BrokenPromise { .. }), "{error}");
}

#[tokio::test]
async fn a_late_save_does_not_change_the_file_that_was_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(used(&dir)).await;
    let engine = engine(dir.path(), port, "a");
    engine.flush(FlushKind::PreCopy, "1", within(5000)).await.unwrap();
    let reading = std::fs::File::open(dir.path().join("lifeboat-slot-0.bin")).unwrap();
    script.tokens.lock().unwrap().insert(0, 999);
    script.busy.lock().unwrap().push(0);
    let cut = engine.flush(FlushKind::Final, "2", within(500)).await.unwrap();
    assert_eq!(cut.missing, ["slot 0: its generation did not end in time"]);
    // The server carries the save out after we have gone.
    script.busy.lock().unwrap().clear();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(names(dir.path()).contains(&"lifeboat-saving-0.bin".to_owned()), "it was carried out");
    assert_eq!(reading.metadata().unwrap().len(), 40 + 80);
    assert_eq!(std::fs::metadata(dir.path().join("lifeboat-slot-0.bin")).unwrap().len(), 40 + 80);
}

#[tokio::test]
async fn what_is_more_than_allowed_is_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, port) = start(used(&dir)).await;
    let target = EngineTarget { max_bytes: Some(250), ..target(dir.path(), port, "a") };
    let flushed = connect(EngineKind::LlamaServer, target)
        .unwrap()
        .flush(FlushKind::Final, "1", within(5000))
        .await
        .unwrap();
    assert_eq!(flushed.files.len(), 1);
    assert_eq!(flushed.files[0].path, "lifeboat-slot-1.bin", "the one used last is worth the most");
    assert!(flushed.missing[0].contains("lifeboat.dev/max-bytes"), "{:?}", flushed.missing);
}

#[tokio::test]
async fn a_restore_of_which_one_slot_fails_leaves_none_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(used(&dir)).await;
    let engine = engine(dir.path(), port, "a");
    let flushed = engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap();
    std::fs::remove_file(dir.path().join("lifeboat-slot-1.bin")).unwrap();
    script.asked.lock().unwrap().clear();
    let files: Vec<String> = flushed.files.iter().map(|file| file.path.clone()).collect();
    let error = engine.hand_over(&flushed.facts, &files, within(5000)).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Mismatch);
    assert_eq!(*script.asked.lock().unwrap(), ["restore 0", "restore 1", "erase 0", "erase 1"]);
}

#[tokio::test]
async fn a_slot_file_that_is_not_understood_leaves_the_restore_unverified() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(used(&dir)).await;
    let engine = engine(dir.path(), port, "a");
    let flushed = engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap();
    script.asked.lock().unwrap().clear();
    assert_eq!(engine.verify(&flushed.facts, within(5000)).await, Ok(None));
    assert!(script.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_restores_in_name_only_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    for (cache_n, shown) in [(0, false), (9, true)] {
        let (_, port) = start(Script { cache_n, ..used(&dir) }).await;
        let engine = engine(dir.path(), port, "a");
        let head = [0x6767_7371_u32, 4, 10].into_iter().chain(1..=10).flat_map(u32::to_le_bytes);
        std::fs::write(dir.path().join("lifeboat-slot-0.bin"), head.collect::<Vec<u8>>()).unwrap();
        let facts =
            facts::write(&[facts::SlotFacts { id: 0, tokens: 10, bytes: 52, file: facts::file_of(0) }]);
        let verified = engine.verify(&facts, within(5000)).await;
        match shown {
            true => assert_eq!(verified, Ok(Some(9))),
            false => assert_eq!(verified.unwrap_err().kind(), FailureKind::Mismatch),
        }
    }
}

#[tokio::test]
async fn facts_that_name_another_file_are_not_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(used(&dir)).await;
    let slot = facts::SlotFacts { id: 0, tokens: 1, bytes: 1, file: "../../etc/passwd".to_owned() };
    let engine = engine(dir.path(), port, "a");
    for facts in [facts::write(std::slice::from_ref(&slot)), Map::new()] {
        let error =
            engine.hand_over(&facts, std::slice::from_ref(&slot.file), within(5000)).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Mismatch);
    }
    assert!(script.asked.lock().unwrap().is_empty());
}
