//! A new pod whose agent gets nothing from the store: how long its gate stays closed, and what is said of it. The store is a
//! port on loopback that refuses, that accepts and never answers, or that answers every request with 503.

use anyhow::{Context, Result};
use lifeboat_tests::{Process, World, http_get, quiet_node};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "none"), ("AWS_SECRET_ACCESS_KEY", "none")];
/// What a test allows beyond the agent's own limit: the watch, and the patch of the condition.
const LATE: Duration = Duration::from_secs(5);

/// An agent whose store is at this endpoint.
fn agent(world: &World, imds: &str, endpoint: &str, environment: &[(&str, &str)]) -> Result<Process> {
    let store = ["--store", "s3://bucket/prefix", "--store-endpoint", endpoint, "--store-path-style"];
    world.agent_in(imds, &[&store[..], &["--store-region", "us-east-1"]].concat(), environment)
}

/// The gate of a pod that is created now is open after `limit` and not before: its reason and its message.
async fn opens_after(world: &World, pod: &str, limit: Duration) -> Result<(String, String)> {
    let began = Instant::now();
    world.new_pod(pod)?;
    world.eventually("the gate is open", limit + LATE, |world| world.gate(pod).is_some()).await?;
    let took = began.elapsed();
    assert!(took + Duration::from_millis(500) > limit, "open after {took:?}\n{}", world.agent_log());
    let gate = world.gate(pod).context("it is open")?;
    let text = |field: &str| gate[field].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("status"), "True", "the pod is in rotation");
    Ok((text("reason"), text("message")))
}

/// The reason is in the metric and in an Event of the pod, too.
async fn is_told(world: &World, agent: &Process, pod: &str, reason: &str) -> Result<()> {
    let port = agent.admin_port(world, LATE).await?;
    let metrics = http_get(port, "/metrics").await?;
    let counted = format!("lifeboat_restores_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&counted));
    assert!(count.is_some_and(|count| count != "0"), "{counted}\n{metrics}");
    let of_pod = |event: &std::sync::Arc<serde_json::Value>| {
        event["reason"] == reason && event["involvedObject"]["name"] == pod
    };
    world
        .eventually("an Event tells it", LATE, |world| world.storage.list("events").0.iter().any(of_pod))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_store_keeps_a_gate_closed_for_half_a_minute_then_for_5_s() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    // Nobody listens there any more.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let agent = agent(&world, &imds.url(), &format!("http://{address}"), &KEYS)?;
    let (reason, message) = opens_after(&world, "first", Duration::from_secs(30)).await?;
    assert_eq!(reason, "StoreUnreachable", "{message}");
    assert!(message.contains(&address.to_string()), "the store is named: {message}");
    is_told(&world, &agent, "first", &reason).await?;
    let (reason, message) = opens_after(&world, "second", Duration::from_secs(5)).await?;
    assert_eq!(reason, "StoreUnreachable", "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_store_keeps_an_agents_gate_closed_for_half_a_minute() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    // It accepts connections, and never answers.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = hangs.local_addr()?;
    let agent = agent(&world, &imds.url(), &format!("http://{address}"), &KEYS)?;
    let (reason, message) = opens_after(&world, "new", Duration::from_secs(30)).await?;
    assert_eq!(reason, "StoreUnreachable", "{message}");
    assert!(message.contains(&address.to_string()), "the store is named: {message}");
    is_told(&world, &agent, "new", &reason).await?;
    hangs.set_nonblocking(true)?;
    hangs.accept().context("the store was not asked")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_credentials_opens_a_gate_after_half_a_minute() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    let hangs = std::net::TcpListener::bind("127.0.0.1:0")?;
    let nothing = [("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"), ("AWS_CONFIG_FILE", "/dev/null")];
    let _agent = agent(&world, &imds.url(), &format!("http://{}", hangs.local_addr()?), &nothing)?;
    let (reason, message) = opens_after(&world, "new", Duration::from_secs(30)).await?;
    assert_eq!(reason, "StoreUnreachable", "{message}");
    assert!(message.contains("credentials"), "{message}");
    Ok(())
}

/// Reads one request and answers it with S3's SlowDown.
async fn refuse(mut stream: TcpStream) -> Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break String::from_utf8_lossy(&request[..end]).to_lowercase();
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Ok(0), |length| length.trim().parse())?;
    while request.len() < head.len() + 4 + length && stream.read_buf(&mut request).await? > 0 {}
    let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let answer = format!(
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_store_keeps_an_agents_gate_closed_for_two_minutes() -> Result<()> {
    let (world, imds) = quiet_node().await?;
    let throttles = TcpListener::bind("127.0.0.1:0").await?;
    let address = throttles.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = throttles.accept().await {
            tokio::spawn(refuse(stream));
        }
    });
    let agent = agent(&world, &imds.url(), &format!("http://{address}"), &KEYS)?;
    let (reason, message) = opens_after(&world, "new", Duration::from_secs(120)).await?;
    assert_eq!(reason, "TimedOut", "{message}");
    assert!(message.contains("SlowDown"), "{message}");
    is_told(&world, &agent, "new", &reason).await
}
