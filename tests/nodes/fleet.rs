//! Readiness gates on nodes where no agent lives: the fleet role opens them, with the reason, and leaves every other gate
//! alone.
//!
//! The agent is missing for the reason for which it is missing on clusters: a taint that its DaemonSet does not tolerate.
//! The engine is ours (tests/testbed/src/engine.rs); no state moves here.

use crate::cast::{Template, describe, gate, leaves, name, node, ready, text, uid};
use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::audit::Entry;
use testbed::request::Request;

/// The account of the fleet role.
const FLEET: &str = "system:serviceaccount:lifeboat-system:lifeboat-fleet";

/// A pod of an engine that tolerates what the agent does not.
fn engine(app: &str, on: &str) -> Template {
    let tolerates = json!([{"key": "example.com/inference", "operator": "Exists", "effect": "NoSchedule"}]);
    Template::engine(app, 0, 0).on(on).edit(|spec| spec["tolerations"] = tolerates)
}

/// Two nodes, of which only node-a has an agent, and the fleet role.
async fn bed(orphan_after: Duration) -> Result<(Testbed, Vec<Value>)> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    // Not that the fleet role is among what is tried: it runs where there is an agent.
    bed.kubectl(&["taint", "node", "node-b", "example.com/inference=:NoSchedule"])?;
    bed.install_manifests(&json!({}))?;
    let fleet = bed.start_fleet(orphan_after).await?;
    bed.until("the agent of node-a", Duration::from_secs(60), async |bed| {
        let agents = bed.agents().await?;
        ensure!(agents.iter().all(|agent| node(agent) == "node-a"), "an agent runs on node-b");
        let ready = |agent: &Value| testbed::bed::condition(agent, "Ready") == Some("True");
        Ok(agents.iter().any(ready).then_some(()))
    })
    .await?;
    Ok((bed, fleet))
}

/// What the fleet role wrote to pods.
fn openings(bed: &Testbed) -> Result<Vec<Entry>> {
    let mut audit = bed.audit()?;
    audit.retain(|one| one.user == FLEET && one.resource == "pods" && one.verb == "patch" && one.succeeded());
    Ok(audit)
}

/// Which replica asked: its token names the pod.
fn replica(entry: &Entry) -> &str {
    text(&entry.raw, "/user/extra/authentication.kubernetes.io~1pod-name/0")
}

/// When the pod was bound to its node.
fn bound(bed: &Testbed, pod: &Value) -> Result<Timestamp> {
    let audit = bed.audit()?;
    let found = audit
        .iter()
        .find(|one| one.verb == "create" && one.subresource == "binding" && one.name == name(pod));
    Ok(found.with_context(|| format!("{} was not bound", name(pod)))?.at)
}

async fn leader(bed: &Testbed) -> Result<String> {
    bed.until("a leader", Duration::from_secs(40), async |bed| {
        let path = "/apis/coordination.k8s.io/v1/namespaces/lifeboat-system/leases/lifeboat-fleet";
        let lease = bed.get(path).await?.unwrap_or_default();
        let holder = text(&lease, "/spec/holderIdentity").to_owned();
        Ok((!holder.is_empty()).then_some(holder))
    })
    .await
}

/// Waits for another leader than this one.
async fn next_leader(bed: &Testbed, old: &str, limit: Duration) -> Result<String> {
    bed.until("another leader", limit, async |bed| Ok(Some(leader(bed).await?).filter(|new| new != old)))
        .await
}

/// One of the fleet role's metrics, of the replica that is asked.
async fn metric(pod: &Value, name: &str) -> Result<f64> {
    let url = format!("http://{}:9188/metrics", text(pod, "/status/podIP"));
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let metrics = client.get(url).send().await?.text().await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("{name} is not in\n{metrics}"))?.parse()?)
}

async fn pod_of(bed: &Testbed, app: &str) -> Result<Value> {
    bed.until(&format!("a pod of {app}"), Duration::from_secs(30), async |bed| {
        let pods = bed.pods(app).await?;
        Ok(pods.into_iter().find(|pod| !leaves(pod) && !node(pod).is_empty()))
    })
    .await
}

