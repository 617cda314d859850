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

/// Two slots (or `more`), each with some tokens; what it is asked is written down.
#[derive(Default)]
struct Script {
    /// So many slots beside the two.
    more: u64,
    /// Slots whose save is answered so.
    refused: Lock<HashMap<u64, (u16, &'static str)>>,
    /// What completions in these slots find in their cache, where it is not `cache_n`.
    found: HashMap<u64, u64>,
    /// The tasks that slots have run last, where they are not their numbers.
    ran: Lock<HashMap<u64, i64>>,
    /// Another slot answers every completion.
    answers: Option<u64>,
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
    let ran = script.ran.lock().unwrap();
    let task = |id: u64| ran.get(&id).copied().unwrap_or(id as i64);
    let slot = |id: u64| json!({ "id": id, "is_processing": busy.contains(&id), "id_task": task(id), "n_prompt_tokens": tokens.get(&id) });
    Json((0..2 + script.more).map(slot).collect())
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
    let refused = script.refused.lock().unwrap().get(&id).copied();
    match action.as_str() {
        "save" if refused.is_some() => {
            let (status, message) = refused.unwrap();
            let body = Json(json!({ "error": { "code": status, "message": message } }));
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        }
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
    let cache_n = script.found.get(&id).copied().unwrap_or(script.cache_n);
    let id = script.answers.unwrap_or(id);
    Json(
        json!({ "id_slot": id, "tokens": [5], "timings": { "cache_n": cache_n }, "completion_probabilities": probabilities }),
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
    let instead = "what it held at the flush before is in its place";
    assert_eq!(cut.missing, [format!("slot 0: its generation did not end in time; {instead}")]);
    assert_eq!(cut.bytes, 40 + 80 + 40 + 160);
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
    let reuse = engine.verify(&flushed.facts, within(5000)).await.unwrap();
    let why =
        "slot 0: the format of its file is not understood; slot 1: the format of its file is not understood";
    assert_eq!(reuse, Verification::NotShown { why: why.to_owned() });
    assert!(script.asked.lock().unwrap().is_empty());
}

/// Two restored slots of ten tokens each.
fn restored(dir: &tempfile::TempDir) -> Map<String, Value> {
    let slots = [0, 1].map(|id| {
        let head = [0x6767_7371_u32, 4, 10].into_iter().chain(1..=10).flat_map(u32::to_le_bytes);
        std::fs::write(dir.path().join(facts::file_of(id)), head.collect::<Vec<u8>>()).unwrap();
        facts::SlotFacts { id, tokens: 10, bytes: 52, file: facts::file_of(id) }
    });
    facts::write(&slots)
}

fn with_ten_each(dir: &tempfile::TempDir) -> Script {
    Script { tokens: Lock::new(HashMap::from([(0, 10), (1, 10)])), ..used(dir) }
}

#[tokio::test]
async fn a_server_that_restores_in_name_only_is_found_out_and_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let facts = restored(&dir);
    let (script, port) = start(with_ten_each(&dir)).await;
    let reuse = engine(dir.path(), port, "a").verify(&facts, within(5000)).await.unwrap();
    let Verification::NotUsed { why } = reuse else { panic!("{reuse:?}") };
    assert!(why.contains("slot 1 found 0 of its 10 tokens in its cache"), "{why}");
    let asked = script.asked.lock().unwrap().clone();
    assert_eq!(asked[asked.len() - 2..], ["erase 0", "erase 1"], "{asked:?}");
}

#[tokio::test]
async fn a_restore_that_one_slot_shows_to_be_used_is_used() {
    for (found, tokens) in [([(0, 9), (1, 9)], 18), ([(0, 9), (1, 0)], 9)] {
        let dir = tempfile::tempdir().unwrap();
        let facts = restored(&dir);
        let (script, port) = start(Script { found: HashMap::from(found), ..with_ten_each(&dir) }).await;
        let reuse = engine(dir.path(), port, "a").verify(&facts, within(5000)).await;
        assert_eq!(reuse, Ok(Verification::Used { tokens }));
        let asked = script.asked.lock().unwrap().clone();
        assert_eq!(asked, ["complete 0", "restore 0", "complete 1", "restore 1"], "nothing is erased");
    }
}

#[tokio::test]
async fn a_restore_of_which_no_slot_answers_for_itself_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let facts = restored(&dir);
    let (script, port) = start(Script { answers: Some(1), ..with_ten_each(&dir) }).await;
    script.busy.lock().unwrap().push(1);
    let reuse = engine(dir.path(), port, "a").verify(&facts, within(5000)).await.unwrap();
    let why = "slot 0: slot 1 answered in its place; slot 1: it is busy".to_owned();
    assert_eq!(reuse, Verification::NotShown { why });
    let asked = script.asked.lock().unwrap().clone();
    assert_eq!(asked, ["complete 0", "restore 0", "restore 1"], "what ran a task holds again what was saved");
}

const IMAGE: (u16, &str) = (501, "This feature is not supported by multimodal");

/// Three slots that were used.
fn three(dir: &tempfile::TempDir) -> Script {
    let tokens = HashMap::from([(0, 10), (1, 20), (2, 30)]);
    Script { more: 1, tokens: Lock::new(tokens), ..used(dir) }
}

#[tokio::test]
async fn a_slot_that_cannot_be_saved_is_named_and_costs_no_other() {
    for refused in [IMAGE, (500, "Unable to save slot"), (503, "Loading model"), (429, "later")] {
        let dir = tempfile::tempdir().unwrap();
        let (script, port) = start(three(&dir)).await;
        script.refused.lock().unwrap().insert(1, refused);
        let engine = engine(dir.path(), port, "a");
        let flushed = engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap();
        assert_eq!(flushed.missing, [format!("slot 1: answered {}: {}", refused.0, refused.1)]);
        let files: Vec<&str> = flushed.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, ["lifeboat-slot-0.bin", "lifeboat-slot-2.bin"]);
        assert_eq!(flushed.bytes, 40 + 80 + 40 + 240);
    }
}

