//! Goes through a trace once and makes its lines; also while the trace is being written.
//!
//! Decides which event is worth a line; what was asked for is in `asking`, and the words are in `words`.

use super::cast::{Cast, description};
use super::{TimelineLine, words};
use crate::journal::{Line, What};
use evacuation::effect::{Action, EffectId, NodeAction};
use evacuation::event::{Event, NodeFacts};
use evacuation::moment::Moment;
use evacuation::notice::ActiveNotice;
use evacuation::pod::{Owner, PodFacts, PodUid};
use evacuation::report::Report;
use std::collections::{BTreeMap, BTreeSet};

/// A link is told again when it differs from what was told by more than one part in this many.
const LINK_CHANGES: u64 = 5;

/// An effect that waits for its answer.
pub(super) struct UnansweredEffect {
    pub(super) asked: Moment,
    pub(super) action: Action,
    /// Its line; `None` for what is told only if it fails.
    pub(super) line: Option<usize>,
}

/// What is remembered of a pod.
#[derive(Default)]
pub(super) struct Known {
    pub(super) facts: Option<PodFacts>,
    /// What its engine last said: bytes, and whether it works.
    pub(super) inspected: Option<(u64, bool)>,
    pub(super) inspection_fails: bool,
    /// Announced, deleted or evicted: holds and inspections are part of its departure.
    pub(super) departing: bool,
    pub(super) held: bool,
    /// We asked for its end.
    pub(super) told_to_go: bool,
    /// That was accepted, at this moment.
    pub(super) accepted: Option<Moment>,
    /// The line of the pre-copy that is under way, and what its save brought.
    pub(super) copying: Option<usize>,
    pub(super) copied: Option<String>,
}

/// Makes the lines of one life.
#[derive(Default)]
pub struct Teller {
    pub(super) zero: Moment,
    pub(super) cast: Cast,
    pub(super) lines: Vec<Option<TimelineLine>>,
    /// The line of the same subject before each of them.
    pub(super) before: Vec<Option<usize>>,
    pub(super) open: BTreeMap<EffectId, UnansweredEffect>,
    pub(super) pods: BTreeMap<PodUid, Known>,
    /// The last line of each subject.
    pub(super) last: BTreeMap<String, usize>,
    /// The line that further attempts belong to, by subject and action.
    pub(super) tried: BTreeMap<(String, &'static str), usize>,
    pub(super) notices: BTreeSet<String>,
    pub(super) link: Option<u64>,
    pub(super) node: Option<NodeFacts>,
    /// The boot of this life, and the line with which it began.
    boot: Option<String>,
    started: Option<(Moment, usize)>,
    pub(super) report: Option<Report>,
    /// The lines that were begun or answered since somebody asked.
    pub(super) news: BTreeSet<usize>,
}

impl Teller {
    /// Of a whole trace, whose pods are known.
    pub(super) fn new(zero: Moment, cast: Cast) -> Self {
        Self { zero, cast, ..Self::default() }
    }

    /// The next line of a journal that is being written, told relative to `zero`: what it begins and what it answers.
    pub fn tell(&mut self, line: &Line, zero: Moment) -> Vec<TimelineLine> {
        self.zero = zero;
        match &line.what {
            What::Life(_) => *self = Self::new(zero, Cast::default()),
            What::Event(event) => self.hear(line.at, event),
            What::Effect(effect) => self.ask(line.at, effect),
        }
        let news = std::mem::take(&mut self.news);
        news.into_iter().filter_map(|index| self.lines.get(index)?.clone()).collect()
    }

    /// The lines, and the last report that was written.
    pub(super) fn end(self) -> (Vec<TimelineLine>, Option<Report>) {
        (self.lines.into_iter().flatten().collect(), self.report)
    }

    pub(super) fn say(&mut self, at: Moment, subject: &str, what: String) -> usize {
        let line = TimelineLine { at, subject: subject.to_owned(), what, answers: Vec::new(), open: false };
        self.lines.push(Some(line));
        let index = self.lines.len() - 1;
        self.news.insert(index);
        self.before.push(self.last.insert(subject.to_owned(), index));
        index
    }

    pub(super) fn line(&mut self, index: usize) -> Option<&mut TimelineLine> {
        self.lines.get_mut(index)?.as_mut()
    }

    pub(super) fn known(&mut self, uid: &PodUid) -> &mut Known {
        self.pods.entry(uid.clone()).or_default()
    }

