//! Documents of another version, or that lead elsewhere, among good ones.

use super::fixture::{World, noise, soon};
use super::key::LineageId;
use super::restore::{self, RestoreError};
use super::store::Condition;
use super::{chunk::Chunking::Fixed, lineage, versitygw};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_of_any_document_is_named_and_spoils_nothing_else() {
    let mut world = World::new();
    world.store = versitygw().await;
    world.write("kv.bin", &noise(100_000, 1));
    world.checkpoint(Fixed, None).await;
    let newer = LineageId::new("newer").unwrap();
    let number = checkpoint::key::GenerationNumber { epoch: 1, n: 1 };
    for (kind, key) in [
        ("generation", world.workload.generation(&newer, number)),
        ("intent", world.workload.intent(&newer)),
        ("claim", world.workload.claim(&newer)),
    ] {
        world.store.put(&key, r#"{"format":9,"novel":1}"#.into(), Condition::Always).await.unwrap();
        let found =
            lineage::survey(world.store.as_ref(), &world.claims(), &world.workload, soon()).await.unwrap();
        let of = |id: &LineageId| found.iter().find(|one| one.id == *id).unwrap();
        assert!(of(&world.lineage).head.is_some() && of(&world.lineage).unreadable.is_empty());
        let said = of(&newer).unreadable.join("; ");
        let expected = format!("{kind} format 9 is not known to this lifeboat (knows 1): upgrade the agent");
        assert!(said.contains(&expected), "{said}");
        assert!(of(&newer).head.is_none(), "nothing is offered of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_version_or_that_leads_outside_is_refused_before_anything_is_fetched() {
    let mut world = World::new();
    world.store = versitygw().await;
    world.write("kv.bin", &noise(100_000, 1));
    let (good, _) = world.checkpoint(Fixed, None).await;
    let tampered = |tamper: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(&good).unwrap();
        tamper(&mut value);
        bytes::Bytes::from(value.to_string())
    };
    for (document, expected) in [
        (tampered(&|value| value["format"] = 9.into()), "manifest format 9 is not known"),
        (tampered(&|value| value["files"][0]["path"] = "../../etc/cron.d/x".into()), "component '.' or '..'"),
        (tampered(&|value| value["files"][0]["path"] = "/etc/passwd".into()), "absolute"),
        (
            tampered(&|value| value["files"][0]["path"] = ".lifeboat/hold".into()),
            ".lifeboat/ is not part of a state",
        ),
    ] {
        let hash = checkpoint::hash::ContentHash::of(&document);
        let key = world.workload.manifest(hash);
        world.store.put(&key, document.into(), Condition::Always).await.unwrap();
        let load = restore::load_manifest(&world.store, &world.workload, hash, None, soon());
        let error = load.await.unwrap_err();
        assert!(matches!(error, RestoreError::Manifest { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    world.restore(&good).await.unwrap();
    world.assert_same();
}
