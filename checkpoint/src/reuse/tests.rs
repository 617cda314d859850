use std::{fs, time::SystemTime};

use super::*;
use crate::{
    chunk::Chunking::Fixed,
    fixture::{World, noise, soon},
    tombstone::Tombstone,
};

async fn condemn(world: &World, subject: Subject) {
    let mark = Tombstone::new(subject, "test");
    let (store, workload) = (world.store.as_ref(), &world.workload);
    mark.put(store, workload, crate::store::Condition::IfAbsent, soon()).await.unwrap();
}

async fn reusable(world: &World, lifecycle: Option<Duration>) -> Reusable {
    list(world.store.as_ref(), &world.workload, lifecycle, soon()).await.unwrap()
}

#[tokio::test]
async fn a_pack_with_a_tombstone_or_of_half_the_lifecycle_s_age_is_not_offered() {
    let day = Duration::from_secs(86_400);
    let world = World::new();
    for (file, seed) in [("old", 1), ("condemned", 2), ("young", 3)] {
        world.write(file, &noise(4 << 20, seed));
    }
    let (manifest, _) = world.checkpoint(Fixed, None).await;
    let packs: Vec<ContentHash> = manifest.packs().into_iter().collect();
    assert_eq!(packs.len(), 3);
    assert_eq!(reusable(&world, Some(day)).await.packs().len(), 3);
    condemn(&world, Subject::Pack(packs[0])).await;
    let old = world.objects(&packs[1].to_string()).remove(0);
    fs::File::options().write(true).open(old).unwrap().set_modified(SystemTime::now() - 6 * day).unwrap();
    let offered = async |lifecycle| {
        let mut offered: Vec<_> = reusable(&world, lifecycle).await.packs().keys().copied().collect();
        offered.sort();
        offered
    };
    assert_eq!(offered(Some(10 * day)).await, [packs[2]]);
    let mut both = [packs[1], packs[2]];
    both.sort();
    assert_eq!(offered(Some(13 * day)).await, both);
    assert_eq!(offered(None).await, both);
    assert!(reusable(&world, None).await.is_condemned(packs[0]));
}

#[tokio::test]
async fn a_manifest_is_confirmed_by_a_young_list_and_checked_again_by_a_stale_one() {
    let world = World::new();
    world.write("a", &noise(4 << 20, 1));
    world.write("b", &noise(4 << 20, 2));
    let (manifest, _) = world.checkpoint(Fixed, None).await;
    let name = manifest.encode(None).unwrap().1;
    let packs: Vec<ContentHash> = manifest.packs().into_iter().collect();
    let mut list = reusable(&world, None).await;
    condemn(&world, Subject::Pack(packs[0])).await;
    fs::remove_file(world.objects(&format!("/pack/{}", packs[1])).remove(0)).unwrap();
    let store = world.store.as_ref();
    // What is marked now is removed in ten minutes at the earliest.
    list.confirm(store, &manifest, name, soon()).await.unwrap();
    let young = GOOD_FOR - Duration::from_secs(1);
    list.confirm_after(young, store, &manifest, name, soon()).await.unwrap();
    let refused = list.confirm_after(GOOD_FOR, store, &manifest, name, soon()).await.unwrap_err();
    let NotReusable::Packs { packs: mut lost } = refused else { panic!("{refused}") };
    lost.sort();
    let mut both = packs.clone();
    both.sort();
    assert_eq!(lost, both);
    // It has learned what is condemned.
    assert!(list.is_condemned(packs[0]));
    assert!(matches!(list.confirm(store, &manifest, name, soon()).await, Err(NotReusable::Packs { .. })));
}

#[tokio::test]
async fn a_manifest_whose_own_name_is_condemned_is_refused() {
    let world = World::new();
    let manifest = world.manifest(vec![]);
    let name = manifest.encode(None).unwrap().1;
    condemn(&world, Subject::Manifest(name)).await;
    let refused = reusable(&world, None).await.confirm(world.store.as_ref(), &manifest, name, soon()).await;
    assert!(matches!(refused, Err(NotReusable::Manifest(refused)) if refused == name));
}

#[tokio::test]
async fn either_clock_makes_a_list_stale() {
    let long_ago = Duration::from_secs(1_000);
    let slept = Moment { steady: Instant::now(), wall: SystemTime::now() - long_ago };
    let set_back = Moment { steady: Instant::now(), wall: SystemTime::now() + long_ago };
    assert!(slept.elapsed() >= long_ago);
    assert!(set_back.elapsed() < Duration::from_secs(100));
}

#[tokio::test]
async fn a_save_builds_on_what_was_sent_after_the_list_was_made() {
    let world = World::new();
    world.write("kv.bin", &crate::fixture::noise(6 << 20, 1));
    let mut reusable = list(world.store.as_ref(), &world.workload, None, soon()).await.unwrap();
    let (manifest, saved) = world.checkpoint(Fixed, None).await;
    let again = || crate::save::SaveRequest { known_packs: None, ..world.request(Fixed, Some(&manifest)) };
    let stale = crate::save::SaveRequest { known_packs: Some(reusable.packs().clone()), ..again() };
    assert_eq!(world.save(stale).await.unwrap().bytes_sent, 6 << 20, "the list does not know them");
    reusable.sent(&saved.acknowledged);
    let known = crate::save::SaveRequest { known_packs: Some(reusable.packs().clone()), ..again() };
    assert_eq!(world.save(known).await.unwrap().bytes_sent, 0);
}
