//! What the core is doing, for `/status`, the probes and the shutdown of the agent.
//!
//! Decides whether something would be lost if the agent ended now. It must not change anything.

use crate::evacuation::Evacuation;
use crate::event::NodeFacts;
use crate::facts::AnnouncedNotice;
use crate::moment::{Moment, Span};
use crate::node_mark::NodeMark;
use crate::notice::ActiveNotice;
use crate::pods::Pods;
use crate::report::PodReport;
use serde::Serialize;

/// A picture of the core.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The node's name, once it is read.
    pub node: Option<String>,
    /// What stands on the node.
    pub active_notice: Option<ActiveNotice>,
    /// Every notice that stands, what ends first in front.
    pub announcements: Vec<AnnouncedNotice>,
    /// The cordon is acknowledged.
    pub cordoned: bool,
    /// Time left until the deadline of the evacuation.
    pub left: Option<Span>,
    /// Everything that was to happen has happened, and the report is written.
    pub finished: bool,
    /// Something would be lost if the agent ended now.
    pub busy: bool,
    /// The pods of this node.
    pub pods: Vec<PodStatus>,
    /// Answers that came after their effect was superseded.
    pub late_answers: u64,
    /// Effects whose answer is waited for.
    pub open_effects: usize,
    /// Notices that repeated one that stands already.
    pub repeated_notices: u64,
}

/// One pod of a [`Status`].
#[derive(Clone, Debug, Serialize)]
pub struct PodStatus {
    /// Its departure so far.
    #[serde(flatten)]
    pub departure: PodReport,
    /// It is opted in.
    pub engine: bool,
    /// Bytes of state that its engine last spoke of.
    pub state_bytes: u64,
    /// How its restore ended.
    pub restore: Option<String>,
    /// Its restore is not decided yet.
    pub restoring: bool,
    /// The newest pre-copied generation.
    pub precopied: Option<String>,
}

/// What a [`Status`] is made from.
pub(crate) struct StatusSource<'a> {
    pub(crate) now: Moment,
    pub(crate) node: Option<&'a NodeFacts>,
    pub(crate) announcements: Vec<AnnouncedNotice>,
    pub(crate) mark: &'a NodeMark,
    pub(crate) pods: &'a Pods,
    pub(crate) evacuation: Option<&'a Evacuation>,
    pub(crate) late_answers: u64,
    pub(crate) open_effects: usize,
    pub(crate) repeated_notices: u64,
}

impl Status {
    pub(crate) fn of(source: StatusSource<'_>) -> Self {
        let StatusSource {
            now,
            node,
            announcements,
            mark,
            pods,
            evacuation,
            late_answers,
            open_effects,
            repeated_notices,
        } = source;
        let departing = pods.values().filter_map(|pod| pod.departure.as_ref());
        let busy = departing.clone().any(|departure| !departure.save.is_over())
            || evacuation.is_some_and(|evacuation| {
                !evacuation.is_reported() && now < evacuation.active_notice.deadline
            });
        Self {
            node: node.map(|node| node.name.clone()),
            active_notice: mark.wanted().cloned(),
            announcements,
            cordoned: mark.is_cordoned(),
            left: evacuation.map(|evacuation| evacuation.active_notice.deadline.left(now)),
            finished: evacuation.is_some_and(|evacuation| evacuation.is_reported()),
            busy,
            pods: pods
                .values()
                .map(|pod| PodStatus {
                    departure: pod.report(now),
                    engine: pod.facts.engine.is_some(),
                    state_bytes: pod.inspection.state_bytes(),
                    restore: pod
                        .restore
                        .outcome()
                        .map(|(outcome, message)| format!("{}: {message}", outcome.as_str())),
                    restoring: pod.facts.engine.is_some()
                        && pod.departure.is_none()
                        && !pod.restore.is_over(),
                    precopied: pod.precopy.committed.as_ref().map(|(generation, _)| generation.clone()),
                })
                .collect(),
            late_answers,
            open_effects,
            repeated_notices,
        }
    }
}
