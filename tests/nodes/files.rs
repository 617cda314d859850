//! A directory of content-addressed files, as vLLM's and LMCache's file tiers keep it: it is in the new pod's volume before
//! its engine starts.
//!
//! The engine is a shell script: what it proves is the order (its first act is to list what it finds) and the bytes. That a
//! real one uses what it finds is not proven here: vLLM 0.33 copies its cache to memory with CUDA, ROCm or XPU only.

use crate::cast::{STATE, Template, describe, gate, name, node, ready, replacement, text};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

/// What it finds at its start goes to its log; it writes blocks only where it finds none.
const ENGINE: &str = r#"cd /state
echo "found: $(cat kv/*/*.bin 2>/dev/null | sha256sum | cut -c1-64) $(ls kv/*/*.bin 2>/dev/null | wc -l)"
if [ ! -d kv ]; then
  mkdir -p kv/000 kv/001
  for n in 1 2 3 4 5 6 7 8; do
    dd if=/dev/urandom of=kv/00$((n % 2))/b$n.tmp bs=65536 count=8 2>/dev/null && mv kv/00$((n % 2))/b$n.tmp kv/00$((n % 2))/b$n.bin
  done
  echo "wrote: $(cat kv/*/*.bin | sha256sum | cut -c1-64) $(ls kv/*/*.bin | wc -l)"
fi
trap 'exit 0' TERM
while :; do sleep 0.1; done"#;

fn template() -> Template {
    Template::plain("kv")
        .annotated("lifeboat.dev/engine", "files")
        .annotated("lifeboat.dev/state-volume", "state")
        .annotated("lifeboat.dev/compat-key", "tiny-a@1")
        .held()
        .edit(|spec| {
            let mounts = json!([{"name": "state", "mountPath": STATE}]);
            spec["containers"][0]["command"] = json!(["/bin/sh", "-c", ENGINE]);
            spec["containers"][0]["volumeMounts"] = mounts.clone();
            spec["initContainers"] = json!([{"name": "lifeboat", "image": "registry.local/lifeboat:dev",
                "imagePullPolicy": "Never", "args": ["wait", "--patience", "20s"], "volumeMounts": mounts}]);
        })
}

/// The rest of the line of its log that begins so, once it is there: such a pod is ready as soon as its shell runs.
async fn said(bed: &Testbed, pod: &Value, what: &str) -> Result<String> {
    bed.until(&format!("{} to say {what:?}", name(pod)), Duration::from_secs(30), async |bed| {
        let log = bed.kubectl(&["logs", name(pod), "-c", "main"])?;
        Ok(log.lines().find_map(|line| Some(line.strip_prefix(what)?.trim().to_owned())))
    })
    .await
}

#[tokio::test]
async fn a_directory_of_blocks_is_back_before_its_engine_starts() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    bed.install_agent().await?;
    bed.apply(&[template().prefers("node-a").deployment(1)])?;
    let old = ready(&bed, "kv", 1, Some("node-a")).await?.remove(0);
    ensure!(text(gate(&old)?, "/reason") == "NothingToRestore", "{}", gate(&old)?);
    let wrote = said(&bed, &old, "wrote:").await?;
    ensure!(wrote.ends_with(" 8"), "{wrote}");

    bed.metadata("node-a")?.interrupt(Duration::from_secs(60)).await?;
    let new = replacement(&bed, "kv", &old).await?;
    ensure!(node(&new) == "node-b", "{}", describe(&new));
    let found = said(&bed, &new, "found:").await?;
    ensure!(
        found == wrote,
        "its engine found {found:?} at its start, {wrote:?} was written; {}",
        gate(&new)?
    );
    // Nothing of these engines shows that they use it.
    ensure!(text(gate(&new)?, "/reason") == "RestoredUnverified", "{}", gate(&new)?);
    Ok(())
}

#[tokio::test]
async fn without_an_agent_the_init_container_gives_up_and_the_engine_starts() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    let alone = template().edit(|spec| {
        spec["initContainers"][0]["args"] = json!(["wait", "--patience", "3s"]);
        spec["readinessGates"] = json!([]);
    });
    bed.apply(&[alone.deployment(1)])?;
    let pod = ready(&bed, "kv", 1, None).await?.remove(0);
    ensure!(said(&bed, &pod, "wrote:").await?.ends_with(" 8"), "its engine has not started");
    let why = bed.kubectl(&["logs", name(&pod), "-c", "lifeboat"])?;
    ensure!(why.contains("no agent of lifeboat"), "{why}");
    Ok(())
}
