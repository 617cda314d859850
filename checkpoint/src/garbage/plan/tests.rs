use std::{fs, sync::Arc, time::SystemTime};

use super::*;
use crate::{
    claim::ClaimRequest,
    fixture::{World, noise, soon},
    garbage,
    intent::{self, Intent},
    manifest::Source,
    store::directory::DirectoryStore,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Makes everything below `part` so much older, by the store's clock.
fn age(world: &World, part: &str, by: Duration) {
    for path in world.objects(part) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }
}

async fn plan(world: &World) -> Plan {
    garbage::preview(&world.store, &world.workload, &Policy::default(), soon()).await.unwrap()
}

async fn commit(world: &World, lineage: &str, change: impl FnOnce(&mut crate::manifest::Manifest)) {
    let mut manifest = world.manifest(vec![]);
    manifest.lineage = LineageId::new(lineage).unwrap();
    change(&mut manifest);
    world.commit(&manifest, 1, "uid-0").await.unwrap();
}

fn lineages(plan: &Plan) -> Vec<String> {
    let lineage = |step: &GarbageStep| match &step.action {
        Action::Lineage(id) => Some(id.to_string()),
        _ => None,
    };
    plan.steps.iter().filter_map(lineage).collect()
}

async fn announce(world: &World, lineage: &str, time_left_ms: u64) {
    let mut intent = Intent {
        format: intent::FORMAT,
        lineage: LineageId::new(lineage).unwrap(),
        source: Source { namespace: "chat".into(), name: "p".into(), uid: "u".into(), node: "n".into() },
        writer: "w".into(),
        nonce: String::new(),
        notice_id: None,
        time_left_ms,
        spec_key: "spec".into(),
        packs: Vec::new(),
        state: IntentState::Coming,
    };
    intent.put(world.store.as_ref(), &world.workload, soon()).await.unwrap();
}

#[tokio::test]
async fn an_unclaimed_lineage_stays_until_the_retention_and_a_restored_or_continued_one_for_a_day() {
    let world = World::new();
    for name in ["alone", "restored", "continued"] {
        commit(&world, name, |_| {}).await;
    }
    let number = GenerationNumber { epoch: 1, n: 1 };
    let parent =
        crate::manifest::Parent { lineage: LineageId::new("continued").unwrap(), generation: number };
    let holder = Holder { pod_uid: "r".into(), pod_name: "r".into(), node: "n".into() };
    let lineage = LineageId::new("restored").unwrap();
    let request = ClaimRequest { lineage, holder, lease: HOUR, named: false };
    age(&world, "", 8 * 24 * HOUR);
    announce(&world, "coming", 60_000).await;
    // A restore is under way, and a checkpoint is coming.
    let mut held =
        world.claims().take(world.store.as_ref(), &world.workload, &request, soon()).await.unwrap();
    assert_eq!(lineages(&plan(&world).await), ["alone", "continued"]);
    held.finish(soon()).await.unwrap();
    commit(&world, "heir", |manifest| manifest.parent = Some(parent)).await;
    age(&world, "", 23 * HOUR);
    assert_eq!(lineages(&plan(&world).await), Vec::<String>::new());
    age(&world, "", 25 * HOUR);
    assert_eq!(lineages(&plan(&world).await), ["coming", "continued", "restored"]);
    age(&world, "", 6 * 24 * HOUR);
    assert_eq!(lineages(&plan(&world).await), ["coming", "continued", "restored"]);
    age(&world, "", 8 * 24 * HOUR);
    assert_eq!(lineages(&plan(&world).await).len(), 5);
}

#[tokio::test]
async fn the_last_generations_stay_and_the_newest_whole_one_if_they_are_all_partial() {
    let world = World::new();
    for n in 0..6 {
        commit(&world, "llama-0", |manifest| {
            manifest.partial = n > 1;
            manifest.revision = n.to_string();
        })
        .await;
    }
    let plan = plan(&world).await;
    let gone: Vec<u64> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Generation { number, .. } => Some(number.n),
            _ => None,
        })
        .collect();
    // 4 to 6 are the last three, 2 is whole.
    assert_eq!((gone, plan.generations_kept), (vec![3, 1], 4));
}

/// The generations that a pass would remove.
async fn gone(world: &World) -> Vec<String> {
    let number = |step: &GarbageStep| match &step.action {
        Action::Generation { number, .. } => Some((number.epoch, number.n)),
        _ => None,
    };
    let mut gone: Vec<_> = plan(world).await.steps.iter().filter_map(number).collect();
    gone.sort_unstable();
    gone.into_iter().map(|(epoch, n)| format!("{epoch}-{n}")).collect()
}

