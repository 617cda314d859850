//! How long it takes until a pod on another node serves restored state, beside what people do by hand in the same run:
//! the node is cordoned and the pod evicted, its preStop copies its state to S3, and the next pod waits for the object
//! and fetches it before it is ready.
//!
//! The same bytes over the same links, bounded by tbf. The engine is ours (tests/testbed/src/engine.rs), and by hand it
//! is a file: neither proves anything of a real engine's flush. What is printed is one machine's; the ratio travels.
//! `LIFEBOAT_LONG=1 tests/run nodes`.

use crate::cast::{
    Template, counters, eviction, forget_seed, gate, generations, gone, name, node, ready,
    replacement_within, seed, text, uid,
};
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::layout::{ACCESS_KEY, BUCKET, SECRET_KEY};
use testbed::request::Request;
use testbed::timings::Timings;

const STATE: u64 = 40_000_000;
/// Bits per second of the nodes that are left, and of the S3 server.
const RATE: u64 = 64_000_000;
const LIMIT: Duration = Duration::from_secs(120);
/// What is allowed beside the parts that are measured.
const SLACK: f64 = 2.0;

/// A kind of workload, and the node that its pod leaves.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    from: &'static str,
    stateful_set: bool,
}

const KINDS: [Kind; 2] = [
    Kind { name: "Deployment", from: "node-a", stateful_set: false },
    Kind { name: "StatefulSet", from: "node-c", stateful_set: true },
];

impl Kind {
    fn of(self, template: &Template) -> Value {
        if self.stateful_set { template.stateful_set(1) } else { template.deployment(1) }
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// As people save and fetch it today.
fn copying(app: &str, kind: Kind) -> Template {
    let s5cmd = format!("s5cmd --no-verify-ssl --endpoint-url {} cp", Testbed::s3_endpoint());
    let object = format!("s3://{BUCKET}/by-hand/{app}");
    let make = format!("head -c {STATE} /dev/urandom > /state/made");
    let fetch = format!("until {s5cmd} {object} /state/made; do sleep 0.2; done");
    let run = format!(
        "if [ \"$NODE\" = {} ]; then {make}; else {fetch}; fi; mv /state/made /state/state; trap 'exit 0' TERM; \
         while :; do sleep 0.1; done",
        kind.from
    );
    let environment = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let mut environment = environment.map(|(name, value)| json!({"name": name, "value": value})).to_vec();
    environment.push(json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}));
    Template::plain(app).prefers(kind.from).edit(|spec| {
        spec["terminationGracePeriodSeconds"] = 120.into();
        let container = &mut spec["containers"][0];
        container["image"] = "registry.local/engine:1".into();
        container["command"] = json!(["/bin/sh", "-c", run]);
        container["env"] = json!(environment);
        let save = format!("[ \"$NODE\" != {} ] || {s5cmd} /state/state {object}", kind.from);
        container["lifecycle"] = json!({"preStop": {"exec": {"command": ["/bin/sh", "-c", save]}}});
        container["readinessProbe"] =
            json!({"exec": {"command": ["test", "-e", "/state/state"]}, "periodSeconds": 1});
        container["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    })
}

/// When the pod's container began to run, to the second.
fn started(pod: &Value) -> Result<Timestamp> {
    let at = text(pod, "/status/containerStatuses/0/state/running/startedAt");
    at.parse().with_context(|| format!("{} does not run", name(pod)))
}

/// By hand: seconds to the next pod's readiness, and those of its fetch.
async fn by_hand(bed: &Testbed, kind: Kind) -> Result<(f64, f64)> {
    let app = format!("by-hand-{}", kind.name.to_lowercase());
    bed.apply(&[kind.of(&copying(&app, kind))])?;
    let old = ready(bed, &app, 1, Some(kind.from)).await?.remove(0);
    let began = Timestamp::now();
    bed.kubectl(&["cordon", kind.from])?;
    let path = format!("/api/v1/namespaces/default/pods/{}/eviction", name(&old));
    let evict = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name(&old), "namespace": "default"}});
    bed.create(&path, &evict).await?;
    let new = replacement_within(bed, &app, &old, LIMIT).await?;
    let end = Timestamp::now();
    ensure!(node(&new) == "node-b", "it runs on {}", node(&new));
    let objects = bed.objects()?;
    let saved = objects.iter().find(|object| object.key == format!("by-hand/{app}"));
    let saved = saved.context("nothing was copied by hand")?;
    ensure!(saved.size == STATE, "{} bytes were copied", saved.size);
    let scenario = format!("by hand: 40 MB over 64 Mbit/s, {}", kind.name);
    Timings::of(bed, &scenario, kind.from, began)?.serving_at(began, end).write()?;
    bed.kubectl(&["delete", &format!("{}/{app}", kind.name.to_lowercase()), "--wait=false"])?;
    bed.kubectl(&["uncordon", kind.from])?;
    Ok((seconds(began, end), seconds(saved.at.max(started(&new)?), end)))
}

