//! The image takes its time: pulled from a real registry over a slow link, while the state waits in the store.

use crate::cast::{Template, counters, forget_seed, node, ready, replacement, seed, uid};
use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;
use testbed::layout::{REGISTRY_PORT, S3};
use testbed::request::Request;
use testbed::timings::Timings;
use testbed::{NodeOptions, Testbed};

const MIB: u64 = 1024 * 1024;

/// What the registry may send, bits per second: the engine's image of some 30 MB takes about ten seconds.
const RATE: u64 = 24_000_000;

#[tokio::test]
async fn a_replacement_whose_image_is_pulled_slowly_gets_the_state_that_was_committed_meanwhile() -> Result<()>
{
    let lean = NodeOptions { lean: true, ..NodeOptions::new("node-b") };
    let bed = Testbed::with(vec![NodeOptions::new("node-a"), lean]).await?;
    bed.install_agent().await?;
    let publish = |image: &str| Request::Publish {
        node: "node-a".into(),
        image: format!("registry.local/{image}"),
        name: image.into(),
    };
    bed.ask(&publish("engine:1"))?;
    let template = Template::engine("model", 0, 0).seeded().prefers("node-a").edit(|spec| {
        let image = format!("{S3}:{REGISTRY_PORT}/engine:1");
        for containers in ["containers", "initContainers"] {
            for container in spec[containers].as_array_mut().into_iter().flatten() {
                container["image"] = Value::from(image.as_str());
                container["imagePullPolicy"] = "IfNotPresent".into();
            }
        }
    });
    bed.apply(&[seed("model", 7, 8 * MIB), template.deployment(1)])?;
    let old = ready(&bed, "model", 1, Some("node-a")).await?.remove(0);
    forget_seed(&bed, "model")?;
    let digest = counters(&old).await?["digest"].clone();

    bed.ask(&Request::Uplink { host: "s3".into(), rate: Some(RATE) })?;
    let notice = Timestamp::now();
    bed.metadata("node-a")?.interrupt(Duration::from_secs(120)).await?;
    let new = replacement(&bed, "model", &old).await?;
    let serving = Timestamp::now();
    ensure!(node(&new) == "node-b" && uid(&new) != uid(&old), "it runs on {}", node(&new));
    let timings = Timings::of(&bed, "8 MiB, image pulled at 24 Mbit/s", "node-a", notice)?;
    let committed = timings.commit.unwrap_or(f64::MAX);
    let took = serving.duration_since(notice).as_secs_f64();
    ensure!(
        took > committed + 3.0,
        "committed after {committed} s and serving after {took} s: nothing was pulled slowly"
    );
    let holds = counters(&new).await?["digest"].clone();
    ensure!(holds == digest, "it holds {holds}, not {digest}");
    timings.serving_at(notice, serving).write()
}
