use std::sync::Arc;

use super::*;
use crate::store::directory::DirectoryStore;

fn faulty(plan: &str) -> (FaultyStore, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    let inner = Arc::new(DirectoryStore::open(root.path()).unwrap());
    (FaultyStore::new(inner, FaultPlan::parse(plan).unwrap()), root)
}

async fn put(store: &FaultyStore, key: &str) -> Result<Version, StoreError> {
    store.put(key, Bytes::from_static(b"12345678").into(), Condition::IfAbsent).await
}

#[test]
fn a_plan_reads_back_as_it_was_written() {
    let text = "put=503*3,put:pack=torn#1,*=slow:2MiB/s,*=slow:200ms,*=gone@5s,*=gone@5s+10s,put=lost#2,get:claim=503@3+2";
    assert_eq!(FaultPlan::parse(text).unwrap().to_string(), text);
    assert_eq!(FaultPlan::parse(" \n").unwrap(), FaultPlan::default());
}

#[test]
fn what_is_not_understood_is_named() {
    for bad in [
        "put",
        "put=",
        "put=explode",
        "fetch=503",
        "put:pod=503",
        "put=503#0",
        "put=503*x",
        "put=503@",
        "put=gone@5s+3",
        "put=slow",
        "put=slow:fast",
        "put=slow:0MiB/s",
        "put=slow:2XB/s",
        "put=slow:/s",
        "put=slow:99999999999999GiB/s",
        "put=torn##1",
        "put=gone@5s+",
        "put=slow:5xs",
    ] {
        let error = FaultPlan::parse(&format!("put=503,{bad}")).unwrap_err().to_string();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
}

#[test]
fn every_fault_that_is_explained_can_be_planned() {
    for (name, _) in FAULTS {
        FaultPlan::parse(&format!("*={}", name.replace("<n>", "5"))).unwrap();
    }
}

#[tokio::test]
async fn faults_strike_where_and_when_they_should() {
    let (store, _root) = faulty("put:pack=503*2,put:pack=gone@4+1");
    put(&store, "v1/manifest/x").await.unwrap();
    assert_eq!(put(&store, "v1/pack/1").await.unwrap_err().category(), "throttled");
    assert_eq!(put(&store, "v1/pack/2").await.unwrap_err().category(), "throttled");
    put(&store, "v1/pack/3").await.unwrap();
    assert_eq!(put(&store, "v1/pack/4").await.unwrap_err().category(), "unreachable");
    put(&store, "v1/pack/5").await.unwrap();
    assert_eq!(store.struck().iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn a_torn_put_reports_success_and_a_lost_one_is_carried_out() {
    let (store, _root) = faulty("put=torn#1,put=lost#2,put=flip#3");
    put(&store, "v1/pack/1").await.unwrap();
    assert_eq!(store.get("v1/pack/1", 100).await.unwrap().bytes, "1234");
    put(&store, "v1/pack/2").await.unwrap_err();
    assert_eq!(store.get("v1/pack/2", 100).await.unwrap().bytes, "12345678");
    put(&store, "v1/pack/3").await.unwrap();
    assert_eq!(store.get("v1/pack/3", 100).await.unwrap().bytes, "12344678");
}

#[tokio::test]
async fn a_store_may_be_gone_for_a_while() {
    let (store, _root) = faulty("*=gone@0s+1s");
    assert!(store.list("").await.is_err());
    tokio::time::sleep(Duration::from_millis(1050)).await;
    store.list("").await.unwrap();
}

#[tokio::test]
async fn a_slow_line_is_shared() {
    let (store, _root) = faulty("put=slow:80B/s");
    let began = Instant::now();
    let (first, second) = tokio::join!(put(&store, "a"), put(&store, "b"));
    first.and(second).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200), "16 bytes at 80 bytes per second");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_lets_everybody_through() {
    let (store, _root) = faulty("put=unconditional");
    put(&store, "a").await.unwrap();
    put(&store, "a").await.unwrap();
}
