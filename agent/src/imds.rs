//! Instance metadata: what EC2 says is going to happen to this instance.
//!
//! One task asks one document after the other over one kept connection (IMDS limits simultaneous connections),
//! and passes on only what changed. Nothing that IMDS answers, or fails to answer, ends the polling: faults
//! are counted by kind ([`Faults`]) and logged when they begin and end.
//!
//! | document | asked | for |
//! |---|---|---|
//! | `spot/instance-action` | every poll, unless the instance is known not to be Spot | the two-minute notice |
//! | `events/recommendations/rebalance` | every poll, likewise | elevated risk |
//! | `events/maintenance/scheduled` | every 5 s, on every node | stops, retirements, reboots |
//! | `instance-life-cycle` | after them, until it is known | spot or not |
//!
//! A life cycle that is not known hides no notice: where there is none both documents are a 404, which is no fault. A
//! document that shows a notice is asked on, whatever the life cycle turns out to be: somebody must see it withdrawn.
//!
//! Time left is the notice's time minus the `Date` of the same answer: the node's wall clock may be wrong. Only an
//! answer without a `Date` (no IMDS known to us gives one) is measured by the node's clock, with a warning.

mod client;
mod document;
mod fault;
mod standing;
#[cfg(test)]
mod tests;

pub use fault::{FaultKind, Faults};

use client::{Client, ImdsAnswer};
use document::{Document, DocumentContent};
use evacuation::notice::Notice;
use fault::Fault;
use standing::ShownNotices;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often scheduled maintenance is asked for: it is announced days ahead.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(5);
/// The longest pause after answers that ask for fewer requests (429, 5xx).
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What the watch tells. Each thing is told when it changes, not at every poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImdsEvent {
    /// A notice appeared, or another one took its place.
    Notice(Notice),
    /// The notice of this id is no longer shown, in two answers in a row, or one answer says that it is over.
    Withdrawn {
        /// The notice's id.
        id: String,
        /// An answer says that it is completed or canceled.
        is_over: bool,
    },
    /// How this instance is paid for, now that it is known.
    LifeCycle(LifeCycle),
    /// IMDS answers, or does not, and why.
    Reachable(bool, String),
}

/// `instance-life-cycle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifeCycle {
    /// It may be interrupted.
    Spot,
    /// It is not interrupted.
    OnDemand,
    /// Another word (`scheduled`, `capacity-block`): not Spot.
    Other(String),
}

impl LifeCycle {
    fn parse(text: &str) -> Option<Self> {
        let plain =
            !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        plain.then(|| match text {
            "spot" => LifeCycle::Spot,
            "on-demand" => LifeCycle::OnDemand,
            other => LifeCycle::Other(other.to_owned()),
        })
    }
}

impl fmt::Display for LifeCycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LifeCycle::Spot => "spot",
            LifeCycle::OnDemand => "on-demand",
            LifeCycle::Other(other) => other,
        })
    }
}

/// Why the watch cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// The endpoint is not one.
    #[error(
        "the IMDS endpoint {endpoint:?} is refused: {why}; give one like http://169.254.169.254 or http://[fd00:ec2::254]"
    )]
    BadEndpoint {
        /// What was given.
        endpoint: String,
        /// The rule it breaks.
        why: String,
    },
    /// The HTTP client cannot be built.
    #[error("cannot build the IMDS client")]
    Client(#[source] reqwest::Error),
}

/// The watch, before it runs.
#[derive(Debug)]
pub struct Imds {
    client: Client,
    poll: Duration,
    faults: Arc<Faults>,
}

impl Imds {
    /// A watch of the IMDS at `endpoint` that asks every `poll`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ImdsError::BadEndpoint`].
    pub fn new(endpoint: &str, poll: Duration) -> Result<Self, ImdsError> {
        Ok(Self { client: Client::new(endpoint)?, poll, faults: Arc::default() })
    }

    /// The faults counted so far, by kind: for metrics.
    pub fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults)
    }

    /// Watches until `cancel`, or until nobody listens any more.
    pub async fn watch(self, out: mpsc::Sender<ImdsEvent>, cancel: CancellationToken) {
        let mut watch = Watch {
            client: self.client,
            faults: self.faults,
            life_cycle: None,
            standing: ShownNotices::default(),
            last_fault: None,
            maintenance_due: Instant::now(),
            clockless: false,
        };
        let mut busy_answers = 0_u32;
        loop {
            let began = Instant::now();
            let (events, fault) = tokio::select! {
                () = cancel.cancelled() => return,
                polled = watch.poll() => polled,
            };
            for event in events {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    sent = out.send(event) => if sent.is_err() { return },
                }
            }
            busy_answers =
                if fault.is_some_and(FaultKind::asks_for_less) { busy_answers.saturating_add(1) } else { 0 };
            let pause = self.poll.saturating_mul(1 << busy_answers.min(8)).min(PAUSE_MAX.max(self.poll));
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep_until(began + pause) => {}
            }
        }
    }
}

