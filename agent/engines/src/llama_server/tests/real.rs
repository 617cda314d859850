//! Runs where `LIFEBOAT_LLAMA_SERVER` names the binary and `LIFEBOAT_LLAMA_MODEL` a model (`tests/run` prepares both).
//! `LIFEBOAT_LLAMA_OTHER_MODEL` is one of the same shape with other weights.

use super::*;
use evacuation::event::FailureKind;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

struct Server {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Server {
    fn start(dir: &Path, model: &str, more: &[&str]) -> Self {
        let binary = std::env::var("LIFEBOAT_LLAMA_SERVER").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(binary)
            .args(["-m", model, "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["-c", "4096", "-np", "2", "-t", "1", "--offline"])
            .args(["--slot-save-path", dir.to_str().unwrap()])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, dir: dir.to_owned() }
    }

    fn engine(&self, life: &str) -> Arc<dyn Engine> {
        engine(&self.dir, self.port, life)
    }

    async fn complete(&self, slot: u64, prompt: &str, tokens: u32) -> Value {
        let body = json!({ "prompt": prompt, "n_predict": tokens, "temperature": 0, "id_slot": slot, "cache_prompt": true,
                           "ignore_eos": true, "seed": 1 });
        let answer = reqwest::Client::new()
            .post(format!("http://127.0.0.1:{}/completion", self.port))
            .json(&body)
            .send();
        answer.await.unwrap().json().await.unwrap()
    }

    async fn slots(&self) -> Value {
        reqwest::get(format!("http://127.0.0.1:{}/slots", self.port)).await.unwrap().json().await.unwrap()
    }

    async fn up(&self) {
        let health = format!("http://127.0.0.1:{}/health", self.port);
        for _ in 0..300 {
            if reqwest::get(&health).await.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("llama-server did not come up");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The model, if this part can run here.
fn model() -> Option<String> {
    let (server, model) = (std::env::var("LIFEBOAT_LLAMA_SERVER"), std::env::var("LIFEBOAT_LLAMA_MODEL"));
    match (server, model) {
        (Ok(_), Ok(model)) => Some(model),
        _ => {
            assert!(std::env::var_os("CI").is_none(), "in CI every part runs: use tests/run unit");
            println!("not run: LIFEBOAT_LLAMA_SERVER and LIFEBOAT_LLAMA_MODEL are not set");
            None
        }
    }
}

const TIDY: &[&str] = &["--no-cache-idle-slots"];
const FIRST: &str =
    "The first conversation is about lighthouses, and goes on for a while about their keepers.";
const SECOND: &str =
    "Another one asks for the shortest way from the harbour to the old town, with a stop for tea.";

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_move_to_another_server_which_goes_on_from_its_cache() {
    let Some(model) = model() else { return };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = Server::start(here.path(), &model, TIDY);
    let new = Server::start(there.path(), &model, TIDY);
    old.up().await;
    // As in life: the agent looks when the server comes up, and its probe finds an empty slot.
    let engine = old.engine("a");
    engine.look(within(20_000)).await.unwrap();
    let one = old.complete(1, SECOND, 8).await["content"].as_str().unwrap().to_owned();
    let zero = old.complete(0, FIRST, 8).await["content"].as_str().unwrap().to_owned();

    let looked = engine.look(within(20_000)).await.unwrap();
    assert!(!looked.busy && looked.state_bytes > 100_000, "{looked:?}");
    assert_eq!(looked.fingerprint.probe.as_ref().unwrap().tokens.len(), 6);
    let flushed = engine.flush(FlushKind::Final, "1", within(20_000)).await.unwrap();
    assert!(!flushed.is_partial(), "{flushed:?}");
    assert_eq!(names(here.path()), [".lifeboat", "lifeboat-slot-0.bin", "lifeboat-slot-1.bin"]);
    let order: Vec<&str> = flushed.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(order, ["lifeboat-slot-1.bin", "lifeboat-slot-0.bin"], "the one used longest ago first");
    // What a generation ended with is the same after all that.
    let slots = old.slots().await;

    for file in &flushed.files {
        std::fs::copy(here.path().join(&file.path), there.path().join(&file.path)).unwrap();
    }
    let engine = new.engine("b");
    let proven = engine.prove(&looked.fingerprint, within(30_000)).await.unwrap();
    assert_eq!(proven.state_bytes, 0, "the probe leaves nothing behind");
    let paths: Vec<String> = order.iter().map(|path| (*path).to_owned()).collect();
    let tokens = engine.hand_over(&flushed.facts, &paths, within(20_000)).await.unwrap().unwrap();
    let saved: u64 =
        slots.as_array().unwrap().iter().map(|slot| slot["n_prompt_tokens"].as_u64().unwrap()).sum();
    assert_eq!(tokens, saved);
    let shown = engine.verify(&flushed.facts, within(20_000)).await.unwrap();
    assert_eq!(shown, Verification::Used { tokens: tokens - 2 }, "all but the last token of each slot");
    // Verifying changed nothing: the slot is saved as the same bytes, and the conversation goes on from its cache.
    let again = engine.flush(FlushKind::PreCopy, "2", within(20_000)).await.unwrap();
    for file in &again.files {
        let (was, is) =
            (std::fs::read(here.path().join(&file.path)), std::fs::read(there.path().join(&file.path)));
        assert!(was.unwrap() == is.unwrap(), "{} differs", file.path);
    }
    for (slot, prompt, answer) in [(0, FIRST, &zero), (1, SECOND, &one)] {
        let longer = format!("{prompt}{answer} And then?");
        let moved = new.complete(slot, &longer, 8).await;
        let stayed = old.complete(slot, &longer, 8).await;
        assert_eq!(moved["content"], stayed["content"]);
        assert_eq!(moved["timings"]["cache_n"], stayed["timings"]["cache_n"]);
        assert!(
            moved["timings"]["cache_n"].as_u64().unwrap() * 10
                > slots[slot as usize]["n_prompt_tokens"].as_u64().unwrap() * 9
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_of_another_model_at_the_same_path_are_refused_by_name() {
    let Some(model) = model() else { return };
    let other =
        std::env::var("LIFEBOAT_LLAMA_OTHER_MODEL").expect("tests/run unit sets it with the other two");
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = here.path().join("model.gguf");
    std::fs::copy(&model, &path).unwrap();
    let old = Server::start(here.path(), path.to_str().unwrap(), TIDY);
    old.up().await;
    let expected = old.engine("a").look(within(20_000)).await.unwrap().fingerprint;
    drop(old);
    // The same path, the same arguments, the same shape.
    std::fs::copy(&other, &path).unwrap();
    let new = Server::start(there.path(), path.to_str().unwrap(), TIDY);
    let error = new.engine("b").prove(&expected, within(30_000)).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Mismatch);
    assert!(error.to_string().contains("the weights probe differs"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_are_refused_where_quantisation_cache_type_context_or_slots_differ() {
    let Some(model) = model() else { return };
    let quantized =
        std::env::var("LIFEBOAT_LLAMA_QUANTIZED_MODEL").expect("tests/run unit sets it with the other three");
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("model.gguf");
    std::fs::copy(&model, &path).unwrap();
    let old = Server::start(here.path(), path.to_str().unwrap(), TIDY);
    old.up().await;
    let engine = old.engine("a");
    engine.look(within(20_000)).await.unwrap();
    old.complete(0, FIRST, 8).await;
    let expected = engine.look(within(20_000)).await.unwrap().fingerprint;
    let flushed = engine.flush(FlushKind::Final, "1", within(20_000)).await.unwrap();
    drop(old);
    let paths: Vec<String> = flushed.files.iter().map(|file| file.path.clone()).collect();
    // Another type of cache is no fact that the server tells: the probe shows it here, and where it would not, the server
    // itself refuses the slot.
    let probe = "the weights probe differs";
    let cases: [(&str, &[&str], &str); 5] = [
        (&quantized, &[], "quantisation differs"),
        (&model, &["-c", "2048"], "context differs"),
        (&model, &["-np", "4", "-c", "8192"], "slots differs"),
        (&model, &["-ctk", "q8_0"], probe),
        (&model, &["-fa", "on", "-ctv", "q8_0"], probe),
    ];
    for (model, more, named) in cases {
        let there = tempfile::tempdir().unwrap();
        std::fs::copy(model, &path).unwrap();
        let new = Server::start(there.path(), path.to_str().unwrap(), &[TIDY, more].concat());
        for file in &paths {
            std::fs::copy(here.path().join(file), there.path().join(file)).unwrap();
        }
        let engine = new.engine("b");
        let error = engine.prove(&expected, within(30_000)).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Mismatch, "{more:?}: {error}");
        assert!(error.to_string().contains(named), "{more:?}: {error}");
        if named == probe {
            let error = engine.hand_over(&flushed.facts, &paths, within(20_000)).await.unwrap_err();
            assert_eq!(error.kind(), FailureKind::Mismatch, "{more:?}: {error}");
            assert!(error.to_string().contains("invalid slot save file"), "{more:?}: {error}");
        }
        // It serves all the same.
        assert_eq!(new.complete(0, FIRST, 2).await["tokens_predicted"], 2, "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_that_generate_are_not_waited_for_by_a_pre_copy_and_are_by_the_last_flush() {
    let Some(model) = model() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(Server::start(dir.path(), &model, TIDY));
    server.up().await;
    server.complete(1, SECOND, 8).await;
    let engine = server.engine("a");
    engine.look(within(20_000)).await.unwrap();
    let generating = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.complete(0, FIRST, 1500).await }
    });
    while server.slots().await[0]["is_processing"] != true {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let before = clock::now();
    let first = engine.flush(FlushKind::PreCopy, "1", within(20_000)).await.unwrap();
    assert_eq!(first.missing, ["slot 0: it is busy"]);
    assert_eq!(first.files.len(), 1);
    assert!(engine.look(within(5000)).await.unwrap().busy, "it still generates");
    let deadline = within(300);
    let cut = engine.flush(FlushKind::Final, "2", deadline).await.unwrap();
    assert!(clock::now() <= deadline, "the answer comes before the deadline");
    assert_eq!(cut.missing, ["slot 0: its generation did not end in time"]);
    assert_eq!(cut.files.len(), 1, "the idle one is there");
    let last = engine.flush(FlushKind::Final, "3", within(60_000)).await.unwrap();
    assert!(generating.is_finished() || clock::now().since(before).as_millis() > 0);
    assert!(!last.is_partial(), "{last:?}");
    assert_eq!(last.files.len(), 2);
    generating.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_are_what_they_were_after_the_probe() {
    let Some(model) = model() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &model, TIDY);
    server.up().await;
    // Every slot is used, so the probe has to borrow one.
    for (slot, prompt) in [(0, FIRST), (1, SECOND)] {
        server.complete(slot, prompt, 8).await;
    }
    let engine = server.engine("a");
    let before = engine.flush(FlushKind::PreCopy, "1", within(20_000)).await.unwrap();
    let bytes = |flushed: &Flushed| -> Vec<Vec<u8>> {
        flushed.files.iter().map(|file| std::fs::read(dir.path().join(&file.path)).unwrap()).collect()
    };
    let was = bytes(&before);
    engine.look(within(20_000)).await.unwrap();
    let after = engine.flush(FlushKind::PreCopy, "2", within(20_000)).await.unwrap();
    let mut is = bytes(&after);
    // The probed slot is now the one that was used last.
    is.rotate_right(1);
    assert!(was == is, "a conversation was changed by the probe");
    assert_eq!(names(dir.path()), [".lifeboat", "lifeboat-slot-0.bin", "lifeboat-slot-1.bin"]);
    // A second agent in the same life asks nothing of the slots.
    let tasks = server.slots().await;
    server.engine("a").look(within(20_000)).await.unwrap();
    assert_eq!(server.slots().await, tasks);
    server.engine("another life").look(within(20_000)).await.unwrap();
    assert_ne!(server.slots().await, tasks);
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_that_cannot_be_saved_cost_no_other() {
    let Some(model) = model() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &model, TIDY);
    server.up().await;
    for (slot, prompt) in [(0, FIRST), (1, SECOND)] {
        server.complete(slot, prompt, 8).await;
    }
    // A file that cannot be written: the server answers 500 for this slot. What is in the way is removed after.
    let in_the_way = |slot: u64| {
        std::fs::create_dir(dir.path().join(format!("lifeboat-saving-{slot}.bin"))).unwrap();
    };
    in_the_way(0);
    let engine = server.engine("a");
    let flushed = engine.flush(FlushKind::Final, "1", within(20_000)).await.unwrap();
    assert_eq!(flushed.missing, ["slot 0: answered 500: Unable to save slot"]);
    assert_eq!(flushed.files.len(), 1);
    // None of them: then the flush has failed, and may be tried again.
    in_the_way(0);
    in_the_way(1);
    let error = engine.flush(FlushKind::Final, "2", within(20_000)).await.unwrap_err();
    assert!(error.to_string().contains("Unable to save slot"), "{error}");
    assert_eq!(error.kind(), FailureKind::Transient);
    in_the_way(1);
    let flushed = engine.flush(FlushKind::Final, "3", within(20_000)).await.unwrap();
    let instead =
        "slot 1: answered 500: Unable to save slot; what it held at the flush before is in its place";
    assert_eq!(flushed.missing, [instead]);
    assert_eq!(flushed.files.len(), 2);
    let order: Vec<&str> = flushed.files.iter().map(|file| file.path.as_str()).collect();
    let paths: Vec<String> = order.iter().map(|path| (*path).to_owned()).collect();
    assert!(engine.hand_over(&flushed.facts, &paths, within(20_000)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_give_evidence_after_the_last_flush() {
    let Some(model) = model() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &model, TIDY);
    server.up().await;
    let engine = server.engine("a");
    for (slot, prompt) in [(0, FIRST), (1, SECOND)] {
        server.complete(slot, prompt, 8).await;
    }
    let flushed = engine.flush(FlushKind::Final, "1", within(20_000)).await.unwrap();
    let bytes = || -> Vec<Vec<u8>> {
        [0, 1].map(|slot| std::fs::read(dir.path().join(format!("lifeboat-slot-{slot}.bin"))).unwrap()).into()
    };
    let was = bytes();
    let evidence = engine.evidence(within(2000)).await.unwrap();
    assert_eq!(evidence.probe.as_ref().unwrap().tokens.len(), 6);
    // The same as any look would have found, and the conversations are what they were.
    let other = server.engine("b").look(within(20_000)).await.unwrap();
    evidence.compare(&other.fingerprint).unwrap();
    let again = engine.flush(FlushKind::Final, "2", within(20_000)).await.unwrap();
    assert_eq!(again.bytes, flushed.bytes);
    assert!(was == bytes(), "a conversation was changed by the probe");
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_elsewhere_or_switched_off_are_errors_that_name_the_flag() {
    let Some(model) = model() else { return };
    let (dir, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path(), &model, TIDY);
    server.up().await;
    server.complete(0, FIRST, 8).await;
    let error = engine(volume.path(), server.port, "a")
        .flush(FlushKind::Final, "1", within(20_000))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("--slot-save-path")
            && error.to_string().contains("lifeboat.dev/state-volume"),
        "{error}"
    );
    assert_eq!(error.kind(), FailureKind::Permanent);
    // By default idle slots are moved to a cache in memory, which no save reaches.
    let default = Server::start(dir.path(), &model, &["-np", "-1"]);
    default.up().await;
    for prompt in [FIRST, SECOND] {
        default.complete(0, prompt, 8).await;
        default.complete(1, prompt, 8).await;
    }
    let flushed = default.engine("b").flush(FlushKind::Final, "1", within(20_000)).await;
    match flushed {
        Ok(flushed) => assert!(
            !flushed.is_partial() || flushed.missing[0].contains("--no-cache-idle-slots"),
            "{flushed:?}"
        ),
        Err(error) => assert!(error.to_string().contains("--no-cache-idle-slots"), "{error}"),
    }
    // A damaged file is refused, and the slot is empty afterwards.
    let taken = server.engine("c").flush(FlushKind::Final, "2", within(20_000)).await.unwrap();
    let file = dir.path().join("lifeboat-slot-0.bin");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let error =
        server.engine("c").hand_over(&taken.facts, &["lifeboat-slot-0.bin".to_owned()], within(20_000)).await;
    assert_eq!(error.unwrap_err().kind(), FailureKind::Mismatch);
    assert_eq!(server.slots().await[0]["n_prompt_tokens"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_slots_are_reached_with_the_api_key() {
    let Some(model) = model() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &model, &["--no-cache-idle-slots", "--api-key", "s3cret"]);
    server.up().await;
    let error = server.engine("a").look(within(20_000)).await.unwrap_err();
    assert!(error.to_string().contains("lifeboat.dev/auth-file"), "{error}");
    let target = EngineTarget { token: Some("s3cret".to_owned()), ..target(dir.path(), server.port, "a") };
    let engine = connect(EngineKind::LlamaServer, target).unwrap();
    assert!(engine.look(within(20_000)).await.unwrap().fingerprint.probe.is_some());
    engine.flush(FlushKind::Final, "1", within(20_000)).await.unwrap();
}
