//! The fleet role and the store: what reports say is counted once, by whoever leads; nodes that vanish are noticed; and a
//! store that is away keeps no gate closed.
//!
//! The store is a directory with the semantics of S3, the API server the drill's stand-in. What real nodes do when they
//! vanish is tried on the testbed (tests/nodes/fleet_reports.rs).

use anyhow::{Context, Result, bail};
use checkpoint::store::{Body, Condition, StoreOptions, open};
use lifeboat_tests::{NAMESPACE, NODE, Process, World, http_get};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// The agents' namespace.
const AGENTS: &str = "lifeboat-system";

/// A replica that looks often, and waits for nothing.
async fn replica(world: &World, identity: &str) -> Result<(Process, u16)> {
    let store = world.store();
    let process =
        world.fleet(identity, &["--store", &store, "--adopt-every", "1s", "--adopt-after", "1s"])?;
    let port = process.admin_port(world, LIMIT).await?;
    Ok((process, port))
}

async fn write_report(world: &World, node: &str, id: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut report = json!({
        "format": 1, "node": node, "boot": "b", "notice": id, "kind": {"interruption": "terminate"},
        "short": false, "withdrawn": false, "noticed": 1_000, "deadline": 116_000, "cordoned": 1_080,
        "written": 21_000, "complete": true,
        "pods": [{
            "uid": "u", "namespace": "chat", "name": "llama-0", "priority": 100, "departure": "gone", "reason": null,
            "state": "saved", "state_reason": null, "generation": "1-1", "bytes": 4096, "sent": 1024, "refusals": 2,
            "evicted": 1_100, "committed": 14_000, "gone": 15_000,
        }],
    });
    change(&mut report);
    let store = open(&world.store(), StoreOptions::default()).await?;
    let key = checkpoint::key::report("default", node, id)?;
    store.put(&key, Body::from(report.to_string().into_bytes()), Condition::Always).await?;
    Ok(())
}

/// What one scrape shows of a series.
fn value(metrics: &str, series: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("{series} is not in\n{metrics}"))?.parse()?)
}

