use std::io::Write;

use super::*;
use crate::{
    chunk::Chunking::{AppendOnly, ContentDefined, Fixed, Immutable},
    dispatcher::Limits,
    fixture::{World, noise, soon, within_ms},
};

#[tokio::test]
async fn a_second_generation_sends_only_the_fixed_blocks_that_changed() {
    let world = World::new();
    let mut state = noise(10 << 20, 1);
    world.write("kv.bin", &state);
    let (first, saved) = world.checkpoint(Fixed, None).await;
    assert_eq!(saved.bytes_sent, 10 << 20);

    let (_, nothing) = world.checkpoint(Fixed, Some(&first)).await;
    assert_eq!((nothing.bytes_sent, nothing.packs_sent), (0, 0));

    state[3 << 20] ^= 1;
    state.extend_from_slice(b"appended");
    world.write("kv.bin", &state);
    let (second, saved) = world.checkpoint(Fixed, Some(&first)).await;
    assert_eq!(saved.bytes_sent, (1 << 20) + 8);
    assert!(saved.packs_reused > 0);
    world.restore(&second).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn a_rewritten_slot_file_sends_little_more_than_what_is_new() {
    let world = World::new();
    let before = noise(8 << 20, 2);
    world.write("slot", &before);
    let (first, _) = world.checkpoint(ContentDefined, None).await;
    let new = noise(200 << 10, 3);
    world.write("slot", &[&before[..3 << 20], &new, &before[3 << 20..]].concat());
    let (second, saved) = world.checkpoint(ContentDefined, Some(&first)).await;
    assert!(saved.bytes_sent >= 200 << 10 && saved.bytes_sent < 900 << 10, "{}", saved.bytes_sent);
    world.restore(&second).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn small_files_share_a_pack_and_equal_blocks_are_sent_once() {
    let world = World::new();
    for file in 0..50_u8 {
        world.write(&format!("small/{file}"), &noise(1000, file.into()));
        world.write(&format!("twin/{file}"), &noise(1000, file.into()));
    }
    world.write("zeros", &vec![0; 9 << 20]);
    let (manifest, saved) = world.checkpoint(Fixed, None).await;
    assert_eq!((saved.packs_sent, saved.bytes_sent), (1, 50_000 + (1 << 20)));
    world.restore(&manifest).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn after_a_restart_nothing_acknowledged_is_sent_again() {
    let mut world = World::new();
    world.write("kv.bin", &noise(20 << 20, 4));
    let faulty = world.break_store("put:pack=denied@4");
    let partial = world.save(world.request(Fixed, None)).await.unwrap_err().into_partial();
    let there = partial.packs_sent;
    assert!(there > 0 && faulty.struck()[0].1 > 0);
    assert!(partial.files.is_empty() && partial.acknowledged.len() == there);

    let known = known_packs(&world.store, &world.workload, soon()).await.unwrap();
    // An upload that was under way when the save failed may have arrived without anybody having heard of it.
    assert!(
        known.len() >= there && partial.acknowledged.iter().all(|(pack, size)| known.get(pack) == Some(size))
    );
    let there = known.len();
    // The denied ones count on: from the 4th to the last; this is another agent without the fault.
    let mut healed = World::new();
    std::mem::swap(&mut healed.root, &mut world.root);
    healed.store =
        Arc::new(crate::store::directory::DirectoryStore::open(healed.root.path().join("store")).unwrap());
    let mut request = healed.request(Fixed, None);
    request.known_packs = Some(known);
    let saved = healed.save(request).await.unwrap();
    assert_eq!(saved.packs_sent + there, 5);
    assert_eq!(saved.packs_reused, there);
    healed.restore(&healed.manifest(saved.files)).await.unwrap();
    healed.assert_same();
}

#[tokio::test]
async fn a_parent_whose_packs_are_gone_is_not_built_on() {
    let world = World::new();
    world.write("kv.bin", &noise(2 << 20, 5));
    let (first, _) = world.checkpoint(Fixed, None).await;
    let mut request = world.request(Fixed, Some(&first));
    request.known_packs = Some(HashMap::new());
    assert_eq!(world.save(request).await.unwrap().bytes_sent, 2 << 20);
}

#[tokio::test]
async fn at_the_deadline_the_whole_files_can_be_committed() {
    let mut world = World::new();
    for file in 0..6_u8 {
        world.write(&format!("{file}"), &noise(4 << 20, file.into()));
    }
    world.break_store("put=slow:8MiB/s");
    let mut request = world.request(Fixed, None);
    request.deadline = within_ms(1200);
    let began = std::time::Instant::now();
    let error = world.save(request).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    assert!(matches!(error, SaveError::OutOfTime { .. }), "{error}");
    let partial = error.into_partial();
    assert!((1..6).contains(&partial.files.len()) && !partial.is_whole(), "{}", partial.files.len());
    let manifest = world.manifest(partial.files.clone());
    world.restore(&manifest).await.unwrap();
    for file in &partial.files {
        let read = |root: std::path::PathBuf| std::fs::read(root.join(&file.path)).unwrap();
        assert!(read(world.state()) == read(world.restored()));
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_fails_by_name_and_the_others_go_on() {
    let world = World::new();
    for name in ["fine", "grown", "shrunk"] {
        world.write(name, &noise(100_000, 6));
    }
    let request = world.request(Fixed, None);
    world.write("shrunk", b"short");
    std::fs::File::options()
        .append(true)
        .open(world.state().join("grown"))
        .unwrap()
        .write_all(b"more")
        .unwrap();
    let saved = world.save(request).await.unwrap();
    assert_eq!(saved.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["fine"]);
    assert!(!saved.is_whole());
    assert_eq!(
        saved.failed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "grown: it grew to 100004 bytes while it was read, it had 100000",
            "shrunk: it shrank to 5 bytes while it was read, it had 100000",
        ]
    );
}

#[tokio::test]
async fn trouble_that_passes_is_not_noticed() {
    let mut world = World::new();
    world.write("kv.bin", &noise(9 << 20, 7));
    let faulty = world.break_store("put:pack=503*2,put:pack=lost#4,put:gen=lost#1");
    let (manifest, _) = world.checkpoint(Fixed, None).await;
    assert!(faulty.struck().iter().all(|(_, count)| *count > 0));
    world.restore(&manifest).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn there_are_never_more_packs_in_flight_than_slots() {
    let mut world = World::new();
    world.write("kv.bin", &noise(32 << 20, 8));
    world.break_store("put=slow:20ms");
    let dispatcher = Dispatcher::new(Limits::slots(1));
    // Another save holds the only slot: not one byte may be gathered until it is free.
    let other = dispatcher.enlist(Class::Drain, 0, Work { bytes: 1, cut_off: soon() });
    let held = other.queue().granted().await;
    let progress = Arc::new(Progress::default());
    let mut request = world.request(Fixed, None);
    request.deadline = within_ms(300);
    let error = save(&world.store, request, &dispatcher, &progress).await.unwrap_err();
    assert!(matches!(error, SaveError::OutOfTime { .. }));
    assert_eq!((progress.bytes_read(), progress.bytes_sent()), (0, 0));
    drop(held);
    save(&world.store, world.request(Fixed, None), &dispatcher, &progress).await.unwrap();
    assert_eq!(progress.bytes_sent(), 32 << 20);
    assert!(dispatcher.rate().is_some_and(|rate| rate > 0.0));
}

#[tokio::test]
async fn dropping_a_save_gives_its_slots_back() {
    let mut world = World::new();
    world.write("kv.bin", &noise(8 << 20, 9));
    world.break_store("put=hang");
    let dispatcher = Dispatcher::new(Limits::slots(1));
    let progress = Arc::new(Progress::default());
    let saving = save(&world.store, world.request(Fixed, None), &dispatcher, &progress);
    tokio::time::timeout(Duration::from_millis(300), saving).await.unwrap_err();
    let next = dispatcher.enlist(Class::Drain, 0, Work { bytes: 1, cut_off: soon() });
    assert!(tokio::time::timeout(Duration::from_secs(5), next.queue().granted()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_round_that_is_remembered_finds_what_did_not_change_and_only_what_the_parent_still_names() {
    let world = World::new();
    let mut state = noise(8 << 20, 11);
    world.write("kv.bin", &state);
    let mut request = world.request(Fixed, None);
    request.remember = true;
    let first = world.save(request).await.unwrap();
    let manifest = world.manifest(first.files.clone());
    state[5 << 20] ^= 1;
    world.write("kv.bin", &state);
    let again = |round, parent| SaveRequest { round: Some(round), ..world.request(Fixed, Some(parent)) };
    let second = world.save(again(&first.round, &manifest)).await.unwrap();
    assert_eq!(second.bytes_sent, 1 << 20);
    assert_eq!(world.manifest(second.files.clone()).packs().len(), 3);
    // Without block names only the round can recognise anything.
    let unnamed = SaveRequest { identity: Identity::Fast, ..again(&first.round, &manifest) };
    assert_eq!(world.save(unnamed).await.unwrap().bytes_sent, 1 << 20);
    // A parent that names none of its packs keeps none of them: nothing of the round counts.
    let forgotten = world.manifest(vec![]);
    let all = world.save(again(&first.round, &forgotten)).await.unwrap();
    assert_eq!(all.bytes_sent, 8 << 20);
    let (committed, _) = world.checkpoint(Fixed, Some(&manifest)).await;
    world.restore(&committed).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn a_state_without_block_names_comes_back_and_its_equal_blocks_are_sent_once() {
    let world = World::new();
    let block = noise(1 << 20, 12);
    world.write("kv.bin", &[&block[..], &block, &noise(1 << 20, 13)].concat());
    let request = SaveRequest { identity: Identity::Fast, ..world.request(Fixed, None) };
    let saved = world.save(request).await.unwrap();
    assert_eq!(saved.bytes_sent, 2 << 20);
    let manifest = world.manifest(saved.files);
    world.restore(&manifest).await.unwrap();
    world.assert_same();
}

#[tokio::test]
async fn what_only_grows_and_what_never_changes_is_not_read_again() {
    let world = World::new();
    let mut log = noise((5 << 20) + 77, 14);
    world.write("log", &log);
    let (first, _) = world.checkpoint(AppendOnly, None).await;
    log.extend_from_slice(&noise(1 << 20, 15));
    world.write("log", &log);
    let progress = Arc::new(Progress::default());
    let dispatcher = Dispatcher::new(Limits::slots(2));
    let saved =
        save(&world.store, world.request(AppendOnly, Some(&first)), &dispatcher, &progress).await.unwrap();
    // Its last block was a short one.
    assert_eq!((progress.bytes_unread(), progress.bytes_read()), (5 << 20, (1 << 20) + 77));
    assert_eq!(saved.bytes_sent, (1 << 20) + 77);
    let second = world.manifest(saved.files);
    world.restore(&second).await.unwrap();
    world.assert_same();

    let progress = Arc::new(Progress::default());
    let saved =
        save(&world.store, world.request(Immutable, Some(&second)), &dispatcher, &progress).await.unwrap();
    assert_eq!((progress.bytes_read(), saved.bytes_sent, saved.is_whole()), (0, 0, true));
    // One that has another size is another file.
    world.write("log", b"another");
    let saved = world.save(world.request(Immutable, Some(&second))).await.unwrap();
    assert_eq!(saved.bytes_sent, 7);
    // And one whose packs are gone from the store is read and sent.
    world.write("log", &log);
    let request =
        SaveRequest { known_packs: Some(HashMap::new()), ..world.request(Immutable, Some(&second)) };
    assert_eq!(world.save(request).await.unwrap().bytes_sent, log.len() as u64);
}

#[test]
fn packs_become_small_when_little_time_is_left() {
    // 16 MiB take 1.6 seconds.
    let takes = |bytes: u64| Duration::from_secs_f64(bytes as f64 / (10 << 20) as f64);
    let size = |seconds| pack_size(16 << 20, Duration::from_secs(seconds), takes) >> 20;
    assert_eq!([100, 13, 12, 6, 3, 1, 0].map(size), [16, 16, 8, 4, 4, 4, 4]);
    assert_eq!(pack_size(16 << 20, Duration::ZERO, |_| Duration::ZERO), 16 << 20, "nothing was measured yet");
}
