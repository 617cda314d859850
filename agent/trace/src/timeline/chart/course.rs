//! Goes through the steps of one boot once, and gives everything its beginning and its end.
//!
//! Decides what counts as work, and when it was over. It must not know which part of it is shown.

use super::{Bar, End, Mark, Work, words};
use crate::Step;
use evacuation::effect::{Action, EffectId, FlushKind, Hold, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Event, FailureKind, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{ActiveNotice, Notice, NoticeKind};
use evacuation::pod::{PodFacts, PodUid};
use evacuation::report::Report;
use std::collections::{BTreeMap, BTreeSet};

/// How most pods leave.
const EVICTED: &str = "evicted";

/// What happened in one boot.
#[derive(Default)]
pub(super) struct Course {
    pods: BTreeMap<PodUid, PodCourse>,
    /// What was asked for and not answered, with the moment.
    open: BTreeMap<EffectId, (Moment, Action)>,
    notices: Vec<(Moment, Notice)>,
    /// Everything else that is worth a mark.
    marks: Vec<(Moment, &'static str)>,
    reports: Vec<Report>,
    lives: usize,
    last: Moment,
}

/// One pod's part in it.
#[derive(Default)]
pub(super) struct PodCourse {
    pub(super) priority: Option<i32>,
    pub(super) bars: Vec<Bar>,
    pub(super) cutoff: Option<Moment>,
    pub(super) refusals: Vec<Moment>,
    /// Announced, deleted or evicted: a hold is part of its departure.
    departing: bool,
    /// We asked for its end: the API server may show it before it has answered us.
    told_to_go: bool,
    /// What it does, or waits for, without an end so far.
    ending: Option<(Moment, &'static str)>,
    held: Option<Moment>,
    restoring: Option<Moment>,
}

impl PodCourse {
    fn bar(&mut self, work: Work, from: Option<Moment>, to: Moment, end: End, told: &str) {
        let Some(from) = from else { return };
        self.bars.push(Bar { work, pre_copy: false, from, to, end, told: told.to_owned() });
    }

    /// Nothing of it is waited for any more.
    fn end(&mut self, at: Moment, end: End) {
        let (held, restoring) = (self.held.take(), self.restoring.take());
        self.bar(Work::Held, held, at, end, "");
        self.bar(Work::Restoring, restoring, at, end, "it was not decided");
        if let Some((from, told)) = self.ending.take() {
            self.bar(Work::Ending, Some(from), at, end, told);
        }
    }
}

impl Course {
    pub(super) fn of(steps: &[&Step]) -> Self {
        let mut course = Self::default();
        for step in steps {
            course.hear(step.at, &step.event);
            for effect in &step.effects {
                course.ask(step.at, effect.id, &effect.action);
            }
            course.last = step.at;
        }
        course.life_ends();
        let last = course.last;
        for pod in course.pods.values_mut() {
            pod.end(last, End::Open);
            pod.bars.sort_by_key(|bar| (bar.from, bar.work, bar.to));
        }
        course
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = (&PodUid, &PodCourse)> {
        self.pods.iter()
    }

    pub(super) fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.pods.values().flat_map(|pod| &pod.bars)
    }

    /// The last report of this notice.
    pub(super) fn report(&self, notice: &str) -> Option<&Report> {
        self.reports.iter().rfind(|report| report.notice == notice)
    }

    /// The marks of one evacuation.
    pub(super) fn marks(&self, active_notice: &ActiveNotice, from: Moment, to: Moment) -> Vec<Mark> {
        let mark = |at, what: &str, limit| Mark { at, what: what.to_owned(), limit };
        let mut marks =
            vec![mark(active_notice.began, "notice", false), mark(active_notice.deadline, "deadline", true)];
        let mut told = BTreeSet::new();
        for (at, notice) in &self.notices {
            // One whose time moves is another one with each poll.
            if *at < from || !told.insert((notice.kind.as_str(), notice.id == active_notice.notice)) {
                continue;
            }
            if notice.kind == NoticeKind::Rebalance || notice.id != active_notice.notice {
                marks.push(mark(*at, &format!("{} notice", notice.kind.as_str()), false));
            } else if let Ok(left) = u64::try_from(notice.left_ms) {
                marks.push(mark(notice.seen + Span::from_millis(left), "the instance goes", true));
            }
        }
        marks.extend(self.marks.iter().map(|(at, what)| mark(*at, what, false)));
        let complete =
            self.reports.iter().filter(|report| report.notice == active_notice.notice && report.complete);
        marks.extend(complete.map(|report| mark(report.written, "complete", false)).next());
        marks.retain(|mark| (from..=to).contains(&mark.at));
        marks.sort_by(|a, b| (a.at, &a.what).cmp(&(b.at, &b.what)));
        marks
    }

    fn pod(&mut self, uid: &PodUid) -> &mut PodCourse {
        self.pods.entry(uid.clone()).or_default()
    }

    /// Ids of effects are those of one life.
    fn life_ends(&mut self) {
        let last = self.last;
        for (asked, action) in std::mem::take(&mut self.open).into_values() {
            if let (Some(uid), Some((work, pre_copy))) = (action.pod(), work(&action)) {
                let told = "no answer".to_owned();
                self.pod(uid).bars.push(Bar { work, pre_copy, from: asked, to: last, end: End::Open, told });
            }
        }
    }

    fn hear(&mut self, at: Moment, event: &Event) {
        match event {
            Event::AgentStarted { .. } => {
                self.life_ends();
                self.lives += 1;
                if self.lives > 1 {
                    self.marks.push((at, "the agent starts again"));
                }
            }
            Event::PodUpdated(facts) => self.pod_seen(at, facts),
            Event::PodRemoved(uid) => {
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.end(at, End::Done);
                }
            }
            Event::NoticeReceived(notice) => {
                if !self.notices.iter().any(|(_, known)| known.id == notice.id) {
                    self.notices.push((at, notice.clone()));
                }
            }
            Event::Resumed { .. } => self.marks.push((at, "awake again")),
            Event::NoticeWithdrawn { .. } => self.marks.push((at, "withdrawn")),
            Event::Answered { id, outcome } => self.answered(at, *id, outcome),
            Event::NodeRead(_)
            | Event::NodeUpdated(_)
            | Event::PodsListed
            | Event::ImdsReachable { .. }
            | Event::LinkMeasured { .. }
            | Event::BytesCame { .. }
            | Event::PreCopyRequested
            | Event::TimerFired => {}
        }
    }

    fn pod_seen(&mut self, at: Moment, facts: &PodFacts) {
        let pod = self.pod(&facts.uid);
        pod.priority = Some(facts.priority);
        if facts.terminating.is_some() {
            pod.departing = true;
            let told = if pod.told_to_go { EVICTED } else { "deleted by somebody" };
            pod.ending.get_or_insert((at, told));
        }
    }

    fn ask(&mut self, at: Moment, id: EffectId, action: &Action) {
        if let Action::Cancel { effect } = action {
            if let Some((asked, action)) = self.open.remove(effect)
                && let (Some(uid), Some((work, pre_copy))) = (action.pod(), work(&action))
            {
                let told = "cancelled".to_owned();
                self.pod(uid).bars.push(Bar { work, pre_copy, from: asked, to: at, end: End::Failed, told });
            }
            return;
        }
        if let Some(uid) = action.pod() {
            let pod = self.pod(uid);
            match action {
                Action::Pod { action: PodAction::WriteIntent { by, .. }, .. } => {
                    (pod.departing, pod.cutoff) = (true, Some(*by))
                }
                Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. } => {
                    (pod.departing, pod.told_to_go) = (true, true)
                }
                Action::Pod { action: PodAction::AbandonIntent { .. } | PodAction::Resume, .. } => {
                    pod.departing = false
                }
                Action::Pod { action: PodAction::SetHold { hold: Hold::Until(_), .. }, .. }
                    if pod.departing =>
                {
                    pod.held.get_or_insert(at);
                }
                Action::Pod { action: PodAction::SetHold { hold: Hold::Released, .. }, .. } => {
                    let held = pod.held.take();
                    pod.bar(Work::Held, held, at, End::Done, "until its state was decided");
                }
                Action::Restore { action: RestoreAction::FindLineage, .. } => {
                    pod.restoring.get_or_insert(at);
                }
                _ => {}
            }
        }
        self.open.insert(id, (at, action.clone()));
    }

    fn answered(&mut self, at: Moment, id: EffectId, outcome: &Outcome) {
        let Some((asked, action)) = self.open.remove(&id) else { return };
        let done = matches!(outcome, Outcome::Done(_));
        match &action {
            Action::Node(NodeAction::WriteReport(report)) if done => self.reports.push((**report).clone()),
            Action::Node(NodeAction::MarkNode(active_notice)) if done && active_notice.hard => {
                self.marks.push((at, "cordoned"))
            }
            Action::Node(NodeAction::ClearNodeMark { uncordon: true, .. }) if done => {
                self.marks.push((at, "uncordoned"))
            }
            Action::Pod { uid: pod, action: PodAction::Evict { .. } | PodAction::DeletePod { .. } }
                if done =>
            {
                let told = if matches!(action, Action::Pod { action: PodAction::Evict { .. }, .. }) {
                    EVICTED
                } else {
                    "deleted at its cut-off"
                };
                // A second deletion ends nothing and begins nothing.
                self.pod(pod).ending.get_or_insert((at, told));
            }
            Action::Pod { uid: pod, action: PodAction::Evict { .. } } => {
                if matches!(outcome, Outcome::Failed { kind: FailureKind::Refused, .. }) {
                    self.pod(pod).refusals.push(at);
                }
            }
            Action::Restore { uid: pod, action: RestoreAction::OpenGate { outcome: restored, .. } }
                if done =>
            {
                let pod = self.pod(pod);
                let restoring = pod.restoring.take();
                pod.bar(Work::Restoring, restoring, at, End::Done, restored.as_str());
            }
            _ => {}
        }
        if let (Some(uid), Some((work, pre_copy))) = (action.pod(), work(&action)) {
            let (told, trouble) = words::answered(&action, outcome, at.since(asked));
            let end = if trouble { End::Failed } else { End::Done };
            self.pod(uid).bars.push(Bar { work, pre_copy, from: asked, to: at, end, told });
        }
    }
}

/// What takes its time, and whether the pod serves meanwhile.
const fn work(action: &Action) -> Option<(Work, bool)> {
    match action {
        Action::Pod { action: PodAction::Flush { kind, .. }, .. } => {
            Some((Work::Flush, matches!(kind, FlushKind::PreCopy)))
        }
        Action::Pod { action: PodAction::Save { kind, .. }, .. } => {
            Some((Work::Save, matches!(kind, FlushKind::PreCopy)))
        }
        Action::Pod { action: PodAction::Commit { kind, .. }, .. } => {
            Some((Work::Commit, matches!(kind, FlushKind::PreCopy)))
        }
        Action::Restore {
            action: RestoreAction::Prefetch { .. } | RestoreAction::Fetch { .. } | RestoreAction::ReloadLocal,
            ..
        } => Some((Work::Fetch, false)),
        Action::Restore {
            action: RestoreAction::CheckFingerprint | RestoreAction::ImportState | RestoreAction::Verify,
            ..
        } => Some((Work::Import, false)),
        _ => None,
    }
}
