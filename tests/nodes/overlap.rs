//! The fetch of what was pre-copied overlaps with the save of the rest.

use crate::cast::{Template, counters, generations, node, ready, replacement, tell, uid};
use crate::marks::stored;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;
use testbed::timings::Timings;

const STATE: u64 = 48 << 20;
/// What the old node may send once it was interrupted, bits per second: its difference takes some ten seconds.
const RATE: u64 = 16_000_000;

#[tokio::test]
async fn what_was_pre_copied_is_on_the_new_node_before_the_rest_is_committed() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let template = Template::engine("model", 7, STATE).annotated("lifeboat.dev/interval", "10m");
    bed.apply(&[template.born_on("node-a").prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "model", 1, Some("node-a")).await?.remove(0);
    bed.until("the pre-copy", Duration::from_secs(60), async |bed| {
        Ok(generations(bed, uid(&old))?.first().map(|_| ()))
    })
    .await?;
    let copied: BTreeSet<String> =
        stored(&bed, "model", "/pack/")?.into_iter().map(|pack| pack.key).collect();

    tell(&old, "touch/0.002").await?;
    let digest = counters(&old).await?["digest"].clone();
    bed.ask(&Request::Uplink { host: "node-a".into(), rate: Some(RATE) })?;
    let notice = Timestamp::now();
    bed.metadata("node-a")?.interrupt(Duration::from_secs(120)).await?;
    let new = replacement(&bed, "model", &old).await?;
    let serving = Timestamp::now();
    ensure!(node(&new) == "node-b", "it runs on {}", node(&new));
    ensure!(counters(&new).await?["digest"] == digest, "the replacement has another state");

    // By the S3 server's own log, whose times are whole seconds.
    let committed = generations(&bed, uid(&old))?.last().context("nothing was committed")?.at;
    let got: Vec<_> =
        bed.s3_requests()?.into_iter().filter(|request| request.operation.ends_with("GetObject")).collect();
    let of = |early: bool| -> BTreeSet<String> {
        let mine = got.iter().filter(|request| request.at >= notice - Duration::from_secs(1));
        mine.filter(|request| (request.at.as_second() < committed.as_second()) == early)
            .filter_map(|request| {
                copied.iter().find(|key| key.ends_with(request.key.trim_start_matches('/')))
            })
            .cloned()
            .collect()
    };
    let (before, after) = (of(true), of(false));
    ensure!(
        before.len() == copied.len(),
        "{} of {} packs of the pre-copy were fetched before the commit at {committed}: {got:#?}",
        before.len(),
        copied.len()
    );
    ensure!(after.is_empty(), "{after:?} were fetched once more after the commit");
    Timings::of(&bed, "48 MiB pre-copied, 16 Mbit/s for the rest", "node-a", notice)?
        .serving_at(notice, serving)
        .write()
}
