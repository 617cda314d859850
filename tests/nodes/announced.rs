//! A checkpoint is announced and never comes: the node dies between the intent and the commit.
//!
//! The intent says until when it is waited for; then a replacement has what was committed before it, or nothing, and
//! its gate opens and says so. What [`crate::hold`] has beside it: a source whose agent dies and whose node lives.

use crate::cast::{
    Template, claimants, counters, describe, forget_seed, gate, generations, node, ready, replacement_within,
    seed, tell, text, uid,
};
use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use testbed::Testbed;
use testbed::request::Request;

const MIB: u64 = 1 << 20;
/// From the notice to the end that it names.
const AHEAD: Duration = Duration::from_secs(45);

#[tokio::test]
#[ignore = "a minute and a half: LIFEBOAT_LONG=1 tests/run nodes"]
async fn when_the_node_dies_after_the_intent_its_pods_get_what_was_committed_before_it_or_start() -> Result<()>
{
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    let template = |app: &str| Template::engine(app, 0, 0).seeded().prefers("node-a");
    // Copied ahead once, when it begins.
    let earlier = template("earlier").annotated("lifeboat.dev/interval", "1h");
    bed.apply(&[seed("earlier", 7, 16 * MIB), seed("none", 8, 48 * MIB)])?;
    bed.apply(&[earlier.deployment(1), template("none").deployment(1)])?;
    let earlier = ready(&bed, "earlier", 1, Some("node-a")).await?.remove(0);
    let none = ready(&bed, "none", 1, Some("node-a")).await?.remove(0);
    for app in ["earlier", "none"] {
        forget_seed(&bed, app)?;
    }
    bed.until("the copy", Duration::from_secs(60), async |bed| {
        Ok((!generations(bed, uid(&earlier))?.is_empty()).then_some(()))
    })
    .await?;
    let copied = counters(&earlier).await?["digest"].clone();
    tell(&earlier, "touch/1.0").await?;
    // 1 MB/s: nothing is whole for a while.
    bed.ask(&Request::Uplink { host: "node-a".into(), rate: Some(8_000_000) })?;

    let end = bed.metadata("node-a")?.interrupt(AHEAD).await?;
    bed.until("both to be claimed", Duration::from_secs(30), async |bed| {
        Ok((claimants(bed)?.len() == 2).then_some(()))
    })
    .await?;
    bed.ask(&Request::KillNode { node: "node-a".into() })?;
    ensure!(
        generations(&bed, uid(&earlier))?.len() == 1 && generations(&bed, uid(&none))?.is_empty(),
        "the save was over before the node died"
    );

    for (app, old, reason) in [("earlier", &earlier, "Restored"), ("none", &none, "NothingToRestore")] {
        let new = replacement_within(&bed, app, old, AHEAD + Duration::from_secs(20)).await?;
        let why = gate(&new)?;
        ensure!(why["reason"] == reason && node(&new) == "node-b", "{why}: {}", describe(&new));
        let opened: Timestamp = text(why, "/lastTransitionTime").parse()?;
        ensure!(
            opened <= end + SignedDuration::from_secs(5),
            "{app}: opened {opened}, the node was to end {end}"
        );
        let holds = counters(&new).await?;
        match app {
            "earlier" => ensure!(holds["digest"] == copied, "it holds {holds}, not {copied}"),
            _ => {
                ensure!(holds["bytes"] == 0 && text(why, "/message").contains("abandoned"), "{why}: {holds}")
            }
        }
    }
    Ok(())
}