/// What is known between polls.
struct Watch {
    client: Client,
    faults: Arc<Faults>,
    life_cycle: Option<LifeCycle>,
    standing: ShownNotices,
    /// How the last poll ended, once there was one.
    last_fault: Option<Option<FaultKind>>,
    maintenance_due: Instant,
    /// It was said that answers have no `Date`.
    clockless: bool,
}

impl Watch {
    /// Asks everything that is due. One document's fault does not keep the others from being asked, unless IMDS
    /// itself is out of reach.
    async fn poll(&mut self) -> (Vec<ImdsEvent>, Option<FaultKind>) {
        let mut events = Vec::new();
        let mut first: Option<Fault> = None;
        for document in Document::ALL {
            if !self.is_due(document) || is_out_of_reach(first.as_ref()) {
                continue;
            }
            let asked = self.ask(document, &mut events).await;
            if document == Document::Maintenance && asked.is_ok() {
                self.maintenance_due = Instant::now() + MAINTENANCE_EVERY;
            }
            self.note(asked, &mut first);
        }
        if self.life_cycle.is_none() && !is_out_of_reach(first.as_ref()) {
            let asked = self.ask_life_cycle(&mut events).await;
            self.note(asked, &mut first);
        }
        let kind = first.as_ref().map(|fault| fault.kind);
        self.tell(first, &mut events);
        (events, kind)
    }

    fn is_due(&self, document: Document) -> bool {
        let may_be_spot = self.life_cycle.as_ref().is_none_or(|life_cycle| *life_cycle == LifeCycle::Spot);
        match document {
            Document::Interruption | Document::Rebalance => may_be_spot || self.standing.shows(document),
            Document::Maintenance => Instant::now() >= self.maintenance_due,
        }
    }

    async fn ask_life_cycle(&mut self, events: &mut Vec<ImdsEvent>) -> Result<(), Fault> {
        const PATH: &str = "instance-life-cycle";
        let Some(answer) = self.client.get(PATH).await? else {
            return Err(Fault::garbage(PATH, "it answered 404"));
        };
        let text = String::from_utf8_lossy(&answer.body);
        let life_cycle =
            LifeCycle::parse(text.trim()).ok_or_else(|| Fault::garbage(PATH, "it is not a word"))?;
        tracing::info!(%life_cycle, "instance life cycle is known");
        events.push(ImdsEvent::LifeCycle(life_cycle.clone()));
        self.life_cycle = Some(life_cycle);
        Ok(())
    }

    async fn ask(&mut self, document: Document, events: &mut Vec<ImdsEvent>) -> Result<(), Fault> {
        let content = match self.client.get(document.path()).await? {
            None => DocumentContent::default(),
            Some(answer) => document.read(&answer.body, self.time_of(&answer), answer.received)?,
        };
        let odd = content.odd.clone();
        self.standing.update(document, content, events);
        odd.map_or(Ok(()), Err)
    }

    /// When the answer was given, by IMDS's clock.
    fn time_of(&mut self, answer: &ImdsAnswer) -> jiff::Timestamp {
        answer.date.unwrap_or_else(|| {
            if !self.clockless {
                self.clockless = true;
                tracing::warn!(
                    "IMDS answers without a Date: the time left is measured by this node's own clock"
                );
            }
            jiff::Timestamp::now()
        })
    }

    fn note(&self, asked: Result<(), Fault>, first: &mut Option<Fault>) {
        self.faults.poll();
        if let Err(fault) = asked {
            self.faults.count(fault.kind);
            first.get_or_insert(fault);
        }
    }

    /// Logs and tells how the poll went, if that is news.
    fn tell(&mut self, fault: Option<Fault>, events: &mut Vec<ImdsEvent>) {
        let kind = fault.as_ref().map(|fault| fault.kind);
        if self.last_fault == Some(kind) {
            return;
        }
        let was_reachable = self.last_fault.map(|last| last.is_none());
        self.last_fault = Some(kind);
        let why = match fault {
            Some(fault) => {
                tracing::warn!(kind = fault.kind.as_str(), "IMDS: {fault}; polling goes on");
                fault.to_string()
            }
            None => {
                tracing::info!("IMDS answers");
                "it answers".to_owned()
            }
        };
        if was_reachable != Some(kind.is_none()) {
            events.push(ImdsEvent::Reachable(kind.is_none(), why));
        }
    }
}

/// The next request would meet the same fault.
fn is_out_of_reach(fault: Option<&Fault>) -> bool {
    fault.is_some_and(|fault| fault.kind.is_unreachable())
}