    /// An event.
    pub(super) fn hear(&mut self, at: Moment, event: &Event) {
        match event {
            Event::AgentStarted { boot, .. } => {
                self.boot = Some(boot.clone());
                self.started = Some((at, self.say(at, "node", "the agent starts".into())));
            }
            Event::Resumed { slept } => {
                self.say(at, "node", format!("the instance is awake again, after {slept}"));
            }
            Event::NodeRead(node) => self.node_read(at, node),
            Event::NodeUpdated(node) => self.node_seen(at, node),
            Event::PodUpdated(facts) => self.pod_seen(at, facts),
            Event::PodRemoved(uid) => self.pod_gone(at, uid),
            Event::NoticeReceived(notice) => {
                if self.notices.insert(notice.id.clone()) {
                    self.say(at, "notice", words::notice(notice, self.zero));
                }
            }
            Event::NoticeWithdrawn { id, .. } => {
                self.notices.remove(id);
                self.say(at, "notice", "withdrawn".into());
            }
            Event::LinkMeasured { bytes_per_second: rate } => {
                let told = self.link.is_some_and(|told| told.abs_diff(*rate) <= told / LINK_CHANGES);
                if !told {
                    self.link = Some(*rate);
                    self.say(at, "link", format!("{}/s", words::bytes(*rate)));
                }
            }
            Event::Answered { id, outcome } => self.answered(at, *id, outcome),
            Event::PreCopyRequested => {
                self.say(at, "drill", "save every state once, while it serves".into());
            }
            Event::BytesCame { .. } | Event::PodsListed | Event::ImdsReachable { .. } | Event::TimerFired => {
            }
        }
    }

    /// Told in the line with which the agent starts, where that is of the same moment.
    fn node_read(&mut self, at: Moment, node: &NodeFacts) {
        let ours = |active_notice: &ActiveNotice| {
            let kind = active_notice.kind.as_str();
            let deadline = words::stamp(active_notice.deadline, self.zero);
            match (Some(&active_notice.boot) == self.boot.as_ref(), active_notice.hard) {
                (false, _) => {
                    format!("; the instance came back, with the mark of a {kind} notice before its reboot")
                }
                (true, true) => format!(" under a {kind} notice, deadline {deadline}"),
                (true, false) => format!(" under a {kind} notice, soft taint until {deadline}"),
            }
        };
        let active_notice = match &node.active_notice {
            Some(active_notice) => ours(active_notice),
            None if node.unschedulable => ": the node is cordoned, not by us".to_owned(),
            None => String::new(),
        };
        match self.started.take() {
            Some((started, line)) if started == at => {
                if let Some(line) = self.line(line) {
                    line.what.push_str(&active_notice);
                }
            }
            _ => _ = self.say(at, "node", format!("the agent reads its node{active_notice}")),
        }
        self.node = Some(node.clone());
    }

    /// Told where it is not what our own marks make of it.
    fn node_seen(&mut self, at: Moment, node: &NodeFacts) {
        let same =
            |known: &NodeFacts| (known.unschedulable, known.tainted) == (node.unschedulable, node.tainted);
        // A watch may be faster than the answer to what it shows.
        let marking = |open: &UnansweredEffect| {
            matches!(open.action, Action::Node(NodeAction::MarkNode(_) | NodeAction::ClearNodeMark { .. }))
        };
        if !self.node.as_ref().is_none_or(same) && !self.open.values().any(marking) {
            let cordon = if node.unschedulable { "cordoned" } else { "schedulable" };
            let taint = if node.tainted { "with" } else { "without" };
            self.say(at, "node", format!("somebody changed it: {cordon}, {taint} our taint"));
        }
        self.node = Some(node.clone());
    }

    fn pod_seen(&mut self, at: Moment, facts: &PodFacts) {
        self.cast.meet(facts);
        let name = self.cast.name(&facts.uid);
        let known = self.known(&facts.uid);
        let before = known.facts.replace(facts.clone());
        let told_to_go = known.told_to_go;
        let Some(before) = before else {
            let ends = facts.terminating.map(|ends| words::stamp(ends, self.zero));
            let ends = ends.map(|ends| format!(", terminating until {ends}")).unwrap_or_default();
            self.say(at, &name, format!("seen: {}{ends}", description(facts)));
            return;
        };
        if before.terminating.is_none()
            && !told_to_go
            && let Some(ends) = facts.terminating
        {
            self.known(&facts.uid).departing = true;
            let ends = words::stamp(ends, self.zero);
            self.say(at, &name, format!("somebody deletes it: its grace ends at {ends}"));
        }
        if facts.owner == Owner::Finished && before.owner != Owner::Finished {
            self.say(at, &name, "finished".into());
        } else if before.running && !facts.running {
            self.say(at, &name, "its container ended".into());
        }
        let part = |facts: &PodFacts| (facts.priority, facts.role, facts.engine.clone());
        if part(&before) != part(facts) {
            self.say(at, &name, format!("changed: {}", description(facts)));
        }
    }

    fn pod_gone(&mut self, at: Moment, uid: &PodUid) {
        let name = self.cast.name(uid);
        let what = match self.known(uid).accepted {
            Some(accepted) => format!("gone, {} after its eviction", words::seconds(at.since(accepted))),
            None => "gone".into(),
        };
        self.say(at, &name, what);
    }
}
