//! The real agent against the real amazon-ec2-metadata-mock: AWS's own idea of IMDS.
//!
//! What it proves: token handling, the documents' real shapes, the notice's way to cordon and evacuation,
//! a rebalance's way to the soft taint and the pre-copy. What it cannot show (5xx, a notice that
//! disappears, garbage, timeouts) is drilled with our own IMDS.
//!
//! `LIFEBOAT_AEMM` names the binary: `tests/run imds` builds it.

use anyhow::{Context, Result};
use lifeboat_tests::{Process, World};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// amazon-ec2-metadata-mock on a free port, which it is asked for on 127.0.0.1 only.
struct Mock {
    _process: Process,
    url: String,
}

async fn mock(binary: &PathBuf, world: &World, arguments: &[&str]) -> Result<Mock> {
    let config = world.folder.path().join("aemm.json");
    // Its default instance is on-demand, and such a node is not polled for interruptions.
    std::fs::write(&config, r#"{"metadata":{"values":{"instance-life-cycle":"spot"}}}"#)?;
    for _ in 0..5 {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(binary);
        command.arg("spot").arg("-c").arg(&config).args(["-n", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["--imdsv2", "--mock-ip-count", "-1"]).args(arguments);
        let mut process = Process::start(&mut command, &world.folder.path().join("aemm.log"))?;
        for _ in 0..50 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(Mock { _process: process, url: format!("http://127.0.0.1:{port}") });
            }
            if process.has_ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    anyhow::bail!("amazon-ec2-metadata-mock does not answer: {:?}", world.folder.path().join("aemm.log"))
}

fn binary() -> Result<PathBuf> {
    std::env::var_os("LIFEBOAT_AEMM")
        .map(PathBuf::from)
        .context("LIFEBOAT_AEMM names no amazon-ec2-metadata-mock: run `tests/run imds`, which builds it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spot_notice_cordons_in_one_patch_then_saves_and_evicts() -> Result<()> {
    let binary = binary()?;
    let world = World::start().await?;
    world.stateless_pod("web")?;
    let _engine = world.stateful_pod("model", 3 << 20).await?;
    let at = rfc3339_in(60);
    let mock =
        mock(&binary, &world, &["--mock-delay-sec", "3", "--rebalance-delay-sec", "600", "--time", &at])
            .await?;
    let _agent = world.agent(&mock.url, &[])?;

    let limit = Duration::from_secs(20);
    world.eventually("the node is cordoned", limit, |w| w.node()["spec"]["unschedulable"] == true).await?;
    let taints = world.taints();
    assert_eq!(taints.get("lifeboat.dev/interruption").map(String::as_str), Some("NoSchedule"));
    assert!(taints.contains_key("example.com/other"), "another's taint was dropped: {taints:?}");
    let patches = world.requests("patch", "nodes");
    assert_eq!(patches.len(), 1, "cordon, taint and annotation are one PATCH: {patches:#?}");
    let annotation = world.node()["metadata"]["annotations"]["lifeboat.dev/evacuation"].clone();
    assert!(annotation.as_str().is_some_and(|text| text.contains("deadline")), "{annotation}");

    world.eventually("both pods are evicted", limit, |w| granted_evictions(w).len() == 2).await?;
    assert!(world.stored("/gen/") >= 1, "the state is committed");
    let cordoned = patches.first().context("a patch")?.answered;
    for eviction in world.requests("evict", "pods") {
        assert!(eviction.at >= cordoned, "{} was evicted before the cordon", eviction.name);
        let options = &eviction.body["deleteOptions"];
        assert!(options["preconditions"]["uid"].is_string(), "{options}");
        assert!(
            options["gracePeriodSeconds"].as_u64().is_some_and(|grace| (1..=5).contains(&grace)),
            "{options}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_taints_softly_and_copies_ahead_and_evicts_nothing_and_is_undone() -> Result<()> {
    let binary = binary()?;
    let world = World::start().await?;
    world.stateless_pod("web")?;
    let engine = world.stateful_pod("model", 3 << 20).await?;
    // A fixed time: its default is that of the request, a new recommendation at every poll.
    let at = rfc3339_in(0);
    let arguments = ["--mock-delay-sec", "600", "--rebalance-delay-sec", "2", "--rebalance-rec-time", &at];
    let mock = mock(&binary, &world, &arguments).await?;
    let _agent = world.agent(&mock.url, &["--undo-after", "8s", "--precopy-interval", "2s"])?;

    let limit = Duration::from_secs(20);
    let soft = |w: &World| {
        w.taints().get("lifeboat.dev/rebalance").is_some_and(|effect| effect == "PreferNoSchedule")
    };
    world.eventually("the soft taint is on the node", limit, soft).await?;
    world.eventually("a generation is pre-copied", limit, |w| w.stored("/gen/") >= 1).await?;
    engine.touch(0.1);
    world.eventually("a second one follows", limit, |w| w.stored("/gen/") >= 2).await?;
    world.eventually("it is undone after its time", limit, |w| !soft(w)).await?;
    assert_ne!(world.node()["spec"]["unschedulable"], true, "a rebalance does not cordon");
    assert!(world.node()["metadata"]["annotations"]["lifeboat.dev/evacuation"].is_null(), "a trace is left");
    assert!(world.taints().contains_key("example.com/other"), "another's taint was dropped");
    assert_eq!(world.requests("evict", "pods").len() + world.requests("delete", "pods").len(), 0);
    assert!(!engine.is_quiesced(), "a pod that goes on serving was quiesced");
    Ok(())
}

fn granted_evictions(world: &World) -> Vec<String> {
    let evictions = world.requests("evict", "pods").into_iter().filter(|request| request.granted());
    evictions.map(|request| request.name).collect()
}

/// An absolute time, as amazon-ec2-metadata-mock wants it: its default is a new one at every poll.
fn rfc3339_in(seconds: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
