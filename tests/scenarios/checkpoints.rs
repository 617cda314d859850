//! `lifeboat checkpoints` over the store that a drill left: what agents really wrote, looked at by the binary itself.

use anyhow::{Context, Result, ensure};
use lifeboat_tests::lifeboat;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

/// A store with the checkpoints of one drill.
struct Kept {
    folder: tempfile::TempDir,
    /// A drill gives its cluster a name of its own.
    cluster: String,
}

impl Kept {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("store"))?;
        let mut kept = Self { folder, cluster: String::new() };
        let mut command = tokio::process::Command::new(lifeboat()?);
        command.args(["drill", "--window", "15s", "--state-size", "2MiB", "--store", &kept.url()]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ended =
            tokio::time::timeout(Duration::from_secs(120), command.output()).await.context("120 s")??;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
        let clusters = std::fs::read_dir(kept.folder.path().join("store/objects/v1"))?;
        kept.cluster = clusters.last().context("the drill wrote nothing")??.file_name().display().to_string();
        Ok(kept)
    }

    fn url(&self) -> String {
        format!("dir:{}", self.folder.path().join("store").display())
    }

    /// Runs `lifeboat checkpoints` with the store in the environment, as the agent's pod has it.
    async fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = tokio::process::Command::new(lifeboat()?);
        command.arg("checkpoints").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.env("LIFEBOAT_STORE", self.url()).env("LIFEBOAT_CLUSTER_NAME", &self.cluster);
        tokio::time::timeout(Duration::from_secs(60), command.output())
            .await
            .context("60 s")?
            .context("no answer")
    }

    /// The same, for the exit code and the JSON document.
    async fn json(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        let ended = self.ask(&[arguments, &["--output", "json"]].concat()).await?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        Ok((ended.status.code().context("killed")?, serde_json::from_slice(&ended.stdout).context(said)?))
    }

    /// The name of a committed generation, as the command line takes it.
    async fn committed(&self) -> Result<String> {
        let (_, listing) = self.json(&["list"]).await?;
        let lines = listing["lineages"].as_array().context("lineages")?.clone();
        let line =
            lines.iter().find(|line| line["generation"].is_string()).context("nothing was committed")?;
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        Ok(["namespace", "workload", "lineage", "generation"].map(text).join("/"))
    }

    fn object(&self, part: &str) -> Result<PathBuf> {
        let mut folders = vec![self.folder.path().join("store/objects")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.to_string_lossy().contains(part) => return Ok(path),
                    false => {}
                }
            }
        }
        anyhow::bail!("no object {part}")
    }
}

fn said(ended: &Output) -> String {
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drill_saved_is_listed_shown_verified_compared_and_fetched() -> Result<()> {
    let kept = Kept::new().await?;
    let generation = kept.committed().await?;
    let (code, shown) = kept.json(&["show", &generation]).await?;
    assert_eq!(code, 0, "{shown:#}");
    assert!(shown["files"].as_array().is_some_and(|files| !files.is_empty()), "{shown:#}");
    assert!(shown["packs"].as_array().is_some_and(|packs| packs.iter().all(|pack| pack["missing"] == false)));
    let (code, verified) = kept.json(&["verify", &generation]).await?;
    assert_eq!((code, &verified["whole"]), (0, &true.into()), "{verified:#}");
    let (_, difference) = kept.json(&["diff", &generation, &generation]).await?;
    assert_eq!(
        (&difference["bytes_new"], difference["files"].as_array().map(Vec::len)),
        (&0.into(), Some(0))
    );
    let out = kept.folder.path().join("out").display().to_string();
    let (code, fetched) = kept.json(&["fetch", &generation, &out]).await?;
    assert_eq!((code, &fetched["bytes"]), (0, &shown["bytes"]));
    let again = kept.ask(&["fetch", &generation, &out]).await?;
    assert!(again.status.code() == Some(2) && said(&again).contains("not empty"), "{}", said(&again));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_store_is_exit_code_1_and_named() -> Result<()> {
    let kept = Kept::new().await?;
    let pack = kept.object("/pack/")?;
    let mut bytes = std::fs::read(&pack)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes)?;
    let mut found = 0;
    let (_, listing) = kept.json(&["list"]).await?;
    for line in listing["lineages"].as_array().context("lineages")? {
        let workload =
            [&line["namespace"], &line["workload"]].map(|part| part.as_str().unwrap_or_default()).join("/");
        let (code, verified) = kept.json(&["verify", &workload]).await?;
        if code == 1 {
            assert!(verified.to_string().contains(&name(&pack)), "{verified:#}");
            found += 1;
        }
    }
    assert!(found > 0, "nobody found it: {listing:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_is_one_line_that_names_what_to_correct() -> Result<()> {
    let kept = Kept { folder: tempfile::tempdir()?, cluster: "any".into() };
    for (arguments, code, word) in [
        (&["list", "--store", "ftp://x"][..], 2, "--store"),
        (&["list", "--store", "dir:/nowhere"], 2, "/nowhere"),
        (&["list", "--store", ""], 64, "--store is missing"),
        (&["list", "--cluster-name", "a/b"], 64, "--cluster-name"),
    ] {
        let ended = kept.ask(arguments).await?;
        let told = said(&ended);
        assert_eq!((ended.status.code(), told.lines().count()), (Some(code), 1), "{told}");
        assert!(told.contains(word), "{told}");
    }
    let ended = kept.ask(&["show", "llama"]).await?;
    assert!(
        ended.status.code() == Some(64) && said(&ended).contains("NAMESPACE/WORKLOAD"),
        "{}",
        said(&ended)
    );
    Ok(())
}