/// Ours: seconds from the notice to the replacement's readiness, and those that are allowed with this fetch.
async fn ours(bed: &Testbed, kind: Kind, fetch: f64) -> Result<(f64, f64)> {
    let app = kind.name.to_lowercase();
    let template = Template::engine(&app, 0, 0).seeded().prefers(kind.from);
    bed.apply(&[seed(&app, 7, STATE), kind.of(&template)])?;
    let old = ready(bed, &app, 1, Some(kind.from)).await?.remove(0);
    forget_seed(bed, &app)?;
    let digest = counters(&old).await?["digest"].clone();

    let notice = Timestamp::now();
    bed.metadata(kind.from)?.interrupt(Duration::from_secs(120)).await?;
    let new = replacement_within(bed, &app, &old, LIMIT).await?;
    let end = Timestamp::now();
    ensure!(node(&new) == "node-b", "it runs on {}", node(&new));
    let holds = counters(&new).await?["digest"].clone();
    ensure!(holds == digest, "it holds {holds}, not {digest}: {}", gate(&new)?);
    gone(bed, &old, LIMIT).await?;
    let scenario = format!("40 MB over 64 Mbit/s, {}", kind.name);
    Timings::of(bed, &scenario, kind.from, notice)?.serving_at(notice, end).write()?;

    let lineage = if kind.stateful_set { name(&old) } else { uid(&old) };
    let saved = generations(bed, lineage)?.first().context("nothing was committed")?.at;
    let save = seconds(notice, saved);
    let created: Timestamp = text(&new, "/metadata/creationTimestamp").parse()?;
    let start = seconds(created, started(&new)?).max(1.0);
    let evicted = eviction(bed, name(&old))?.at;
    let allowed = match kind.stateful_set {
        // Its replacement is created when the old pod is gone.
        true => save + seconds(evicted, created).max(0.0) + start + fetch + SLACK,
        false => save.max(seconds(notice, created) + start) + fetch + SLACK,
    };
    Ok((seconds(notice, end), allowed))
}

#[tokio::test]
#[ignore = "the comparison: LIFEBOAT_LONG=1 tests/run nodes"]
async fn restored_state_is_served_no_later_than_its_parts_allow_and_beside_what_is_done_by_hand() -> Result<()>
{
    let bed = Testbed::up(&["node-a", "node-b", "node-c"]).await?;
    bed.install_agent().await?;
    for host in ["node-a", "node-c", "s3"] {
        bed.ask(&Request::Uplink { host: host.into(), rate: Some(RATE) })?;
    }
    for kind in KINDS {
        // Both replacements on the same node, over the same links.
        let third = if kind.from == "node-a" { "node-c" } else { "node-a" };
        bed.kubectl(&["cordon", third])?;
        let (hand, fetch) = by_hand(&bed, kind).await?;
        let (took, allowed) = ours(&bed, kind, fetch).await?;
        println!(
            "{}: restored state served {took:.2} s after the notice, by hand {hand:.2} s after the eviction (fetch \
             {fetch:.2} s): {:.2} of it; its parts allow {allowed:.2} s",
            kind.name,
            took / hand
        );
        ensure!(took <= allowed, "{}: {took:.2} s, and its parts allow {allowed:.2} s", kind.name);
        bed.kubectl(&["uncordon", third])?;
    }
    Ok(())
}
