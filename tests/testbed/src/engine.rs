//! An engine for pods of the testbed: [`fakes::sidecar::Sidecar`], which speaks contract v1 and keeps its state in
//! memory, in a process of its own with a port for whoever directs the scenario.
//!
//! What it proves: everything around an engine. The agent reaches it over a pod's network, its state is flushed into a
//! volume that a kubelet made, moves, and is compared byte for byte by its digest; it gets real signals, dies with
//! real exit codes, and misbehaves as told. What it does not prove: anything of inference. Its state is random bytes,
//! serving is [`Sidecar::touch`], and its speed is `RATE` and the disk's; llama-server's image is there for the rest.
//!
//! Its environment:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `LISTEN`, `CONTROL` | where contract v1 and the control port listen | `0.0.0.0:9100`, `0.0.0.0:9101` |
//! | `STATE_DIR` | the state volume | `/state` |
//! | `SEED`, `STATE_BYTES`, `STATE_FILES` | the state it begins with | empty without both of the first; 4 files |
//! | `RATE` | bytes per second of a flush and a restore | the disk's |
//! | `WEIGHTS` | the digest of its weights in `info` | none: no evidence |
//! | `TOKEN_FILE` | a file with the bearer token that it asks for | none is asked for |
//! | `NAMES` | it is another engine, that writes nothing and names these paths in every flush, one a word | |
//! | `IGNORE_SIGTERM` | `1`: only SIGKILL ends it | it goes at once |

mod control;
mod names;

use anyhow::{Context, Result};
use fakes::sidecar::{Sidecar, SidecarOptions, StateSeed};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// What the environment says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine itself.
    pub sidecar: SidecarOptions,
    /// Where the control port listens.
    pub control: SocketAddr,
    /// Only SIGKILL ends it.
    pub ignore_sigterm: bool,
    /// What it names instead of a state of its own.
    pub names: Vec<String>,
}

impl Options {
    /// From the variables that `get` knows.
    ///
    /// # Errors
    /// If one has a value that means nothing; the message names it.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let address = |name: &str, default: &str| {
            let given = get(name).unwrap_or_else(|| default.to_owned());
            given.parse().with_context(|| format!("{name}={given}: give IP:PORT"))
        };
        let state = match (number(&get, "SEED")?, number(&get, "STATE_BYTES")?) {
            (Some(seed), Some(bytes)) => {
                Some(StateSeed { seed, bytes, files: number(&get, "STATE_FILES")?.unwrap_or(4) })
            }
            (None, _) | (_, None) => None,
        };
        let token = match get("TOKEN_FILE") {
            Some(path) => {
                let token = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read TOKEN_FILE={path}"))?;
                Some(token.trim().to_owned())
            }
            None => None,
        };
        let facts = [("engine", "testbed-engine"), ("engine_version", env!("CARGO_PKG_VERSION"))];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter();
        Ok(Self {
            sidecar: SidecarOptions {
                listen: address("LISTEN", "0.0.0.0:9100")?,
                state_dir: get("STATE_DIR").unwrap_or_else(|| "/state".to_owned()).into(),
                state,
                token,
                facts: facts.chain(get("WEIGHTS").map(|digest| ("weights".to_owned(), digest))).collect(),
                bytes_per_second: number(&get, "RATE")?,
            },
            control: address("CONTROL", "0.0.0.0:9101")?,
            ignore_sigterm: get("IGNORE_SIGTERM").is_some_and(|value| value == "1"),
            names: get("NAMES")
                .iter()
                .flat_map(|names| names.split_whitespace())
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// The whole number in a variable.
fn number<T: FromStr>(get: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<T>> {
    let parse =
        |given: String| given.parse().ok().with_context(|| format!("{name}={given}: give a whole number"));
    get(name).map(parse).transpose()
}

/// Runs until a signal or the control port ends the process.
///
/// # Errors
/// If an address cannot be had or the state volume is not there.
pub async fn run(options: Options) -> Result<()> {
    // First of all: the first process of a container has no other way to hear of SIGTERM.
    obey_signals(options.ignore_sigterm)?;
    if !options.names.is_empty() {
        let listener = tokio::net::TcpListener::bind(options.sidecar.listen).await?;
        let weights = options.sidecar.facts.get("weights").cloned().unwrap_or_default();
        axum::serve(listener, names::router(options.sidecar.state_dir, options.names, weights)).await?;
        return Ok(());
    }
    let started = control::Started::now();
    let sidecar = Arc::new(Sidecar::start(options.sidecar).await?);
    let listener = tokio::net::TcpListener::bind(options.control)
        .await
        .with_context(|| format!("cannot listen on CONTROL={}", options.control))?;
    println!(
        "contract v1 on {}, control on {}, {} bytes of state",
        sidecar.addr(),
        listener.local_addr()?,
        sidecar.state_bytes()
    );
    axum::serve(listener, control::router(sidecar, started)).await?;
    Ok(())
}

/// Ends the process at SIGINT, and at SIGTERM unless that is to be ignored.
fn obey_signals(ignore_sigterm: bool) -> std::io::Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {
                    if !ignore_sigterm {
                        std::process::exit(0);
                    }
                    println!("SIGTERM, ignored");
                }
                _ = interrupt.recv() => std::process::exit(0),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, &str)]) -> Result<Options> {
        Options::read(|name| {
            given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_an_environment_it_is_a_fresh_replacement() {
        let options = options(&[]).unwrap();
        assert_eq!(options.sidecar.listen, "0.0.0.0:9100".parse().unwrap());
        assert_eq!(options.control, "0.0.0.0:9101".parse().unwrap());
        assert_eq!(options.sidecar.state_dir, std::path::Path::new("/state"));
        assert_eq!(options.sidecar.state, None);
        assert!(!options.ignore_sigterm && options.sidecar.token.is_none());
        assert!(!options.sidecar.facts.contains_key("weights"));
    }

    #[test]
    fn every_variable_is_heard() {
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "secret\n").unwrap();
        let options = options(&[
            ("SEED", "7"),
            ("STATE_BYTES", "1000"),
            ("STATE_FILES", "2"),
            ("RATE", "5"),
            ("WEIGHTS", "abc"),
            ("TOKEN_FILE", token.path().to_str().unwrap()),
            ("IGNORE_SIGTERM", "1"),
        ])
        .unwrap();
        assert_eq!(options.sidecar.state, Some(StateSeed { seed: 7, bytes: 1000, files: 2 }));
        assert_eq!(options.sidecar.bytes_per_second, Some(5));
        assert_eq!(options.sidecar.facts["weights"], "abc");
        assert_eq!(options.sidecar.token.as_deref(), Some("secret"));
        assert!(options.ignore_sigterm);
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (name, value) in [("LISTEN", "here"), ("RATE", "fast"), ("TOKEN_FILE", "/does/not/exist")] {
            let error = options(&[(name, value)]).unwrap_err();
            assert!(error.to_string().contains(name) && error.to_string().contains(value), "{error}");
        }
    }
}
