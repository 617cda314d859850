//! One pod on one node that is interrupted, the agent that is killed meanwhile, and what must be so afterwards.

use super::{SHELTER, SOON, STATE};
use crate::cast::{counters, describe, gate, gone, leaves, name, node, ready, replacement, text, uid};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use testbed::Testbed;
use testbed::audit::Entry;
use testbed::metadata::Say;
use testbed::request::Request;

/// Bytes of a pack: the testbed's setting.
const PACK: u64 = 4 << 20;

/// One pod on one node that is interrupted, and the agent that is killed meanwhile.
pub struct Scene<'a> {
    pub bed: &'a Testbed,
    pub node: &'static str,
    pub app: &'static str,
    pub pod: Value,
    digest: Value,
    agent: Value,
}

/// What was so when the agent was killed.
pub struct Killed {
    pub standing: Value,
    pub packs: Vec<String>,
}

async fn agent(bed: &Testbed, node: &str) -> Result<Value> {
    let agents = bed.agents().await?;
    let found = agents.into_iter().find(|pod| pod["spec"]["nodeName"] == node && !leaves(pod));
    found.with_context(|| format!("no agent on {node}"))
}

impl<'a> Scene<'a> {
    pub async fn begin(bed: &'a Testbed, node: &'static str, app: &'static str) -> Result<Self> {
        eprintln!("{node}: {app}");
        let pod = ready(bed, app, 1, Some(node)).await?.remove(0);
        let digest = counters(&pod).await?["digest"].clone();
        Ok(Self { bed, node, app, pod, digest, agent: agent(bed, node).await? })
    }

    pub async fn interrupt(&self, ahead: u64) -> Result<()> {
        self.bed.metadata(self.node)?.interrupt(Duration::from_secs(ahead)).await.map(drop)
    }

    pub async fn silence_metadata(&self) -> Result<()> {
        self.bed.metadata(self.node)?.say(&Say::Fail { plan: "imds=down@0s+600s".into() }).await
    }

    pub fn pause_s3(&self) -> Result<()> {
        self.bed.ask(&Request::Pause { process: "versitygw".into() }).map(drop)
    }

    pub fn resume_s3(&self) -> Result<()> {
        self.bed.ask(&Request::Resume { process: "versitygw".into() }).map(drop)
    }

    /// What of this pod's workload is in the store, by the end of the keys: `/intent`, `/gen/`, `/pack/`.
    pub fn stored(&self, part: &str) -> Result<Vec<String>> {
        let workload = format!("/default/{}/", self.app);
        let keys = self.bed.objects()?.into_iter().map(|object| object.key);
        Ok(keys.filter(|key| key.contains(&workload) && key.contains(part)).collect())
    }

    pub async fn until(&self, what: &str, check: impl Fn() -> Result<bool>) -> Result<()> {
        let check = async |_: &Testbed| Ok(check()?.then_some(()));
        self.bed.until(&format!("{}: {what}", self.app), SOON, check).await
    }

