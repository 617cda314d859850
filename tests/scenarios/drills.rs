//! The drill's verdict can fail: what is done wrong on purpose, from outside the agent, is found and named.
//! (That each fault leaves every guarantee standing is drilled one by one by `tests/run drill`.)

use anyhow::{Context, Result};
use lifeboat_tests::lifeboat;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// Holds a drill and returns its exit code and its document.
async fn drill(arguments: &[&str]) -> Result<(i32, Value)> {
    let mut command = tokio::process::Command::new(lifeboat()?);
    command.arg("drill").args(arguments).args(["--output", "json"]).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(120), command.output())
        .await
        .context("no verdict in 120 s")??;
    let document = serde_json::from_slice(&ended.stdout)
        .with_context(|| String::from_utf8_lossy(&ended.stderr).into_owned())?;
    Ok((ended.status.code().context("it was killed")?, document))
}

/// The names of the checks that came out as `finding`.
fn checks(document: &Value, finding: &str) -> Vec<String> {
    let all = document["checks"].as_array().cloned().unwrap_or_default();
    let found = all.iter().filter(|check| check["finding"] == finding || check["result"] == finding);
    found.map(|check| check.to_string()).collect()
}

async fn finds(sabotage: &str, check: &str) -> Result<()> {
    let (code, document) = drill(&["--sabotage", sabotage]).await?;
    let broken = checks(&document, "broken");
    assert_eq!(code, 1, "{document:#}");
    assert!(broken.iter().any(|name| name.contains(check)), "{check:?} is not among {broken:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_broken_where_nothing_is_done_wrong() -> Result<()> {
    let (code, document) = drill(&[]).await?;
    assert_eq!((code, checks(&document, "broken")), (0, Vec::new()));
    assert!(checks(&document, "held").len() >= 15, "{document:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_save_is_found() -> Result<()> {
    finds("skip-save", "byte for byte").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found() -> Result<()> {
    finds("flip-byte", "byte for byte").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_order_is_found() -> Result<()> {
    finds("wrong-order", "order of priority").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_that_comes_too_early_is_found() -> Result<()> {
    finds("early-eviction", "before its state was committed").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_is_not_known_is_one_error_and_nothing_is_started() -> Result<()> {
    let mut command = tokio::process::Command::new(lifeboat()?);
    let ended = command.args(["drill", "--fault", "pbd=stuck"]).stdin(Stdio::null()).output().await?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(64), "{said}");
    assert!(said.contains("pbd") && said.contains("pdb"), "the near one is offered: {said}");
    Ok(())
}
