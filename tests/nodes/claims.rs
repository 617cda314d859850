//! Claims as Leases at the real API server: as on a cluster whose store ignores conditional writes. (The S3 server here
//! decides them; the agents are told to use Leases all the same.)

use crate::cast::{Template, claimants, counters, describe, gone, node, ready, replacement, text, uid};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn where_claims_are_leases_a_state_moves_under_one_lease_of_the_agents_namespace() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent_with(json!({"LIFEBOAT_CLAIMS": "lease"})).await?;
    let model = Template::engine("model", 7, 16 * MIB).born_on("node-a").prefers("node-a");
    bed.apply(&[model.deployment(1)])?;
    let old = ready(&bed, "model", 1, Some("node-a")).await?.remove(0);
    let digest = counters(&old).await?["digest"].clone();

    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let new = replacement(&bed, "model", &old).await?;
    let restored = counters(&new).await?["digest"].clone();
    ensure!(node(&new) == "node-b" && restored == digest, "{restored} on {}: {}", node(&new), describe(&new));
    gone(&bed, &old, Duration::from_secs(70)).await?;

    let leases = bed.list("/apis/coordination.k8s.io/v1/namespaces/lifeboat-system/leases").await?;
    let [lease] = leases.as_slice() else {
        anyhow::bail!("{} Leases for one restore: {leases:?}", leases.len());
    };
    let claim: Value = serde_json::from_str(text(lease, "/metadata/annotations/lifeboat.dev~1claim"))?;
    ensure!(claim["state"] == "done" && claim["holder"]["pod_uid"] == uid(&new), "it says {claim}");
    ensure!(claim["lineage"] == uid(&old), "of another lineage: {claim}");
    let holder = text(lease, "/spec/holderIdentity");
    ensure!(holder.contains(uid(&new)) && holder.contains("node-b"), "people read {holder:?}");
    let in_store = claimants(&bed)?;
    ensure!(in_store.is_empty(), "and in the store: {in_store:?}");
    Ok(())
}
