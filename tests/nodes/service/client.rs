//! A client inside the cluster's network that asks through a Service at a steady pace, whatever happens.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use testbed::Testbed;

/// Between two requests.
pub const EVERY: Duration = Duration::from_millis(200);
/// Before a failed one is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often it is sent again at most.
const RETRIES: usize = 2;
/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request, and what came of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it was sent first.
    pub at: Timestamp,
    /// When it was answered; `None` if it is lost.
    pub answered: Option<Timestamp>,
    /// Why an attempt failed.
    pub failures: Vec<String>,
}

/// A client that runs.
#[derive(Debug)]
pub struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Sent>>>,
}

impl Client {
    /// On this node, where kube-proxy finds the Service, in a thread of its own. It asks in the last of so many slots.
    pub fn start(bed: &Testbed, node: &str, service: &str, slot: u32) -> Result<Self> {
        let (folder, node, url) =
            (bed.folder().clone(), node.to_owned(), format!("http://{service}/completion"));
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            testbed::bed::enter(&folder, &node)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(ask_on(url, slot, &told))
        });
        Ok(Self { stop, thread })
    }

    /// Ends it. Every request that it sent, in order.
    pub fn end(self) -> Result<Vec<Sent>> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.thread.join().ok().context("the client panicked")??;
        ensure!(!sent.is_empty(), "the client sent nothing");
        Ok(sent)
    }
}

async fn ask_on(url: String, slot: u32, stop: &AtomicBool) -> Result<Vec<Sent>> {
    // Each on a connection of its own: kube-proxy chooses an endpoint for each.
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(PATIENCE).build()?;
    let mut clock = tokio::time::interval(EVERY);
    let mut running = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        running.push(tokio::spawn(send(http.clone(), url.clone(), slot)));
    }
    let mut sent = Vec::with_capacity(running.len());
    for one in running {
        sent.push(one.await?);
    }
    Ok(sent)
}

async fn send(http: reqwest::Client, url: String, slot: u32) -> Sent {
    let mut sent = Sent { at: Timestamp::now(), answered: None, failures: Vec::new() };
    while sent.answered.is_none() && sent.failures.len() <= RETRIES {
        if !sent.failures.is_empty() {
            tokio::time::sleep(RETRY_AFTER).await;
        }
        match attempt(&http, &url, slot).await {
            Ok(()) => sent.answered = Some(Timestamp::now()),
            Err(error) => sent.failures.push(format!("{error:#}")),
        }
    }
    sent
}

async fn attempt(http: &reqwest::Client, url: &str, slot: u32) -> Result<()> {
    let request = json!({"prompt": "What time is it?", "n_predict": 2, "id_slot": slot, "temperature": 0,
        "cache_prompt": true, "return_tokens": true, "ignore_eos": true});
    let answer = http.post(url).json(&request).send().await?.error_for_status()?;
    let answer: Value = answer.json().await?;
    ensure!(answer["tokens"].as_array().is_some_and(|tokens| tokens.len() == 2), "it answered {answer}");
    Ok(())
}

/// The longest time in which nothing was answered.
pub fn gap(sent: &[Sent]) -> Duration {
    let mut answered: Vec<Timestamp> = sent.iter().filter_map(|one| one.answered).collect();
    answered.sort();
    let gaps = answered.windows(2).map(|pair| pair[1].duration_since(pair[0]).unsigned_abs());
    gaps.max().unwrap_or(Duration::MAX)
}