/// Four generations of one pod and four of the next, whose first names this one as its parent.
async fn followed(parent: Option<GenerationNumber>) -> World {
    let world = World::new();
    let lineage = LineageId::new("llama-0").unwrap();
    for n in 1..=8 {
        let mut manifest = world.manifest(vec![]);
        manifest.lineage = lineage.clone();
        manifest.revision = n.to_string();
        let epoch = if n > 4 { 2 } else { 1 };
        let before = GenerationNumber { epoch, n: n - 1 };
        let own = Some(before).filter(|before| ![0, 4].contains(&before.n));
        manifest.parent = own
            .or(parent.filter(|_| n == 5))
            .map(|generation| crate::manifest::Parent { lineage: lineage.clone(), generation });
        world.commit(&manifest, epoch, &format!("uid-{epoch}")).await.unwrap();
    }
    world
}

#[tokio::test]
async fn what_a_pod_that_began_without_its_state_found_stays_for_the_retention() {
    let world = followed(None).await;
    assert_eq!(gone(&world).await, ["1-1", "2-5"], "the last three of each pod stay");
    let first = GenerationNumber { epoch: 2, n: 5 };
    fs::remove_file(
        &world.objects(&world.workload.generation(&LineageId::new("llama-0").unwrap(), first))[0],
    )
    .unwrap();
    assert_eq!(gone(&world).await, ["1-1"], "also once the first of the second pod is gone");
    let earlier: Vec<String> = (1..=4)
        .map(|n| GenerationNumber { epoch: 1, n })
        .map(|number| world.workload.generation(&LineageId::new("llama-0").unwrap(), number))
        .collect();
    earlier.iter().for_each(|key| age(&world, key, 6 * 24 * HOUR));
    assert_eq!(gone(&world).await, ["1-1"]);
    earlier.iter().for_each(|key| age(&world, key, 8 * 24 * HOUR));
    assert_eq!(gone(&world).await, ["1-1", "1-2", "1-3", "1-4"]);

    let continued = followed(Some(GenerationNumber { epoch: 1, n: 4 })).await;
    assert_eq!(gone(&continued).await, ["1-1", "1-2", "1-3", "1-4", "2-5"], "that pod has its state");
}

#[tokio::test]
async fn a_preview_writes_nothing_and_young_remains_of_a_save_wait() {
    let world = World::new();
    world.write("a", &noise(100, 1));
    world.save(world.request(crate::chunk::Chunking::Fixed, None)).await.unwrap();
    let before = world.objects("");
    let young = plan(&world).await;
    assert_eq!((young.steps.len(), young.waiting.len()), (0, 1));
    age(&world, "/pack/", HOUR);
    assert_eq!(plan(&world).await.steps[0].action.turn(), 2);
    assert_eq!(world.objects(""), before);
}

#[tokio::test]
async fn a_directory_is_collected_by_its_own_clock() {
    let world = World::new();
    let store: crate::store::Remover =
        Arc::new(DirectoryStore::open(world.root.path().join("store")).unwrap());
    let policy = Policy { keep: 1, ..Policy::default() };
    let pass = || garbage::collect(&store, &world.workload, &policy, "c", soon());
    world.write("a", &noise(100, 1));
    let (first, _) = world.checkpoint(crate::chunk::Chunking::Fixed, None).await;
    world.write("a", &noise(100, 2));
    let (second, _) = world.checkpoint(crate::chunk::Chunking::Fixed, None).await;
    let kept = second.packs();
    // The generation goes; its pack and manifest are marked, removed, and their names buried.
    for objects in ["/pack/", "/tombstone/", "/tombstone/", "/tombstone/"] {
        let done = pass().await.unwrap();
        assert!(done.failed.is_none() && done.skipped.is_empty(), "{done:?}");
        age(&world, objects, 2 * HOUR);
        age(&world, "/manifest/", 2 * HOUR);
    }
    assert_eq!(world.objects("/tombstone/").len(), 0);
    assert_eq!((world.objects("/pack/").len(), world.objects("/manifest/").len()), (kept.len(), 1));
    assert!(first.packs().is_disjoint(&kept));
    world.restore(&second).await.unwrap();
    world.assert_same();
}
