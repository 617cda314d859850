use super::*;
use evacuation::event::FailureKind;
use std::fs;
use std::time::SystemTime;

struct Volume {
    place: tempfile::TempDir,
    engine: FilesEngine,
}

fn soon() -> Moment {
    clock::now() + Span::from_secs(10)
}

fn volume(compat_key: Option<&str>, max_bytes: Option<u64>) -> Volume {
    let place = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(place.path()).unwrap());
    let engine = FilesEngine::new(folder, compat_key.map(str::to_owned), max_bytes, Span::from_secs(30));
    Volume { place, engine }
}

impl Volume {
    /// A file that was written this many seconds ago.
    fn write(&self, path: &str, bytes: usize, ago: u64) {
        let path = self.place.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![7; bytes]).unwrap();
        let at = SystemTime::now() - Duration::from_secs(ago);
        fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    }

    async fn flush(&self, kind: FlushKind) -> (Vec<String>, Vec<String>) {
        let flushed = self.engine.flush(kind, "id", soon()).await.unwrap();
        (flushed.files.into_iter().map(|file| file.path).collect(), flushed.missing)
    }
}

#[tokio::test]
async fn a_pre_copy_takes_what_is_closed_and_leaves_what_is_being_written() {
    let volume = volume(None, None);
    volume.write("model/000/a.bin", 10, 60);
    volume.write("model/000/b.bin", 10, 30);
    volume.write("model/000/c.bin", 10, 0);
    volume.write("model/000/d.bin.tmp", 10, 60);
    volume.write("model/000/.e.bin", 10, 60);
    volume.write(".lifeboat/hold", 1, 60);
    let (files, missing) = volume.flush(FlushKind::PreCopy).await;
    assert_eq!(files, ["model/000/b.bin", "model/000/a.bin"], "the newest first");
    assert_eq!(missing, ["3 files were still being written"]);
}

#[tokio::test]
async fn the_last_sweep_waits_until_nothing_changes_and_takes_it_all() {
    let volume = volume(None, None);
    volume.write("a.bin", 10, 60);
    let path = volume.place.path().join("late.bin");
    let writer = tokio::spawn(async move {
        for count in 1..=6 {
            fs::write(&path, vec![1; count * 100]).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let flushed = volume.engine.flush(FlushKind::Final, "id", soon()).await.unwrap();
    writer.await.unwrap();
    assert_eq!((flushed.files.len(), flushed.bytes), (2, 610), "{flushed:?}");
    assert!(flushed.missing.is_empty());
    assert!(flushed.files.iter().all(|file| file.chunking == Chunking::Immutable));
}

#[tokio::test]
async fn a_directory_that_never_becomes_still_is_taken_in_time_without_what_is_being_written() {
    let volume = volume(None, None);
    volume.write("a.bin", 10, 60);
    let path = volume.place.path().join("endless.bin");
    let writer = tokio::spawn(async move {
        for count in 1.. {
            fs::write(&path, vec![1; count]).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let deadline = clock::now() + Span::from_secs(2);
    let flushed = volume.engine.flush(FlushKind::Final, "id", deadline).await.unwrap();
    assert!(clock::now() < deadline);
    writer.abort();
    assert_eq!((flushed.files.len(), flushed.bytes), (1, 10));
    assert_eq!(flushed.missing, ["1 files were still being written"]);
}

#[tokio::test]
async fn what_has_no_room_is_the_oldest_and_is_said() {
    let volume = volume(None, Some(25));
    for (name, ago) in [("old.bin", 90), ("older.bin", 99), ("new.bin", 60)] {
        volume.write(name, 10, ago);
    }
    let (files, missing) = volume.flush(FlushKind::PreCopy).await;
    assert_eq!(files, ["new.bin", "old.bin"]);
    assert!(missing[0].contains("1 oldest") && missing[0].contains("lifeboat.dev/max-bytes"), "{missing:?}");
}

#[tokio::test]
async fn a_directory_that_grows_is_busy() {
    let volume = volume(None, None);
    volume.write("a.bin", 10, 60);
    assert!(!volume.engine.look(soon()).await.unwrap().busy);
    assert!(!volume.engine.look(soon()).await.unwrap().busy);
    volume.write("b.bin", 10, 0);
    let looked = volume.engine.look(soon()).await.unwrap();
    assert!(looked.busy && looked.state_bytes == 20);
}

#[tokio::test]
async fn the_owners_word_is_needed_and_another_word_is_refused_by_name() {
    let saved = volume(Some("llama-3-8b@rev7"), None).engine.fingerprint();
    assert!(volume(Some("llama-3-8b@rev7"), None).engine.prove(&saved, soon()).await.is_ok());
    for (key, why) in [(Some("llama-3-8b@rev8"), "the compat key differs"), (None, "no evidence")] {
        let refused = volume(key, None).engine.prove(&saved, soon()).await.unwrap_err();
        assert_eq!(refused.kind(), FailureKind::Mismatch);
        assert!(refused.to_string().contains(why), "{refused}");
    }
}