    /// Requests of this node's agent that fit.
    pub fn asked(&self, fits: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>> {
        let audit = self.bed.audit()?;
        Ok(audit.into_iter().filter(|entry| entry.by_agent_of(self.node) && fits(entry)).collect())
    }

    pub fn evictions(&self, code: u64) -> Result<usize> {
        let ours = |entry: &Entry| entry.is_eviction() && entry.code == code && entry.name == name(&self.pod);
        Ok(self.asked(ours)?.len())
    }

    /// What stands on the node: the notice and its deadline.
    pub async fn standing(&self) -> Result<Value> {
        let node = self.bed.get(&format!("/api/v1/nodes/{}", self.node)).await?.unwrap_or_default();
        let text = text(&node, "/metadata/annotations/lifeboat.dev~1evacuation");
        serde_json::from_str(text).with_context(|| format!("{} carries no evacuation: {text:?}", self.node))
    }

    pub async fn marked(&self) -> Result<Value> {
        let what = format!("{} to be marked", self.node);
        self.bed.until(&what, SOON, async |_| Ok(Some(self.standing().await?))).await
    }

    pub async fn flushes(&self) -> Result<usize> {
        let counters = counters(&self.pod).await?;
        let calls = counters["calls"].as_array().cloned().unwrap_or_default();
        Ok(calls.iter().filter(|call| call["path"] == "/lifeboat/v1/flush").count())
    }

    pub fn kill(&self) -> Result<()> {
        let id = text(&self.agent, "/status/containerStatuses/0/containerID");
        let id = id.trim_start_matches("containerd://").to_owned();
        self.bed.ask(&Request::KillContainer { node: self.node.into(), id, signal: 9 })?;
        eprintln!("{}: killed", self.app);
        Ok(())
    }

    /// Kills the agent, and looks around.
    pub async fn strike(&self) -> Result<Killed> {
        self.kill()?;
        let packs = self.stored("/pack/")?;
        Ok(Killed { standing: self.standing().await?, packs })
    }

    pub async fn restarted(&self) -> Result<()> {
        let what = format!("the agent of {} to be restarted", self.node);
        self.bed
            .until(&what, SOON, async |bed| {
                let agent = agent(bed, self.node).await?;
                ensure!(uid(&agent) == uid(&self.agent), "it is another pod");
                let state = agent.pointer("/status/containerStatuses/0").cloned().unwrap_or_default();
                Ok((state["restartCount"] == 1 && state["state"]["running"].is_object()).then_some(()))
            })
            .await
    }

    /// Whatever was killed: the state arrives, by the original deadline, and nothing was sent twice.
    pub async fn arrives(&self, killed: &Killed) -> Result<()> {
        self.restarted().await?;
        let new = replacement(self.bed, self.app, &self.pod).await?;
        let digest = &counters(&new).await?["digest"];
        let gate = gate(&new)?;
        ensure!(gate["reason"] == "Restored" && *digest == self.digest, "{gate}: {}", describe(&new));
        ensure!(node(&new) == SHELTER, "{}", describe(&new));
        gone(self.bed, &self.pod, SOON).await?;

        ensure!(
            self.standing().await? == killed.standing,
            "{} was {}",
            self.standing().await?,
            killed.standing
        );
        for entry in self.asked(|entry| entry.writes_node(self.node) && entry.succeeded())? {
            let written = text(&entry.body, "/metadata/annotations/lifeboat.dev~1evacuation");
            let written: Value = serde_json::from_str(written)?;
            ensure!(written["deadline"] == killed.standing["deadline"], "another deadline: {written}");
        }
        let report = self.report(&killed.standing).await?;
        ensure!(report["noticed"] == killed.standing["began"], "the report begins at {}", report["noticed"]);

        let puts = self.bed.s3_requests()?.into_iter().filter(|request| request.is_put());
        let puts: Vec<String> = puts.map(|request| request.key).collect();
        let packs = self.stored("/pack/")?;
        ensure!(packs.len() as u64 * PACK >= STATE, "only {} packs", packs.len());
        for pack in &packs {
            let times = puts.iter().filter(|key| key.ends_with(pack.as_str())).count();
            let there = killed.packs.contains(pack);
            // One that was on its way when the agent died may have arrived without its knowing.
            ensure!(
                times == 1 || (!there && times == 2),
                "{pack} was put {times} times; there before: {there}"
            );
        }
        Ok(())
    }

    /// The complete report of this notice.
    pub async fn report(&self, standing: &Value) -> Result<Value> {
        self.bed
            .until(&format!("the report of {}", self.node), SOON, async |bed| {
                let mut objects = bed.objects()?;
                objects.retain(|object| object.key.contains(&format!("testbed/report/{}/", self.node)));
                ensure!(objects.len() == 1, "{} reports of one evacuation", objects.len());
                let report: Value = serde_json::from_slice(&std::fs::read(&objects[0].path)?)?;
                let fits =
                    report["notice"] == standing["notice"] && report["deadline"] == standing["deadline"];
                ensure!(fits && report["complete"] == true, "{report}");
                Ok(Some(report))
            })
            .await
    }
}
