//! `lifeboat wait`: an init container that ends when this pod's state is back, for engines that must find it at their start
//! (`lifeboat.dev/engine: files`).
//!
//! ```text
//!   agent of the node: looks for a checkpoint ─► .lifeboat/restoring      decided ─► .lifeboat/restored
//!   init container:    nothing of it after --patience: no agent here ─► starts cold;   until then it waits
//! ```
//!
//! It always ends, and always well: a pod that starts cold serves, one that does not start serves nobody. It asks nobody but
//! the volume, so it needs no right and no network.

use crate::volume::restored::{RESTORED, RESTORING, RestoreDecision};
use clap::Args;
use evacuation::moment::Span;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Arguments of `lifeboat wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// Where this container sees the pod's state volume
    #[arg(long, env = "LIFEBOAT_STATE", default_value = "/state", value_name = "PATH")]
    volume: PathBuf,
    /// How long an agent may take to begin; then there is none on this node, and the engine starts cold
    #[arg(long, default_value = "60s", value_parser = crate::runtime::values::span, value_name = "TIME")]
    patience: Span,
    /// How long the state may take; the agent's own limit (`--restore-timeout`) usually comes first
    #[arg(long, default_value = "16m", value_parser = crate::runtime::values::span, value_name = "TIME")]
    timeout: Span,
}

/// Waits, and says what for on standard error. The exit code is 0 whatever happened, but for a volume that is not there:
/// 64, as the pod is written wrongly. One that only cannot be looked at (a user without the right to) is waited for as long
/// as an agent may take to begin: the pod starts cold.
pub fn run(args: &WaitArgs) -> u8 {
    if is_no_folder(&args.volume) {
        eprintln!(
            "lifeboat wait: {} is no directory: mount the pod's state volume there, or name its place with --volume",
            args.volume.display()
        );
        return host::exit::USAGE;
    }
    eprintln!("lifeboat wait: {}", until_decided(args));
    0
}

/// What is there is something else than a folder, or nothing.
fn is_no_folder(volume: &Path) -> bool {
    match std::fs::metadata(volume) {
        Ok(found) => !found.is_dir(),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

fn until_decided(args: &WaitArgs) -> String {
    let began = Instant::now();
    loop {
        if let Some(decision) = decided(&args.volume) {
            return format!("{}: {}", decision.outcome, decision.message);
        }
        let waited = Span::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        if waited >= args.timeout {
            return format!(
                "nothing was decided within {} s: starting without state",
                args.timeout.as_secs()
            );
        }
        if waited >= args.patience && !args.volume.join(RESTORING).exists() {
            return format!(
                "no agent of lifeboat began to look for this pod's state within {}: starting without it",
                args.patience
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// It is written in one step: what is there is whole.
fn decided(volume: &Path) -> Option<RestoreDecision> {
    serde_json::from_slice(&std::fs::read(volume.join(RESTORED)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(place: &Path, patience_ms: u64, timeout_ms: u64) -> WaitArgs {
        WaitArgs {
            volume: place.to_owned(),
            patience: Span::from_millis(patience_ms),
            timeout: Span::from_millis(timeout_ms),
        }
    }

    #[test]
    fn it_ends_when_the_restore_is_decided_and_says_how() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join(".lifeboat")).unwrap();
        std::fs::write(place.path().join(RESTORING), "").unwrap();
        let volume = place.path().to_owned();
        let agent = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            let decision = RestoreDecision { outcome: "Restored".into(), message: "1-2".into() };
            std::fs::write(volume.join(RESTORED), serde_json::to_vec(&decision).unwrap()).unwrap();
        });
        let began = Instant::now();
        // The patience is for the agent's beginning only.
        assert_eq!(until_decided(&args(place.path(), 50, 20_000)), "Restored: 1-2");
        assert!(began.elapsed() >= Duration::from_millis(300));
        agent.join().unwrap();
    }

    #[test]
    fn without_an_agent_or_an_end_it_starts_cold_in_its_time() {
        let place = tempfile::tempdir().unwrap();
        assert!(until_decided(&args(place.path(), 200, 20_000)).contains("no agent"));
        std::fs::create_dir(place.path().join(".lifeboat")).unwrap();
        std::fs::write(place.path().join(RESTORING), "").unwrap();
        assert!(until_decided(&args(place.path(), 100, 400)).contains("nothing was decided"));
    }

    #[test]
    fn a_volume_that_is_not_mounted_is_named() {
        assert_eq!(run(&args(Path::new("/nowhere/at/all"), 1, 1)), 64);
        assert_eq!(run(&args(Path::new("/dev/null"), 1, 1)), 64);
    }

    #[test]
    fn a_volume_that_cannot_be_looked_at_keeps_no_pod_from_starting() {
        let place = tempfile::tempdir().unwrap();
        // Whoever runs the tests may look into every folder, but nobody through a link to itself.
        let volume = place.path().join("state");
        std::os::unix::fs::symlink(&volume, &volume).unwrap();
        assert_eq!(run(&args(&volume, 100, 20_000)), 0);
    }
}