#[tokio::test]
async fn a_flush_that_could_save_no_slot_fails_with_the_reason() {
    let (full, image) = ((500, "Unable to save slot"), FailureKind::Permanent);
    for (second, kind) in [(IMAGE, image), (full, FailureKind::Transient)] {
        let dir = tempfile::tempdir().unwrap();
        let (script, port) = start(three(&dir)).await;
        script.refused.lock().unwrap().extend([(0, IMAGE), (1, second), (2, IMAGE)]);
        let engine = engine(dir.path(), port, "a");
        for round in [FlushKind::PreCopy, FlushKind::Final] {
            let error = engine.flush(round, "1", within(5000)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(second.1), "{error}");
        }
    }
    // The same of slots that are only busy: nothing was saved, and nobody says that there was nothing.
    let dir = tempfile::tempdir().unwrap();
    let (_, port) = start(Script { busy: Lock::new(vec![0, 1]), ..used(&dir) }).await;
    let engine = engine(dir.path(), port, "a");
    let busy = engine.flush(FlushKind::PreCopy, "1", within(5000)).await.unwrap_err();
    assert_eq!(busy.kind(), FailureKind::Throttled, "{busy}");
    let late = engine.flush(FlushKind::Final, "2", within(400)).await.unwrap_err();
    assert!(matches!(late, EngineError::TimedOut { .. }), "{late}");
}

#[tokio::test]
async fn a_slot_that_cannot_be_saved_now_keeps_its_file_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(three(&dir)).await;
    let pod = engine(dir.path(), port, "a");
    pod.flush(FlushKind::PreCopy, "1", within(5000)).await.unwrap();
    script.refused.lock().unwrap().insert(1, IMAGE);
    script.tokens.lock().unwrap().extend([(1, 70), (2, 31)]);
    let flushed = pod.flush(FlushKind::Final, "2", within(5000)).await.unwrap();
    let instead = "what it held at the flush before is in its place";
    assert_eq!(flushed.missing, [format!("slot 1: answered {}: {}; {instead}", IMAGE.0, IMAGE.1)]);
    let tokens: Vec<u64> = facts::read(&flushed.facts, "").unwrap().iter().map(|slot| slot.tokens).collect();
    assert_eq!(tokens, [10, 20, 31], "with the facts of that file");
    assert_eq!(flushed.bytes, 40 + 80 + 40 + 160 + 40 + 248);
    // Another life does not know the file, and a file that is not what was saved is not used.
    let stranger = engine(dir.path(), port, "b");
    assert_eq!(stranger.flush(FlushKind::Final, "3", within(5000)).await.unwrap().files.len(), 2);
    std::fs::write(dir.path().join("lifeboat-slot-1.bin"), "short").unwrap();
    let flushed = pod.flush(FlushKind::Final, "4", within(5000)).await.unwrap();
    assert_eq!((flushed.files.len(), flushed.missing[0].contains(instead)), (2, false), "{flushed:?}");
    // It never takes the room of what was saved now.
    let allowed = EngineTarget { max_bytes: Some(420), ..target(dir.path(), port, "a") };
    let pod = connect(EngineKind::LlamaServer, allowed).unwrap();
    script.refused.lock().unwrap().clear();
    script.tokens.lock().unwrap().extend([(0, 5), (1, 5), (2, 5)]);
    pod.flush(FlushKind::PreCopy, "5", within(5000)).await.unwrap();
    script.tokens.lock().unwrap().insert(0, 32);
    script.refused.lock().unwrap().insert(2, IMAGE);
    let flushed = pod.flush(FlushKind::Final, "6", within(5000)).await.unwrap();
    assert_eq!(flushed.bytes, 40 + 256 + 40 + 40, "{flushed:?}");
    assert_eq!(flushed.missing, [format!("slot 2: answered {}: {}", IMAGE.0, IMAGE.1)]);
}

