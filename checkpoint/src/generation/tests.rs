use std::{fs, sync::Arc};

use super::*;
use crate::{
    fixture::{World, soon},
    intent::{self, Intent, IntentState},
    lineage::{self, survey},
    store::faulty::{FaultPlan, FaultyStore},
};

#[tokio::test]
async fn generations_follow_each_other_and_a_survey_shows_them_newest_first() {
    let world = World::new();
    for n in 1..=11 {
        let generation = world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
        assert_eq!(generation.number, GenerationNumber { epoch: 1, n });
    }
    let found = survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].head.as_ref().unwrap().number.n, 11);
    assert_eq!(found[0].older.iter().map(|one| one.number.n).collect::<Vec<_>>(), [10, 9, 8, 7, 6, 5, 4, 3]);
    assert!(found[0].unreadable.is_empty() && found[0].claim.is_none() && found[0].intent.is_none());
}

#[tokio::test]
async fn a_writer_of_a_lower_epoch_is_fenced_and_readers_keep_the_higher_one() {
    let world = World::new();
    world.commit(&world.manifest(vec![]), 1, "source").await.unwrap();
    let successor = world.commit(&world.manifest(vec![]), 2, "successor").await.unwrap();
    let error = world.commit(&world.manifest(vec![]), 1, "source").await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { epoch: 1, by: 2, .. }), "{error}");
    // Even a commit that slipped in under the old epoch is not what is read.
    let mut late = successor.clone();
    late.number = GenerationNumber { epoch: 1, n: 99 };
    let body = document::encode(KIND, BYTES_MAX, &late).unwrap();
    let key = world.workload.generation(&world.lineage, late.number);
    world.store.put(&key, body.into(), Condition::IfAbsent).await.unwrap();
    let found = survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
    assert_eq!(found[0].head.as_ref(), Some(&successor));
}

#[tokio::test]
async fn two_writers_of_one_epoch_cannot_both_commit() {
    let world = World::new();
    world.commit(&world.manifest(vec![]), 1, "one").await.unwrap();
    assert!(matches!(world.commit(&world.manifest(vec![]), 1, "two").await, Err(CommitError::Fenced { .. })));
}

#[tokio::test]
async fn of_two_that_commit_at_once_under_one_epoch_one_is_fenced() {
    let mut world = World::new();
    // Both have seen that there is no generation yet before either writes its own.
    world.break_store("put:gen=slow:100ms");
    let (manifest, other) = (world.manifest(vec![]), world.manifest(vec![]));
    let (one, two) = tokio::join!(world.commit(&manifest, 1, "one"), world.commit(&other, 1, "two"));
    let fenced = [&one, &two].into_iter().filter(|it| matches!(it, Err(CommitError::Fenced { .. }))).count();
    assert_eq!(fenced, 1, "{one:?} {two:?}");
    assert_eq!(world.objects("/gen/").len(), 1);
}

/// Two commits at once at a store that lets both through: who reads last is whose commit stands.
async fn both_written(ours: &str, theirs: &str) -> [Result<Generation, CommitError>; 2] {
    let mut world = World::new();
    // Both are written before either is read back: the writes last 100 ms, and so does the look.
    world.break_store("put:gen=slow:100ms,put:gen=unconditional,get:gen=slow:200ms");
    let manifest = world.manifest(vec![]);
    let ignored = Conditions::Ignored { how: "in a test".into() };
    let commit = |writer: &str| {
        let (world, manifest, ignored, writer) = (&world, &manifest, &ignored, writer.to_owned());
        async move { commit(world.store.as_ref(), manifest, 1, &writer, None, ignored, soon()).await }
    };
    let (one, two) = tokio::join!(commit(ours), commit(theirs));
    [one, two]
}

#[tokio::test]
async fn where_conditions_are_ignored_a_commit_that_was_written_over_is_fenced() {
    let both = both_written("one", "two").await;
    let fenced = both.iter().filter(|it| matches!(it, Err(CommitError::Fenced { by: 1, .. }))).count();
    assert_eq!(fenced, 1, "{both:?}");
    assert_eq!(both.iter().filter(|it| it.is_ok()).count(), 1, "{both:?}");
}

