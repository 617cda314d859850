use std::sync::Arc;

use super::*;
use crate::{
    chunk::Chunking::Fixed,
    claim::{ClaimRequest, Holder},
    fixture::{World, noise, soon},
    intent,
    manifest::Source,
    store::{
        Remover,
        directory::DirectoryStore,
        faulty::{FaultPlan, FaultyStore},
    },
};

fn remover(world: &World) -> Arc<DirectoryStore> {
    Arc::new(DirectoryStore::open(world.root.path().join("store")).unwrap())
}

fn request(workload: Option<&str>, force: bool) -> Request {
    Request {
        cluster: "cluster".into(),
        namespace: "chat".into(),
        workload: workload.map(str::to_owned),
        by: "somebody".into(),
        force,
    }
}

/// A state that was committed and is claimed, and another namespace's.
async fn prepared() -> World {
    let mut world = World::new();
    world.write("a", &noise(3 << 20, 1));
    world.workload = Workload::new("cluster", "other", "llama").unwrap();
    world.checkpoint(Fixed, None).await;
    world.workload = Workload::new("cluster", "chat", "llama").unwrap();
    world.checkpoint(Fixed, None).await;
    let holder = Holder { pod_uid: "r".into(), pod_name: "r".into(), node: "n".into() };
    let lease = Duration::from_secs(60);
    let request = ClaimRequest { lineage: world.lineage.clone(), holder, lease, named: false };
    world.claims().take(world.store.as_ref(), &world.workload, &request, soon()).await.unwrap();
    world
}

async fn announce(world: &World) {
    let mut intent = Intent {
        format: intent::FORMAT,
        lineage: world.lineage.clone(),
        source: Source { namespace: "chat".into(), name: "pod-1".into(), uid: "u".into(), node: "n".into() },
        writer: "w".into(),
        nonce: String::new(),
        notice_id: None,
        time_left_ms: 60_000,
        spec_key: "spec".into(),
        packs: Vec::new(),
        state: IntentState::Coming,
    };
    intent.put(world.store.as_ref(), &world.workload, soon()).await.unwrap();
}

#[tokio::test]
async fn everything_of_a_namespace_goes_also_what_is_claimed_and_a_record_stays() {
    let world = prepared().await;
    let store = remover(&world);
    let objects = world.objects("/chat/llama/").len() as u64;
    let erasure = erase(store.as_ref(), &request(None, false), soon()).await.unwrap().unwrap();
    assert_eq!((erasure.objects, erasure.workloads.as_slice()), (objects, &["llama".to_owned()][..]));
    assert!(erasure.bytes > 3 << 20 && erasure.took().is_some() && !erasure.forced);
    assert_eq!(world.objects("/chat/llama/").len(), 0);
    assert_eq!(world.objects("/other/").len(), 3, "another namespace's state was touched");
    let records = world.objects("/erased/chat/");
    assert_eq!(Erasure::parse(&std::fs::read(&records[0]).unwrap()).unwrap(), erasure);
    assert_eq!(erase(store.as_ref(), &request(Some("llama"), false), soon()).await.unwrap(), None);
    assert_eq!(world.objects("/erased/").len(), 1);
}

#[tokio::test]
async fn an_evacuation_that_is_under_way_is_not_erased_unless_forced() {
    let world = prepared().await;
    announce(&world).await;
    let store = remover(&world);
    let before = world.objects("");
    let refused = erase(store.as_ref(), &request(None, false), soon()).await.unwrap_err();
    assert!(refused.to_string().contains("chat/llama/llama-0 from pod pod-1"), "{refused}");
    assert_eq!(world.objects(""), before);
    assert!(erase(store.as_ref(), &request(None, true), soon()).await.unwrap().unwrap().forced);
    assert_eq!(world.objects("/chat/llama/").len(), 0);
}

#[tokio::test]
async fn an_erasure_that_died_leaves_a_record_without_an_end_and_the_next_removes_the_rest() {
    let mut n = 1;
    loop {
        let world = prepared().await;
        let plan = FaultPlan::parse(&format!("delete=denied@{n}")).unwrap();
        let dying: Remover = Arc::new(FaultyStore::new(remover(&world), plan));
        match erase(dying.as_ref(), &request(None, false), soon()).await {
            Ok(_) => break,
            Err(EraseError::Store(StoreError::Denied { .. })) => {}
            Err(error) => panic!("{error}"),
        }
        let record = std::fs::read(world.objects("/erased/").remove(0)).unwrap();
        assert_eq!(Erasure::parse(&record).unwrap().ended, None);
        erase(remover(&world).as_ref(), &request(None, false), soon()).await.unwrap();
        assert_eq!(world.objects("/chat/llama/").len(), 0);
        n += 1;
    }
    assert!(n > 4, "only {n} removals");
}

#[tokio::test]
async fn what_a_save_wrote_after_a_forced_erasure_is_no_state_and_goes_with_the_next() {
    let world = prepared().await;
    let saved = world.save(world.request(Fixed, None)).await.unwrap();
    announce(&world).await;
    let store = remover(&world);
    erase(store.as_ref(), &request(None, true), soon()).await.unwrap();
    // Its packs are gone: the commit can be found, and nothing can be restored from it.
    let manifest = world.manifest(saved.files);
    world.commit(&manifest, 1, "uid-0").await.unwrap();
    let error = world.restore(&manifest).await.unwrap_err();
    assert!(error.to_string().contains("cannot be restored"), "{error}");
    erase(store.as_ref(), &request(None, false), soon()).await.unwrap();
    assert_eq!(world.objects("/chat/llama/").len(), 0);
}