#[tokio::test]
async fn an_answer_about_the_server_fails_the_whole_flush() {
    let flag = "This server does not support slots action. Start it with `--slot-save-path`";
    for (status, message, kind) in [
        (404, "File Not Found", FailureKind::Permanent),
        (401, "Invalid API Key", FailureKind::Permanent),
        (403, "no", FailureKind::Permanent),
        (501, flag, FailureKind::Permanent),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (script, port) = start(three(&dir)).await;
        script.refused.lock().unwrap().insert(1, (status, message));
        let engine = engine(dir.path(), port, "a");
        let error = engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_slot_whose_content_cannot_be_saved_is_never_probed() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(three(&dir)).await;
    // The one used longest ago holds an image.
    script.refused.lock().unwrap().insert(0, IMAGE);
    let first = engine(dir.path(), port, "a");
    let looked = first.look(within(5000)).await.unwrap();
    assert!(looked.fingerprint.probe.is_some());
    assert_eq!(*script.asked.lock().unwrap(), ["save 0", "save 1", "complete 1", "save 1", "restore 1"]);
    // Where none can be saved the look answers all the same, without evidence.
    script.refused.lock().unwrap().extend([(1, IMAGE), (2, (500, "Unable to save slot"))]);
    script.asked.lock().unwrap().clear();
    let second = engine(dir.path(), port, "b");
    let looked_at = second.look(within(5000)).await.unwrap();
    assert!(looked_at.fingerprint.probe.is_none() && looked_at.state_bytes > 0);
    assert_eq!(*script.asked.lock().unwrap(), ["save 0", "save 1", "save 2"]);
    // But nothing is restored into a server that was not probed.
    let refused = second.prove(&looked.fingerprint, within(2000)).await.unwrap_err();
    assert!(refused.to_string().contains(IMAGE.1), "{refused}");
}

#[tokio::test]
async fn evidence_is_taken_after_the_last_flush_in_the_smallest_slot_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(three(&dir)).await;
    // The smallest holds an image; the next one is used again after the flush.
    script.refused.lock().unwrap().insert(0, IMAGE);
    let engine = engine(dir.path(), port, "a");
    assert!(engine.evidence(within(2000)).await.is_err(), "nothing was flushed");
    engine.flush(FlushKind::Final, "1", within(5000)).await.unwrap();
    script.busy.lock().unwrap().push(1);
    script.asked.lock().unwrap().clear();
    let evidence = engine.evidence(within(2000)).await.unwrap();
    assert!(evidence.probe.is_some());
    assert_eq!(*script.asked.lock().unwrap(), ["complete 2", "restore 2"]);
    // It is known from here on.
    script.asked.lock().unwrap().clear();
    assert_eq!(engine.evidence(within(2000)).await.unwrap(), evidence);
    assert!(script.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_slot_is_probed_after_the_last_flush_that_was_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (script, port) = start(three(&dir)).await;
    let engine = engine(dir.path(), port, "a");
    engine.flush(FlushKind::PreCopy, "1", within(5000)).await.unwrap();
    // What an earlier flush saved is not what the slot holds; what ran a task since, or lost its file, neither.
    script.refused.lock().unwrap().insert(0, IMAGE);
    engine.flush(FlushKind::Final, "2", within(5000)).await.unwrap();
    script.ran.lock().unwrap().insert(1, 50);
    std::fs::remove_file(dir.path().join("lifeboat-slot-2.bin")).unwrap();
    script.asked.lock().unwrap().clear();
    let none = engine.evidence(within(2000)).await.unwrap_err();
    assert_eq!(none.kind(), FailureKind::Throttled, "{none}");
    assert!(script.asked.lock().unwrap().is_empty());
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
