//! A start under a notice: what is only a convenience while the agent runs ends no start.

use anyhow::Result;
use lifeboat_tests::{World, http_get, interrupted_node};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn evicted(world: &World) -> bool {
    world.requests("evict", "pods").iter().any(|request| request.granted())
}

fn errors(log: &str, word: &str) -> usize {
    log.lines().filter(|line| line.contains("\"ERROR\"") && line.contains(word)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_the_start_ends_no_evacuation() -> Result<()> {
    let (world, imds) = interrupted_node(40).await?;
    let _engine = world.stateful_pod("model", 1 << 20).await?;
    let state = world.folder.path().join("state");
    std::fs::create_dir(&state)?;
    // It can be opened, and every byte that is written to it finds no space left on the device.
    std::os::unix::fs::symlink("/dev/full", state.join("journal.jsonl"))?;
    let mut agent = world.agent(&imds.url(), &[])?;
    world.eventually("the pod is evicted", LIMIT, evicted).await?;
    world.eventually("its state is committed", LIMIT, |w| w.stored("/gen/") == 1).await?;
    assert!(!agent.has_ended());
    let port = agent.admin_port(&world, LIMIT).await?;
    assert!(http_get(port, "/metrics").await?.contains("lifeboat_journal_written 0"));
    assert_eq!(errors(&world.agent_log(), "--state-dir"), 1, "{}", world.agent_log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_at_the_start_ends_no_evacuation() -> Result<()> {
    let (world, imds) = interrupted_node(40).await?;
    let _engine = world.stateful_pod("model", 1 << 20).await?;
    let state = world.folder.path().join("state");
    std::fs::create_dir(&state)?;
    // A pipe that nobody writes to holds whoever opens it to read, as the search for earlier lives does.
    assert!(std::process::Command::new("mkfifo").arg(state.join("journal.jsonl")).status()?.success());
    let mut agent = world.agent(&imds.url(), &[])?;
    world.eventually("the pod is evicted", LIMIT, evicted).await?;
    world.eventually("its state is committed", LIMIT, |w| w.stored("/gen/") == 1).await?;
    assert!(!agent.has_ended());
    world
        .eventually("it is said", LIMIT, |w| errors(&w.agent_log(), "the disk of the journal hangs") == 1)
        .await?;
    let port = agent.admin_port(&world, LIMIT).await?;
    assert!(http_get(port, "/metrics").await?.contains("lifeboat_journal_written 0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_is_none_is_used_whole_once_it_is_one() -> Result<()> {
    let (world, imds) = interrupted_node(40).await?;
    world.stateless_pod("web")?;
    let state = world.folder.path().join("state");
    std::fs::write(&state, "a file where the folder should be")?;
    let _agent = world.agent(&imds.url(), &[])?;
    world.eventually("the pod is evicted", LIMIT, evicted).await?;
    std::fs::remove_file(&state)?;
    world.eventually("the journal is there", LIMIT, |w| w.journal().contains("\"evict\"")).await?;
    let first = world.journal().lines().next().unwrap_or_default().to_owned();
    assert!(first.contains("\"life\""), "from the first line on: {first}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_admin_address_is_named_with_its_flag_and_served_once_free() -> Result<()> {
    let (world, imds) = interrupted_node(40).await?;
    world.stateless_pod("web")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let mut agent = world.agent(&imds.url(), &["--admin-addr", &address.to_string()])?;
    world.eventually("the pod is evicted", LIMIT, evicted).await?;
    assert!(!agent.has_ended());
    let log = world.agent_log();
    assert!(log.contains(&address.to_string()) && errors(&log, "--admin-addr") == 1, "{log}");
    drop(taken);
    assert_eq!(agent.admin_port(&world, LIMIT).await?, address.port());
    assert!(http_get(address.port(), "/livez").await?.contains("200 OK"));
    Ok(())
}