/// Scrapes until a series has this value.
async fn until(process: &Process, port: u16, series: &str, wanted: f64) -> Result<String> {
    let began = tokio::time::Instant::now();
    loop {
        let metrics = http_get(port, "/metrics").await?;
        // A gauge is there once it was set.
        if value(&metrics, series).is_ok_and(|value| value == wanted) {
            return Ok(metrics);
        }
        if began.elapsed() > LIMIT {
            bail!("{series} is not {wanted} in\n{metrics}\n{}", process.log());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Scrapes when the replica has looked for reports twice more.
async fn after_two_rounds(process: &Process, port: u16) -> Result<String> {
    const ROUNDS: &str = "lifeboat_fleet_adoptions_total{outcome=\"done\"}";
    let now = value(&http_get(port, "/metrics").await?, ROUNDS)?;
    until(process, port, ROUNDS, now + 2.0).await
}

const ADOPTED: &str = "lifeboat_fleet_reports_total{outcome=\"adopted\"}";
const COMPLETE: &str = "lifeboat_fleet_evacuations_total{kind=\"terminate\",outcome=\"complete\"}";

#[tokio::test(flavor = "multi_thread")]
async fn two_reports_are_counted_once_over_a_change_of_the_leader_and_a_drill_not_at_all() -> Result<()> {
    let world = World::start().await?;
    for node in ["node-1", "node-2"] {
        write_report(&world, node, "1000-aa", |_| ()).await?;
    }
    write_report(&world, "node-3", "1000-bb", |report| report["kind"] = json!("drill")).await?;
    write_report(&world, "node-4", "1000-cc", |report| *report = json!("no report")).await?;

    let (first, port) = replica(&world, "fleet-1").await?;
    let metrics = until(&first, port, ADOPTED, 2.0).await?;
    for (series, wanted) in [
        (COMPLETE, 2.0),
        ("lifeboat_fleet_reports_total{outcome=\"drill\"}", 1.0),
        ("lifeboat_fleet_reports_total{outcome=\"unreadable\"}", 1.0),
        ("lifeboat_fleet_evacuation_seconds_count", 2.0),
        ("lifeboat_fleet_evacuation_seconds_sum", 40.0),
        ("lifeboat_fleet_notice_to_cordon_seconds_count", 2.0),
        ("lifeboat_fleet_notice_to_commit_seconds_sum", 26.0),
        ("lifeboat_fleet_notice_to_gone_seconds_sum", 28.0),
        ("lifeboat_fleet_states_total{outcome=\"saved\"}", 2.0),
        ("lifeboat_fleet_departures_total{outcome=\"gone\"}", 2.0),
        ("lifeboat_fleet_state_bytes_total{outcome=\"saved\"}", 8192.0),
        ("lifeboat_fleet_state_sent_bytes_total", 2048.0),
        ("lifeboat_fleet_evictions_refused_total", 4.0),
    ] {
        assert_eq!(value(&metrics, series)?, wanted, "{series}");
    }
    let again = after_two_rounds(&first, port).await?;
    assert_eq!(value(&again, ADOPTED)?, 2.0, "the same replica counted it again");

    first.terminate()?;
    let (second, port) = replica(&world, "fleet-2").await?;
    let metrics = after_two_rounds(&second, port).await?;
    assert_eq!(value(&metrics, ADOPTED)?, 0.0, "the next leader counted again\n{}", first.log());
    assert_eq!(value(&metrics, "lifeboat_fleet_reports_waiting")?, 0.0);
    write_report(&world, "node-5", "1000-dd", |report| report["complete"] = json!(false)).await?;
    let metrics = until(&second, port, ADOPTED, 1.0).await?;
    assert_eq!(value(&metrics, COMPLETE)?, 0.0);
    let incomplete = "lifeboat_fleet_evacuations_total{kind=\"terminate\",outcome=\"incomplete\"}";
    assert_eq!(value(&metrics, incomplete)?, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_scrape_has_seen_is_left_to_the_next_leader_and_after_a_crash_it_is_never_counted_twice()
-> Result<()> {
    let world = World::start().await?;
    write_report(&world, "node-1", "1000-aa", |_| ()).await?;
    // Nobody scrapes it.
    let (first, _) = replica(&world, "fleet-1").await?;
    world.eventually("it is adopted", LIMIT, |_| first.log().contains("report adopted")).await?;
    first.terminate()?;
    let (second, port) = replica(&world, "fleet-2").await?;
    let metrics = until(&second, port, ADOPTED, 1.0).await?;
    assert_eq!(value(&metrics, COMPLETE)?, 1.0);

    // Killed: it can give nothing back. What it had promised to count is lost to Prometheus, and stays in the store.
    write_report(&world, "node-2", "1000-bb", |_| ()).await?;
    let twice = |log: &str| log.matches("report adopted").count() == 2;
    world.eventually("the other is adopted", LIMIT, |_| twice(&second.log())).await?;
    drop(second);
    let (third, port) = replica(&world, "fleet-3").await?;
    until(&third, port, "lifeboat_fleet_leader", 1.0).await?;
    let metrics = after_two_rounds(&third, port).await?;
    assert_eq!(value(&metrics, ADOPTED)?, 0.0);
    Ok(())
}

/// A pod whose gate nobody opens, as there is no agent.
fn gated_pod(world: &World) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "gated", "namespace": NAMESPACE},
        "spec": {"nodeName": NODE, "readinessGates": [{"conditionType": "lifeboat.dev/restored"}],
            "containers": [{"name": "engine", "image": "registry.example/engine:1"}]},
        "status": {"phase": "Running", "conditions": []},
    });
    world.storage.create("pods", NAMESPACE, pod).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    Ok(())
}

fn gate_is_open(world: &World) -> bool {
    let pod = world.storage.get("pods", NAMESPACE, "gated").unwrap_or_default();
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|one| one["type"] == "lifeboat.dev/restored" && one["reason"] == "NoAgent")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_keeps_no_gate_closed() -> Result<()> {
    let world = World::start().await?;
    gated_pod(&world)?;
    // It accepts connections, and never answers.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", hangs.local_addr()?);
    let stored =
        ["--store", "s3://bucket/prefix", "--store-endpoint", &endpoint, "--store-region", "us-east-1"];
    let others = ["--store-path-style", "--adopt-every", "1s", "--orphan-after", "2s"];
    let _fleet = world.fleet("fleet-1", &[&stored[..], &others[..]].concat())?;
    world.eventually("the gate is open", Duration::from_secs(20), gate_is_open).await?;
    assert!(listed_nodes(&world), "with a store it watches nodes");
    hangs.set_nonblocking(true)?;
    hangs.accept().context("the store was not asked")?;
    Ok(())
}

fn listed_nodes(world: &World) -> bool {
    world.requests("list", "nodes").iter().any(|request| request.user == "fleet")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_gates_are_opened_and_nothing_else_is_done_which_is_said_once() -> Result<()> {
    let world = World::start().await?;
    gated_pod(&world)?;
    let fleet = world.fleet("fleet-1", &["--orphan-after", "2s"])?;
    world.eventually("the gate is open", Duration::from_secs(20), gate_is_open).await?;
    let log = fleet.log();
    assert_eq!(log.matches("LIFEBOAT_STORE").count(), 1, "{log}");
    assert!(!listed_nodes(&world), "it looked at nodes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_named_and_counted_as_a_failed_round() -> Result<()> {
    let world = World::start().await?;
    let store = format!("dir:{}", world.folder.path().join("nowhere").display());
    let fleet = world.fleet("fleet-1", &["--store", &store, "--adopt-every", "1s"])?;
    let port = fleet.admin_port(&world, LIMIT).await?;
    const FAILED: &str = "lifeboat_fleet_adoptions_total{outcome=\"failed\"}";
    until(&fleet, port, FAILED, 2.0).await?;
    let log = fleet.log();
    assert_eq!(log.matches("reports cannot be adopted").count(), 1, "it is said once for each cause\n{log}");
    assert!(log.contains("nowhere"), "{log}");
    Ok(())
}

/// A Spot node, well and with a ready agent.
fn node_with_agent(world: &World, name: &str) -> Result<String> {
    let node = fakes::node_object(name, "SPOT");
    let refused = |refusal| anyhow::anyhow!("{refusal:?}");
    let node = world.storage.create("nodes", "", node).map_err(refused)?;
    let agent = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("agent-{name}"), "labels": {
            "app.kubernetes.io/name": "lifeboat", "app.kubernetes.io/component": "agent"}},
        "spec": {"nodeName": name, "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    world.storage.create("pods", AGENTS, agent).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    Ok(node["metadata"]["uid"].as_str().context("the node has no uid")?.to_owned())
}

fn change(world: &World, node: &str, change: impl FnOnce(&mut Value)) -> Result<Arc<Value>> {
    let changed = world.storage.update("nodes", "", node, |node| {
        let mut node = node.clone();
        change(&mut node);
        Ok(Some(node))
    });
    changed.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
}

fn silent(node: &mut Value) {
    node["status"]["conditions"][0]["status"] = json!("Unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spot_node_that_falls_silent_and_goes_is_gone_without_notice_also_over_a_change_of_the_leader()
-> Result<()> {
    const MISSING: &str = "lifeboat_fleet_spot_nodes_missing";
    let gone = |how: &str| format!("lifeboat_fleet_spot_nodes_gone_total{{how=\"{how}\"}}");
    let world = World::start().await?;
    let mut nodes = Vec::new();
    for name in ["silent", "told", "noticed", "scaled-down", "deleted"] {
        nodes.push((name, node_with_agent(&world, name)?));
    }
    let (first, port) = replica(&world, "fleet-1").await?;
    after_two_rounds(&first, port).await?;

    change(&world, "silent", silent)?;
    // Its report came, and its taint did not.
    change(&world, "told", silent)?;
    write_report(&world, "told", "1000-aa", |_| ()).await?;
    change(&world, "noticed", |node| {
        node["spec"]["taints"] =
            json!([{"key": "lifeboat.dev/interruption", "value": "terminate", "effect": "NoSchedule"}]);
    })?;
    change(&world, "scaled-down", |node| node["spec"]["unschedulable"] = json!(true))?;
    until(&first, port, MISSING, 3.0).await?;
    change(&world, "scaled-down", silent)?;

    // All of them go while nobody leads.
    first.terminate()?;
    world.eventually("it has let go", LIMIT, |_| first.log().contains("\"stopped\"")).await?;
    for (name, uid) in &nodes {
        world.storage.remove("nodes", "", name, uid).context("the node was not there")?;
    }
    let (second, port) = replica(&world, "fleet-2").await?;
    until(&second, port, &gone("without_notice"), 1.0).await?;
    let metrics = after_two_rounds(&second, port).await?;
    assert_eq!(value(&metrics, &gone("without_notice"))?, 1.0, "{}", second.log());
    assert_eq!(value(&metrics, &gone("with_report"))?, 1.0, "{}", second.log());
    assert_eq!(value(&metrics, &gone("without_report"))?, 1.0, "{}", second.log());
    assert_eq!(value(&metrics, MISSING)?, 0.0);

    // Before its eyes.
    let uid = node_with_agent(&world, "next")?;
    after_two_rounds(&second, port).await?;
    change(&world, "next", silent)?;
    world.storage.remove("nodes", "", "next", &uid).context("the node was not there")?;
    until(&second, port, &gone("without_notice"), 2.0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected_by_the_leader_where_it_is_asked_for() -> Result<()> {
    let world = World::start().await?;
    write_report(&world, "node-1", "1000-aa", |_| ()).await?;
    let store = world.store();
    let arguments = ["--store", &store, "--adopt-every", "1s", "--adopt-after", "1s"];
    let garbage = ["--collect-garbage-every", "1m", "--keep", "2"];
    let fleet = world.fleet("fleet-1", &[&arguments[..], &garbage[..]].concat())?;
    let port = fleet.admin_port(&world, LIMIT).await?;
    until(&fleet, port, "lifeboat_fleet_garbage_passes_total{outcome=\"done\"}", 1.0).await?;
    assert!(fleet.log().contains("garbage collected"), "{}", fleet.log());
    // What is beside the workloads is none of it.
    assert_eq!(world.stored("report/node-1"), 1);
    until(&fleet, port, ADOPTED, 1.0).await?;

    // The default: nothing is removed that nobody asked to have removed.
    drop(fleet);
    let fleet = world.fleet("fleet-2", &arguments)?;
    let port = fleet.admin_port(&world, LIMIT).await?;
    until(&fleet, port, "lifeboat_fleet_leader", 1.0).await?;
    let metrics = after_two_rounds(&fleet, port).await?;
    assert_eq!(value(&metrics, "lifeboat_fleet_garbage_passes_total{outcome=\"done\"}")?, 0.0);
    Ok(())
}
