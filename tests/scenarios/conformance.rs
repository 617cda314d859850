//! `lifeboat conformance` against our own sidecar, as the author of another would run it.

use anyhow::Result;
use fakes::sidecar::{Sidecar, SidecarOptions, StateSeed};
use lifeboat_tests::lifeboat;
use std::path::Path;
use std::process::{Output, Stdio};

async fn conformance(url: &str, state_dir: &Path, more: &[&str]) -> Result<Output> {
    let mut command = tokio::process::Command::new(lifeboat()?);
    command.args(["conformance", url, "--state-dir"]).arg(state_dir).args(more).stdin(Stdio::null());
    Ok(command.kill_on_drop(true).output().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_author_of_a_sidecar_is_told_which_sentences_it_keeps() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n")?;
    let state = folder.path().join("state");
    std::fs::create_dir(&state)?;
    let facts = [("engine", "ours"), ("weights", "blake3:1")].map(|(key, value)| (key.into(), value.into()));
    let sidecar = Sidecar::start(SidecarOptions {
        listen: "127.0.0.1:0".parse()?,
        state_dir: state.clone(),
        state: Some(StateSeed { seed: 1, bytes: 300_000, files: 4 }),
        token: Some("secret".into()),
        facts: facts.into(),
        bytes_per_second: None,
    })
    .await?;
    let url = format!("http://{}", sidecar.addr());

    let kept = conformance(&url, &state, &["--token-file", &token.to_string_lossy()]).await?;
    let said = String::from_utf8(kept.stdout)?;
    assert_eq!(kept.status.code(), Some(0), "{said}");
    assert!(said.contains("kept        a flush discards nothing") && !said.contains("broken"), "{said}");

    // Without its token nothing but the first question can be asked, and that is answered with a refusal.
    let broken = conformance(&url, &state, &[]).await?;
    let said = String::from_utf8(broken.stdout)?;
    assert_eq!(broken.status.code(), Some(1), "{said}");
    assert!(said.contains("broken      GET info answers 200"), "{said}");

    let nothing = conformance("127.0.0.1:1", &state, &[]).await?;
    let said = String::from_utf8(nothing.stderr)?;
    assert_eq!(nothing.status.code(), Some(2), "{said}");
    assert!(said.contains("http://IP:PORT"), "{said}");

    let absent = conformance(&url, &state, &["--token-file", "/nowhere"]).await?;
    let said = String::from_utf8(absent.stderr)?;
    assert_eq!(absent.status.code(), Some(64), "{said}");
    assert!(said.contains("--token-file /nowhere"), "{said}");
    sidecar.stop().await;
    Ok(())
}
