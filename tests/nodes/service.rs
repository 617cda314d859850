//! A Service in front of llama-servers, one of which leaves: conversations go on where their state goes, and whoever
//! asks through kube-proxy meanwhile is answered.
//!
//! kube-proxy, EndpointSlices and the engine are real; the model is one of 10 MB with random weights. Conversations
//! have slots of their own and go to their pod; the steady client asks in the last slot of whichever pod the Service
//! chooses. What it does not prove: a load balancer outside the cluster, and what real models cost.

mod client;

use crate::cast::{Conversation, Template, gone, leaves, node, ready, service, text, uid};
use anyhow::{Context, Result, ensure};
use client::{Client, EVERY, Sent, gap};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;
use testbed::timings::Timings;

/// Slots with a conversation of several turns each.
const CONVERSATIONS: u32 = 2;

/// A departure from node-a with these replicas, while the client asks; what it sent, and that in words.
async fn departure(nodes: &[&str], replicas: u32, scenario: &str) -> Result<(Vec<Sent>, String)> {
    let bed = Testbed::up(nodes).await?;
    bed.install_agent().await?;
    let template = Template::llama("chat").slots(CONVERSATIONS + 1).apart("node-a");
    bed.apply(&[service("chat"), template.deployment(replicas)])?;
    let before = ready(&bed, "chat", replicas as usize, None).await?;
    let old = before.iter().find(|pod| node(pod) == "node-a").context("none runs on node-a")?;
    let mut conversations = Vec::new();
    for slot in 0..CONVERSATIONS {
        conversations.push(Conversation::begin(old, slot).await?);
    }
    let object = bed.get("/api/v1/namespaces/default/services/chat").await?.unwrap_or_default();
    let client = Client::start(&bed, "node-b", text(&object, "/spec/clusterIP"), CONVERSATIONS)?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let notice = Timestamp::now();
    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let new = bed
        .until("a ready replacement", Duration::from_secs(60), async |bed| {
            let pods = bed.pods("chat").await?;
            let is_new = |pod: &Value| before.iter().all(|known| uid(known) != uid(pod)) && !leaves(pod);
            Ok(pods
                .into_iter()
                .find(|pod| is_new(pod) && testbed::bed::condition(pod, "Ready") == Some("True")))
        })
        .await?;
    let mut first_token = None;
    for conversation in &conversations {
        let first = conversation.goes_on(&new).await?;
        eprintln!("{} of {} tokens from the cache", first.cached, first.saved);
        first_token.get_or_insert(first.first_token);
    }
    let serving = Timestamp::now();
    gone(&bed, old, Duration::from_secs(60)).await?;
    bed.ask(&Request::KillNode { node: "node-a".into() })?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for conversation in &conversations {
        conversation.ends(&new).await?;
    }
    let until = Timestamp::now();
    let sent = client.end()?;
    let from = sent.first().context("nothing was sent")?.at;
    let pace = until.duration_since(from).as_secs_f64() / EVERY.as_secs_f64();
    ensure!(sent.len() as f64 > pace * 0.9, "{} requests instead of {pace:.0}: it stood still", sent.len());
    let first_token = first_token.context("there was no conversation")?;
    let timings = Timings::of(&bed, scenario, "node-a", notice)?;
    let timings =
        timings.serving_at(notice, serving).first_token_at(notice, first_token).with_gap(gap(&sent));
    timings.write()?;
    let account = account(&sent, &timings);
    eprintln!("{account}");
    let answered = |since: Timestamp, until: Timestamp| {
        sent.iter().any(|one| one.answered.is_some() && (since..until).contains(&one.at))
    };
    ensure!(
        answered(from, notice) && answered(serving, until),
        "before or after nothing was answered: {account}"
    );
    Ok((sent, account))
}

/// How the requests fared, for whoever reads the log.
fn account(sent: &[Sent], timings: &Timings) -> String {
    let lost: Vec<&Sent> = sent.iter().filter(|one| one.answered.is_none()).collect();
    let failed: Vec<&String> = sent.iter().flat_map(|one| &one.failures).collect();
    format!(
        "{} requests, {} attempts failed, {} lost; {:.2} s at most without an answer; first token from restored state \
         {:.2} s after the notice; {:?}",
        sent.len(),
        failed.len(),
        lost.len(),
        timings.gap.unwrap_or_default(),
        timings.first_token.unwrap_or_default(),
        failed.first(),
    )
}

#[tokio::test]
async fn with_two_replicas_conversations_go_on_and_no_request_through_the_service_is_lost() -> Result<()> {
    let scenario = "llama-server behind a Service, two replicas";
    let (sent, account) = departure(&["node-a", "node-b", "node-c"], 2, scenario).await?;
    ensure!(sent.iter().all(|one| one.answered.is_some()), "{account}");
    Ok(())
}

#[tokio::test]
#[ignore = "it measures: LIFEBOAT_LONG=1 tests/run nodes"]
async fn with_one_replica_conversations_go_on_and_the_gap_is_measured() -> Result<()> {
    let scenario = "llama-server behind a Service, one replica";
    departure(&["node-a", "node-b"], 1, scenario).await.map(drop)
}
