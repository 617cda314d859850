//! Whether an engine or a sidecar keeps contract v1 (docs/protocol.md): each line of the report is a sentence of the
//! specification.
//!
//! It is run against an engine that may be disturbed: it is quiesced, flushed, restored from its own flush, and
//! resumed. Its state is afterwards what it was.

use super::client::Answer;
use super::contract::PREFIX;
use super::http::HttpEngine;
use super::{Engine, EngineError, EngineTarget, Flushed, Scheme};
use checkpoint::folder::Folder;
use evacuation::effect::FlushKind;
use evacuation::event::Verification;
use evacuation::moment::{Moment, Span};
use host::clock;
use serde_json::json;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What is tested, and how long it may take.
#[derive(Clone, Debug)]
pub struct ConformanceOptions {
    /// The engine's bearer token, if it has one.
    pub token: Option<String>,
    /// The state volume, as this process sees it.
    pub state_dir: PathBuf,
    /// The longest a flush or a restore may take.
    pub patience: Span,
}

/// How one sentence fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Kept,
    /// It does not, because.
    Broken(String),
    /// It could not be asked, because.
    NotTested(String),
}

/// One sentence of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The sentence.
    pub sentence: &'static str,
    /// How it fared.
    pub verdict: Verdict,
}

/// Every sentence, in the order of the specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConformanceReport {
    /// The sentences.
    pub checks: Vec<Check>,
}

impl ConformanceReport {
    /// Nothing is broken.
    pub fn conforms(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.verdict, Verdict::Broken(_)))
    }

    fn note(&mut self, sentence: &'static str, verdict: Result<(), String>) {
        let verdict = verdict.map_or_else(Verdict::Broken, |()| Verdict::Kept);
        self.checks.push(Check { sentence, verdict });
    }

    fn skip(&mut self, sentence: &'static str, why: &str) {
        self.checks.push(Check { sentence, verdict: Verdict::NotTested(why.to_owned()) });
    }
}

impl fmt::Display for ConformanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            match &check.verdict {
                Verdict::Kept => writeln!(f, "kept        {}", check.sentence)?,
                Verdict::Broken(why) => writeln!(f, "broken      {}: {why}", check.sentence)?,
                Verdict::NotTested(why) => writeln!(f, "not tested  {}: {why}", check.sentence)?,
            }
        }
        Ok(())
    }
}

/// Tests the engine at `base_url` (`http://ip:port`).
///
/// # Errors
/// [`EngineError`] if there is nothing to test: a wrong address, or no state volume.
pub async fn conformance(
    base_url: &str,
    options: ConformanceOptions,
) -> Result<ConformanceReport, EngineError> {
    let tester = Tester::new(base_url, options)?;
    let mut report = ConformanceReport::default();
    if tester.questions(&mut report).await {
        tester.door(&mut report).await;
        tester.state(&mut report).await;
    }
    Ok(report)
}

struct Tester {
    engine: HttpEngine,
    stranger: Option<HttpEngine>,
    patience: Span,
}

