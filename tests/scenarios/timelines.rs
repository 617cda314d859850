//! A drill's files, read again: from its journal and from its report to a page that one can open.

use anyhow::{Context, Result, ensure};
use lifeboat_tests::lifeboat;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// What `lifeboat timeline FILE --output …` prints.
async fn timeline(file: &Path, output: &str) -> Result<String> {
    let mut command = tokio::process::Command::new(lifeboat()?);
    let ended =
        command.arg("timeline").arg(file).args(["--output", output]).stdin(Stdio::null()).output().await?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(String::from_utf8(ended.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journals_and_the_report_of_a_drill_become_drawings_and_pages() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = tokio::process::Command::new(lifeboat()?);
    command.args(["drill", "--keep", "--output", "json"]).env("TMPDIR", folder.path()).stdin(Stdio::null());
    let held = tokio::time::timeout(Duration::from_secs(120), command.kill_on_drop(true).output());
    let held = held.await.context("no verdict in 120 s")??;
    let said = String::from_utf8_lossy(&held.stderr).into_owned();
    let kept = said.lines().find_map(|line| line.strip_prefix("kept: ")).context(said.clone())?;
    let document: Value = serde_json::from_slice(&held.stdout)?;
    let pods = document["report"]["pods"].as_array().context("a report")?;
    let named = |pod: &Value| pod["name"].as_str().unwrap_or_default().to_owned();
    let leaving: Vec<String> = pods.iter().filter(|pod| pod["departure"] != "stays").map(named).collect();
    ensure!(leaving.len() >= 3, "{document:#}");

    // The node that was interrupted: a row for each pod that left, with its flush, its save and its commit.
    let journal = Path::new(kept).join("node-a/state");
    let page = timeline(&journal, "html").await?;
    ensure!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"), "{page}");
    for word in leaving.iter().map(String::as_str).chain(["flush, T+", "save, T+", "commit, T+", "deadline"])
    {
        ensure!(page.contains(word), "{word} is not on the page:\n{page}");
    }
    ensure!(page.contains("mark: cordon, taint, annotation"), "the text is on it, too:\n{page}");
    let drawing = timeline(&journal, "svg").await?;
    ensure!(
        drawing.starts_with("<svg ") && page.contains(&drawing),
        "the page has the drawing in it:\n{drawing}"
    );

    // The replacement's node has no evacuation: what it restored.
    let restored = timeline(&Path::new(kept).join("node-b/state"), "svg").await?;
    ensure!(restored.contains("restoring, T+") && restored.contains("Restored"), "{restored}");

    // The report alone, as it is in the store.
    let report = folder.path().join("report.json");
    std::fs::write(&report, document["report"].to_string())?;
    let page = timeline(&report, "html").await?;
    ensure!(page.contains("Drawn from a report") && page.contains("commit, at T+"), "{page}");
    ensure!(!page.contains("flush, T+"), "a report does not know that:\n{page}");
    ensure!(timeline(&report, "text").await?.contains("cordoned"));
    Ok(())
}