#[tokio::test]
async fn where_conditions_are_ignored_a_second_commit_of_the_same_writer_takes_the_next_number() {
    let both = both_written("one", "one").await;
    let mut numbers: Vec<u64> = both.iter().map(|it| it.as_ref().unwrap().number.n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_recognised_as_ones_own() {
    let mut world = World::new();
    let faulty = world.break_store("put:gen=lost#1,put:manifest=lost#1");
    let generation = world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
    assert!(faulty.struck().iter().all(|(_, count)| *count == 1));
    assert_eq!(generation.number.n, 1);
    assert_eq!(world.objects("/gen/").len(), 1);
}

#[tokio::test]
async fn until_the_generation_is_written_nothing_can_be_found() {
    let mut world = World::new();
    world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
    let before = survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
    world.break_store("put:gen=denied");
    let mut next = world.manifest(vec![]);
    next.revision = "r2".into();
    assert!(matches!(
        world.commit(&next, 1, "uid-0").await,
        Err(CommitError::Store(StoreError::Denied { .. }))
    ));
    assert_eq!(world.objects("/manifest/").len(), 2);
    let after = survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
    assert_eq!(before[0].head, after[0].head);
}

#[tokio::test]
async fn one_object_that_cannot_be_read_spoils_only_its_own_lineage() {
    let mut world = World::new();
    world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
    let older = world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
    world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
    let spoiled = world.objects("/gen/").pop().unwrap();
    world.lineage = LineageId::new("llama-1").unwrap();
    let fine = world.commit(&world.manifest(vec![]), 1, "uid-1").await.unwrap();

    for (content, expected) in [
        (r#"{"format":9}"#.to_owned(), "generation format 9 is not known"),
        ("half".to_owned(), "malformed"),
        // A copy of another lineage's commit.
        (serde_json::to_string(&fine).unwrap(), "says it is"),
        ("x".repeat(70_000), "not one of ours"),
    ] {
        fs::write(&spoiled, content).unwrap();
        let found = survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
        let of = |id: &str| found.iter().find(|one| one.id.as_str() == id).unwrap();
        assert_eq!(of("llama-1").head.as_ref(), Some(&fine));
        assert!(of("llama-1").unreadable.is_empty());
        assert_eq!(of("llama-0").head.as_ref(), Some(&older), "the one before is offered");
        assert!(of("llama-0").unreadable[0].contains(expected), "{:?}", of("llama-0").unreadable);
    }
}

#[tokio::test]
async fn an_intent_says_by_the_stores_clock_how_long_to_wait() {
    let world = World::new();
    let mut intent = Intent {
        format: intent::FORMAT,
        lineage: world.lineage.clone(),
        source: world.manifest(vec![]).source,
        writer: "uid-0".into(),
        nonce: String::new(),
        notice_id: Some("notice".into()),
        time_left_ms: 100_000,
        spec_key: "spec".into(),
        packs: vec![ContentHash::of(b"pack")],
        state: IntentState::Coming,
    };
    intent.put(world.store.as_ref(), &world.workload, soon()).await.unwrap();
    let found = survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
    let seen = found[0].intent.as_ref().unwrap();
    assert_eq!(seen.intent, intent);
    assert!(found[0].head.is_none());
    let left = seen.time_left().unwrap();
    assert!(left.as_millis() <= 100_000 && left.as_millis() > 90_000);

    // The same intent, written 102 s ago by the store's clock.
    let path = world.objects("/intent").remove(0);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(102);
    fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    let seen =
        Intent::read(world.store.as_ref(), &world.workload, &world.lineage, soon()).await.unwrap().unwrap();
    assert!(seen.time_left().is_none() && seen.age.as_secs() >= 101);

    intent.state = IntentState::Abandoned { reason: "the engine hangs".into() };
    intent.put(world.store.as_ref(), &world.workload, soon()).await.unwrap();
    let seen =
        Intent::read(world.store.as_ref(), &world.workload, &world.lineage, soon()).await.unwrap().unwrap();
    assert_eq!(seen.intent, intent);
}

#[tokio::test]
async fn a_commit_between_the_list_and_the_intent_is_found_by_the_intent_that_names_it() {
    let world = World::new();
    let committed = world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
    let mut intent = Intent {
        format: intent::FORMAT,
        lineage: world.lineage.clone(),
        source: world.manifest(vec![]).source,
        writer: "uid-0".into(),
        nonce: String::new(),
        notice_id: None,
        time_left_ms: 100_000,
        spec_key: "spec".into(),
        packs: vec![],
        state: IntentState::Committed { number: committed.number },
    };
    intent.put(world.store.as_ref(), &world.workload, soon()).await.unwrap();
    // The list was answered before the commit was there.
    let listed = lineage::Present { intent: true, ..lineage::Present::default() };
    let lineage = world.lineage.clone();
    let found =
        lineage::look(world.store.as_ref(), &world.claims(), &world.workload, lineage, listed, soon()).await;
    assert_eq!(found.head.as_ref(), Some(&committed));
}

#[tokio::test]
async fn what_the_store_would_not_give_now_is_told_from_what_cannot_be_read() {
    let world = World::new();
    world.commit(&world.manifest(vec![]), 1, "uid-0").await.unwrap();
    let look = async |faults: &str| {
        let faulty = FaultyStore::new(Arc::clone(&world.store), FaultPlan::parse(faults).unwrap());
        let until = Instant::now() + std::time::Duration::from_millis(300);
        let found = survey(&faulty, &world.claims(), &world.workload, until).await.unwrap();
        let [state] = &found[..] else { panic!("{found:?}") };
        (state.head.is_some(), state.unreadable.len(), state.unanswered.clone())
    };
    assert_eq!(look("").await, (true, 0, None));
    for (faults, why) in [("get:gen=503", "fewer requests"), ("get:gen=hang", "no answer")] {
        let (head, unreadable, unanswered) = look(faults).await;
        assert!(!head && unreadable == 1 && unanswered.unwrap().contains(why), "{faults}");
    }
    assert_eq!(look("get:gen=torn").await, (false, 1, None), "what is torn stays so");
}
