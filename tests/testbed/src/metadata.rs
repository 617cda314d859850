//! A node's metadata service: the drill's IMDS on 169.254.169.254 in the node's namespace, and a second port on which
//! a test says what it is to say.
//!
//! What it proves: that the agent finds IMDSv2 at its production default, from a pod, with nothing configured. What it
//! does not: the hop limit and the packet limits of the real one, and EC2's own timing.

use crate::layout::METADATA_CONTROL_PORT;
use anyhow::{Context, Result};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use evacuation::notice::InstanceAction;
use fakes::imds::{Identity, Imds};
use fault_plan::drill::parse_plan;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum Say {
    /// An interruption notice.
    Interrupt {
        /// terminate, stop, hibernate.
        action: InstanceAction,
        /// The time in it, by this machine's clock.
        time: Timestamp,
    },
    /// A rebalance recommendation.
    Rebalance,
    /// Nothing any more.
    Withdraw,
    /// Scheduled maintenance.
    Maintenance {
        /// `system-reboot`, `instance-stop`, …
        code: String,
        /// Its NotBefore.
        not_before: Timestamp,
    },
    /// AWS's clock is ahead of the node's: the `Date` of its answers, and the times that are said afterwards.
    Ahead {
        /// By so many seconds.
        seconds: i64,
    },
    /// It fails by a fault plan of the drill (`imds=down@0s+5s`), counted from now.
    Fail {
        /// The plan; empty ends it.
        plan: String,
    },
}

#[derive(Debug)]
struct Service {
    imds: Imds,
    ahead: std::sync::atomic::AtomicI64,
}

/// Serves until it is killed.
///
/// # Errors
/// An address cannot be had.
pub async fn serve(node: &str, spot: bool) -> Result<()> {
    let zone = format!("testbed-1{}", node.chars().last().unwrap_or('a'));
    let identity = Identity { instance: format!("i-{node}"), zone, spot };
    let imds = Imds::start_at(([169, 254, 169, 254], 80).into(), identity).await?;
    let service = Arc::new(Service { imds, ahead: 0.into() });
    let router = Router::new().route("/say", post(say)).route("/polls", get(polls)).with_state(service);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, METADATA_CONTROL_PORT)).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

async fn say(State(service): State<Arc<Service>>, Json(say): Json<Say>) -> Json<Value> {
    use std::sync::atomic::Ordering::SeqCst;
    let there = |time: Timestamp| time + SignedDuration::from_secs(service.ahead.load(SeqCst));
    match say {
        Say::Interrupt { action, time } => service.imds.interrupt(action, there(time), None),
        Say::Rebalance => service.imds.recommend_rebalance(),
        Say::Withdraw => service.imds.withdraw(),
        Say::Maintenance { code, not_before } => service.imds.schedule(&code, there(not_before)),
        Say::Ahead { seconds } => {
            service.ahead.store(seconds, SeqCst);
            service.imds.set_ahead(seconds);
        }
        Say::Fail { plan } => match parse_plan(&plan) {
            Ok(faults) => {
                service.imds.arm(&faults);
                service.imds.begin(host::clock::now());
            }
            Err(error) => return Json(json!({"error": error.to_string()})),
        },
    }
    Json(json!({}))
}

async fn polls(State(service): State<Arc<Service>>) -> Json<Value> {
    Json(json!(service.imds.polls()))
}

/// A node's metadata service, as a test speaks to it. Only from inside the testbed's network.
#[derive(Clone, Debug)]
pub struct Metadata {
    base: String,
    http: reqwest::Client,
}

impl Metadata {
    /// The service of the node at this address.
    pub fn of(address: Ipv4Addr) -> Self {
        Self { base: format!("http://{address}:{METADATA_CONTROL_PORT}"), http: reqwest::Client::new() }
    }

    /// Tells it what to say.
    ///
    /// # Errors
    /// It does not run, or does not understand.
    pub async fn say(&self, say: &Say) -> Result<()> {
        let answer = self.http.post(format!("{}/say", self.base)).json(say).send().await;
        let answer: Value = answer.context("the metadata service does not answer")?.json().await?;
        match answer["error"].as_str() {
            Some(error) => anyhow::bail!("{error}"),
            None => Ok(()),
        }
    }

    /// A termination notice for this far ahead. Returns the deadline's time.
    ///
    /// # Errors
    /// See [`Metadata::say`].
    pub async fn interrupt(&self, ahead: std::time::Duration) -> Result<Timestamp> {
        let time = Timestamp::now() + SignedDuration::try_from(ahead)?;
        self.say(&Say::Interrupt { action: InstanceAction::Terminate, time }).await?;
        Ok(time)
    }

    /// Every request that it received: when (the machine's monotonic milliseconds), what, and the answer's code.
    ///
    /// # Errors
    /// It does not run.
    pub async fn polls(&self) -> Result<Vec<Value>> {
        Ok(self.http.get(format!("{}/polls", self.base)).send().await?.json().await?)
    }
}