impl Tester {
    fn new(base_url: &str, options: ConformanceOptions) -> Result<Self, EngineError> {
        let unsupported =
            |why: &str| EngineError::Unsupported { at: base_url.to_owned(), why: why.to_owned() };
        let address: SocketAddr = base_url
            .trim_end_matches('/')
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| unsupported("give its address as http://IP:PORT"))?;
        let folder =
            Folder::open(&options.state_dir).map_err(|error| EngineError::Volume(error.to_string()))?;
        let target = EngineTarget {
            ip: address.ip(),
            port: address.port(),
            scheme: Scheme::Http,
            token: options.token,
            folder: Arc::new(folder),
            flush_timeout: options.patience,
            max_bytes: None,
            facts: Default::default(),
            compat_key: None,
            life: String::new(),
            allow_loopback: true,
        };
        let stranger = match &target.token {
            Some(_) => Some(HttpEngine::new(EngineTarget { token: None, ..target.clone() })?),
            None => None,
        };
        Ok(Self { engine: HttpEngine::new(target)?, stranger, patience: options.patience })
    }

    fn deadline(&self) -> Moment {
        clock::now() + self.patience
    }

    /// What can be asked without changing anything. False if there is no point in going on.
    async fn questions(&self, report: &mut ConformanceReport) -> bool {
        let info = self.engine.info(self.deadline()).await;
        report.note("GET info answers 200 with protocol 1", told(info.as_ref().map(|_| ())));
        let Ok(info) = info else { return false };
        const EVIDENCE: &str = "info offers evidence of the weights";
        if info.weights.is_some_and(|weights| weights.digest.is_some() || weights.probe.is_some()) {
            report.note(EVIDENCE, Ok(()));
        } else {
            report.skip(
                EVIDENCE,
                "it offers none: nothing is restored unless lifeboat.dev/compat-key vouches for it",
            );
        }
        const TOKEN: &str = "a request without the token is answered 401 or 403";
        match &self.stranger {
            Some(stranger) => {
                let verdict = match stranger.info(self.deadline()).await {
                    Err(EngineError::Denied { .. }) => Ok(()),
                    other => Err(format!(
                        "{:?}",
                        other.map(|_| "it answered 200").map_err(|error| error.to_string())
                    )),
                };
                report.note(TOKEN, verdict);
            }
            None => report.skip(TOKEN, "no token was given"),
        }
        let unknown =
            self.engine.client.get(&format!("{PREFIX}/operations/no-such-operation"), self.deadline()).await;
        report.note("an unknown operation is answered 404", status(unknown, &[404]));
        for verb in ["quiesce", "flush", "restore", "resume"] {
            let answer =
                self.engine.client.post(&format!("{PREFIX}/{verb}"), &json!([]), self.deadline()).await;
            // 501 for verbs that it does not have; never a success.
            let verdict = status(answer, &[400, 422, 501]).map_err(|why| format!("{verb}: {why}"));
            report.note("a request without its fields is answered 400", verdict);
        }
        true
    }

    /// Quiesce and resume.
    async fn door(&self, report: &mut ConformanceReport) {
        for (verb, quiesced, sentence) in [
            ("quiesce", true, "quiesce can be repeated, and info then says quiesced"),
            ("resume", false, "resume takes quiesce back, and can be repeated"),
        ] {
            let path = format!("{PREFIX}/{verb}");
            let body = json!({ "time_left_ms": self.patience.as_millis() });
            let mut verdict = Ok(());
            for _ in 0..2 {
                match self.engine.client.post(&path, &body, self.deadline()).await {
                    Ok(answer) if answer.status == 501 => verdict = Err("501".to_owned()),
                    answer => verdict = verdict.and(status(answer, &[200, 204])),
                }
            }
            if verdict == Err("501".to_owned()) {
                report.skip(sentence, "it answers 501: a final flush cuts what runs");
                continue;
            }
            let info = self.engine.info(self.deadline()).await;
            let shown = match info {
                Ok(info) if info.quiesced == quiesced => Ok(()),
                Ok(info) => Err(format!("info says quiesced: {}", info.quiesced)),
                Err(error) => Err(error.to_string()),
            };
            report.note(sentence, verdict.and(shown));
        }
    }

    /// Flush and restore.
    async fn state(&self, report: &mut ConformanceReport) {
        let before = self.state_bytes().await;
        let id = format!("conformance-{:016x}", fastrand::u64(..));
        let first = self.engine.flush(FlushKind::PreCopy, &id, self.deadline()).await;
        report.note(
            "a flush writes the files that it names, with the sizes that it names",
            told(first.as_ref().map(|_| ())),
        );
        let Ok(first) = first else { return };
        let again = self.engine.flush(FlushKind::PreCopy, &id, self.deadline()).await;
        let same = again.map_err(|error| error.to_string()).and_then(|again| same_files(&first, &again));
        report.note("the same checkpoint id again is the same flush", same);
        report.note("a flush discards nothing", not_less(before.clone(), self.state_bytes().await));
        self.too_large(report, first.bytes).await;

        let last_id = format!("{id}-final");
        let last = self.engine.flush(FlushKind::Final, &last_id, self.deadline()).await;
        report.note("a final flush succeeds", told(last.as_ref().map(|_| ())));
        let Ok(last) = last else { return };
        report.note(
            "a final flush discards nothing either",
            not_less(before.clone(), self.state_bytes().await),
        );
        let paths: Vec<String> = last.files.iter().map(|file| file.path.clone()).collect();
        for sentence in ["a restore takes what a flush wrote", "the same restore again succeeds"] {
            let taken = self.engine.hand_over(&last.facts, &paths, self.deadline()).await;
            report.note(sentence, told(taken.as_ref().map(|_| ())));
        }
        report.note(
            "after a restore the state is as large as before",
            not_less(before, self.state_bytes().await),
        );
        const SHOWN: &str = "info shows what was restored";
        match self.engine.verify(&last.facts, self.deadline()).await {
            Ok(Verification::Used { .. }) => report.note(SHOWN, Ok(())),
            Ok(Verification::NotUsed { why }) => report.note(SHOWN, Err(why)),
            Ok(Verification::NotShown { why }) => {
                report.skip(SHOWN, &format!("{why}: restores are reported as unverified"))
            }
            Err(error) => report.note(SHOWN, Err(error.to_string())),
        }
        let mut other = last.facts.clone();
        other.insert("checkpoint_id".to_owned(), format!("{id}-absent").into());
        let absent = self.engine.hand_over(&other, &["no/such/file".to_owned()], self.deadline()).await;
        let verdict = match absent {
            Ok(_) => Err("it answered success".to_owned()),
            Err(_) => Ok(()),
        };
        report.note("a restore of files that are not there fails", verdict);
        report.note(
            "resume after a flush succeeds",
            told(self.engine.resume(self.deadline()).await.as_ref().copied()),
        );
    }

    async fn too_large(&self, report: &mut ConformanceReport, bytes: u64) {
        const SENTENCE: &str =
            "a flush that would exceed max_bytes is answered 413, or leaves out and says what";
        if bytes < 2 {
            return report.skip(SENTENCE, "it has no state");
        }
        let body = json!({
            "checkpoint_id": format!("conformance-{:016x}", fastrand::u64(..)),
            "round": "precopy",
            "time_left_ms": self.patience.as_millis(),
            "max_bytes": 1,
        });
        let verdict = match self.engine.client.post(&format!("{PREFIX}/flush"), &body, self.deadline()).await
        {
            Ok(answer) if answer.status == 413 || answer.status == 202 => Ok(()),
            Ok(answer) if answer.status == 200 => match answer.json::<super::contract::DoneAnswer>() {
                Ok(done)
                    if !done.missing.is_empty()
                        && done.files.iter().map(|file| file.bytes).sum::<u64>() <= 1 =>
                {
                    Ok(())
                }
                Ok(_) => Err("it answered 200 and named nothing as missing".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            answer => status(answer, &[413]),
        };
        report.note(SENTENCE, verdict);
    }

    async fn state_bytes(&self) -> Result<u64, String> {
        self.engine
            .info(self.deadline())
            .await
            .map(|info| info.state_bytes)
            .map_err(|error| error.to_string())
    }
}

fn told(result: Result<(), &EngineError>) -> Result<(), String> {
    result.map_err(EngineError::to_string)
}

fn status(answer: Result<Answer, EngineError>, wanted: &[u16]) -> Result<(), String> {
    match answer {
        Ok(answer) if wanted.contains(&answer.status) => Ok(()),
        Ok(answer) => Err(answer.says()),
        Err(error) => Err(error.to_string()),
    }
}

fn same_files(first: &Flushed, again: &Flushed) -> Result<(), String> {
    if first.files == again.files { Ok(()) } else { Err("the second answer names other files".to_owned()) }
}

fn not_less(before: Result<u64, String>, after: Result<u64, String>) -> Result<(), String> {
    let (before, after) = (before?, after?);
    if after >= before {
        Ok(())
    } else {
        Err(format!("info said {before} bytes of state before, {after} after"))
    }
}