#[tokio::test]
async fn where_no_agent_lives_the_fleet_role_opens_the_gate_after_its_time_and_says_why() -> Result<()> {
    const AFTER: Duration = Duration::from_secs(8);
    let (bed, fleet) = bed(AFTER).await?;
    // One with an agent beside it, which is none of the fleet role's business.
    bed.apply(&[engine("alone", "node-b").deployment(1), engine("looked-after", "node-a").deployment(1)])?;

    let alone = ready(&bed, "alone", 1, Some("node-b")).await?.remove(0);
    let opened = gate(&alone)?;
    ensure!(text(opened, "/reason") == "NoAgent", "the gate says {opened}");
    let message = text(opened, "/message");
    ensure!(message.contains("node-b") && message.contains("tolerate"), "{message}");
    let looked_after = ready(&bed, "looked-after", 1, Some("node-a")).await?.remove(0);
    ensure!(text(gate(&looked_after)?, "/reason") == "NothingToRestore", "{}", gate(&looked_after)?);

    // One write in all, to that pod, naming its uid; and not before its time.
    let openings = openings(&bed)?;
    ensure!(openings.len() == 1 && openings[0].name == name(&alone), "{openings:#?}");
    ensure!(openings[0].subresource == "status", "{:?}", openings[0]);
    ensure!(text(&openings[0].body, "/metadata/uid") == uid(&alone), "{}", openings[0].body);
    let waited = openings[0].at.duration_since(bound(&bed, &alone)?);
    ensure!(waited >= SignedDuration::try_from(AFTER)?, "it was opened after {waited}");
    eprintln!("bound to open: {waited}");

    bed.until("the Event", Duration::from_secs(10), async |bed| {
        let path = "/api/v1/namespaces/default/events?fieldSelector=reason%3DGateOpenedByFleet";
        let events = bed.list(path).await?;
        match events.first() {
            Some(event) => {
                ensure!(text(event, "/involvedObject/uid") == uid(&alone) && events.len() == 1, "{events:?}");
                ensure!(event["type"] == "Warning" && text(event, "/message").contains("node-b"), "{event}");
                Ok(Some(()))
            }
            None => bail!("there is none"),
        }
    })
    .await?;
    let leader = leader(&bed).await?;
    for pod in &fleet {
        let leads = f64::from(u8::from(name(pod) == leader));
        ensure!(metric(pod, "lifeboat_fleet_leader").await? == leads, "{} of leader {leader}", name(pod));
        let opened = metric(pod, "lifeboat_fleet_gates_opened_total").await?;
        ensure!(opened == leads, "{} counts {opened}", name(pod));
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_that_comes_in_time_has_its_pods_to_itself() -> Result<()> {
    const AFTER: Duration = Duration::from_secs(60);
    let (bed, fleet) = bed(AFTER).await?;
    bed.apply(&[engine("chat", "node-b").deployment(1)])?;
    let pod = pod_of(&bed, "chat").await?;
    let leader = leader(&bed).await?;
    let leader = fleet.iter().find(|pod| name(pod) == leader).context("the leader is no pod")?;
    bed.until("the fleet role to see it", Duration::from_secs(20), async |_| {
        let waiting = metric(leader, "lifeboat_fleet_pods_without_agent").await?;
        Ok((waiting == 1.0).then_some(()))
    })
    .await?;
    ensure!(gate(&pod).is_err(), "{}", describe(&pod));

    bed.kubectl(&["taint", "node", "node-b", "example.com/inference-"])?;
    let pod = ready(&bed, "chat", 1, Some("node-b")).await?.remove(0);
    ensure!(text(gate(&pod)?, "/reason") == "NothingToRestore", "the gate says {}", gate(&pod)?);
    // And after the fleet role's time, counted from when it first saw the pod, it still has done nothing.
    let since = Timestamp::now().duration_since(bound(&bed, &pod)?).unsigned_abs();
    tokio::time::sleep((AFTER + Duration::from_secs(3)).saturating_sub(since)).await;
    ensure!(openings(&bed)?.is_empty(), "{:#?}", openings(&bed)?);
    ensure!(metric(leader, "lifeboat_fleet_pods_without_agent").await? == 0.0, "it still waits");
    Ok(())
}

#[tokio::test]
#[ignore = "a minute and a half: LIFEBOAT_LONG=1 tests/run nodes"]
async fn when_the_leader_goes_or_hangs_the_other_one_acts() -> Result<()> {
    let (bed, _) = bed(Duration::from_secs(5)).await?;

    // It is told to go, and lets go of the Lease: nobody waits the 15 s for which it would have stood.
    let first = leader(&bed).await?;
    bed.kubectl(&["-n", "lifeboat-system", "delete", "pod", &first, "--wait=false"])?;
    let began = std::time::Instant::now();
    let second = next_leader(&bed, &first, Duration::from_secs(12)).await?;
    eprintln!("told to go to the next leader: {:?}", began.elapsed());
    bed.until("two replicas", Duration::from_secs(40), async |bed| {
        let pods = bed.fleet().await?;
        let ready = |pod: &&Value| testbed::bed::condition(pod, "Ready") == Some("True") && !leaves(pod);
        Ok((pods.iter().filter(ready).count() == 2 && pods.iter().all(|pod| name(pod) != first))
            .then_some(()))
    })
    .await?;

    // It hangs, and lets go of nothing.
    let pods = bed.fleet().await?;
    let frozen = pods.iter().find(|pod| name(pod) == second).context("the leader is gone")?;
    let id = text(frozen, "/status/containerStatuses/0/containerID")
        .trim_start_matches("containerd://")
        .to_owned();
    let signal = |signal| Request::KillContainer { node: node(frozen).into(), id: id.clone(), signal };
    bed.ask(&signal(19))?;
    let began = std::time::Instant::now();
    bed.apply(&[engine("chat", "node-b").deployment(1)])?;
    let third = next_leader(&bed, &second, Duration::from_secs(30)).await?;
    eprintln!("hung to the next leader: {:?}", began.elapsed());
    let pod = ready(&bed, "chat", 1, Some("node-b")).await?.remove(0);
    ensure!(text(gate(&pod)?, "/reason") == "NoAgent", "the gate says {}", gate(&pod)?);
    let by: Vec<String> = openings(&bed)?.iter().map(|entry| replica(entry).to_owned()).collect();
    ensure!(by == [third.clone()], "{third} leads, and the gate was opened by {by:?}");

    // The old leader goes on where it stood, with a moment that has passed, and writes nothing. (The kubelet may have
    // started it anew by now: its probe failed. Then it stands for election as any other.)
    let _ = bed.ask(&signal(18));
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(leader(&bed).await? == third, "the one that hung leads again");
    ensure!(openings(&bed)?.len() == 1, "{:#?}", openings(&bed)?);
    Ok(())
}
