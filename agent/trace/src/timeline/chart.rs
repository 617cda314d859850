//! An evacuation as a drawing needs it: who did what, from when to when.
//!
//! Decides what is shown, in which order, and from when to when. It must not know how it is drawn.
//!
//! ```text
//!  steps of all lives ─► one boot after the other ─► rows (all that has a beginning and an end)
//!                                                └─► one chart for each evacuation: its marks, its stretch of time
//! ```

mod course;
#[cfg(test)]
mod tests;

use super::{cast::Cast, words, zero};
use crate::Step;
use course::Course;
use evacuation::effect::{Action, NodeAction};
use evacuation::event::Event;
use evacuation::moment::{Moment, Span};
use evacuation::notice::{ActiveNotice, NoticeKind};
use evacuation::report::{DepartureOutcome, PodReport, Report};
use std::collections::{BTreeMap, BTreeSet};

/// What is shown of the time before an evacuation, at most.
const BEFORE: Span = Span::from_secs(5);

/// A rebalance recommendation that was seen so long before is part of the picture.
const PRELUDE: Span = Span::from_secs(600);

/// One evacuation, or what an agent did that had none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// The node; `None` where the trace does not begin with the agent's start.
    pub node: Option<String>,
    /// What began it; `None` where there was no evacuation.
    pub kind: Option<NoticeKind>,
    /// `T`.
    pub zero: Moment,
    /// What `T` is.
    pub zero_is: &'static str,
    /// Where the picture begins.
    pub from: Moment,
    /// Where it ends; later than `from`.
    pub to: Moment,
    /// What happened to all at once, oldest first.
    pub marks: Vec<Mark>,
    /// One for each pod, in the order of eviction.
    pub rows: Vec<Row>,
    /// The last report of it that was written.
    pub report: Option<Report>,
    /// A report is all there was: work has no beginning in it.
    pub by_report: bool,
}

/// Something that matters to every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Moment,
    /// What, in two or three words.
    pub what: String,
    /// Time is up there.
    pub limit: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name, as short as it can be told from the others'.
    pub name: String,
    /// Its priority, where it is known.
    pub priority: Option<i32>,
    /// What the report says of it.
    pub outcome: Option<PodReport>,
    /// What went on, in the order in which it began.
    pub bars: Vec<Bar>,
    /// When its save had to be done, whatever it had come to.
    pub cutoff: Option<Moment>,
    /// When an eviction of it was refused.
    pub refusals: Vec<Moment>,
}

/// Something with a beginning and an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What.
    pub work: Work,
    /// A round of it that was not the last, while the pod served.
    pub pre_copy: bool,
    /// When it began.
    pub from: Moment,
    /// When it ended; the last that is known, where [`End::Open`].
    pub to: Moment,
    /// How.
    pub end: End,
    /// What came of it, in words.
    pub told: String,
}

/// What a bar is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Work {
    /// The engine writes its state.
    Flush,
    /// The state goes to the store.
    Save,
    /// What is in the store is made findable.
    Commit,
    /// A checkpoint comes from the store, or from the pod's own volume.
    Fetch,
    /// The engine is shown to fit, takes the state, and shows that it uses it.
    Import,
    /// The pod waits inside its own eviction.
    Held,
    /// The pod waits for its restore to be decided.
    Restoring,
    /// The pod is evicted or deleted, and not gone.
    Ending,
}

impl Work {
    /// All of it, in the order of a pod's way.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// In words.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The pod's own doing, or its wait; the others are about its state.
    pub const fn is_the_pods(self) -> bool {
        matches!(self, Work::Held | Work::Restoring | Work::Ending)
    }
}

/// How a bar ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Done,
    /// In another way.
    Failed,
    /// It is not known: the trace, the agent or the picture ended first.
    Open,
}

impl Chart {
    /// One chart for each evacuation in these steps, of however many lives of one node's agent. Where there was none, one
    /// for each boot in which anything went on.
    pub fn all<'s>(steps: impl IntoIterator<Item = &'s Step>) -> Vec<Self> {
        let boots = boots(steps);
        let evacuations: Vec<Self> = boots.iter().flat_map(|steps| Self::evacuations(steps)).collect();
        if !evacuations.is_empty() {
            return evacuations;
        }
        boots.iter().map(|steps| Self::quiet(steps)).filter(|chart| !chart.rows.is_empty()).collect()
    }

    /// What a report shows: when pods were evicted, committed and gone, and not how long anything took.
    pub fn of_report(report: &Report) -> Self {
        let ends = report.pods.iter().filter_map(|pod| pod.gone.max(pod.committed));
        let to = ends.fold(report.deadline.max(report.written), Moment::max);
        let row = |pod: &PodReport| {
            let mut bars = Vec::new();
            if let Some(from) = pod.evicted {
                let (to, end) = pod.gone.map_or((to, End::Open), |gone| (gone.max(from), End::Done));
                bars.push(Bar { work: Work::Ending, pre_copy: false, from, to, end, told: String::new() });
            }
            if let Some(at) = pod.committed {
                let told = format!("{} committed", words::bytes(pod.bytes));
                bars.push(Bar {
                    work: Work::Commit,
                    pre_copy: false,
                    from: at,
                    to: at,
                    end: End::Done,
                    told,
                });
            }
            Row::by_report(pod, format!("{}/{}", pod.namespace, pod.name), bars)
        };
        let mark = |at, what: &str, limit| Mark { at, what: what.to_owned(), limit };
        let mut marks = vec![mark(report.noticed, "notice", false)];
        marks.extend(report.cordoned.map(|at| mark(at, "cordoned", false)));
        marks.push(mark(report.written, "report", false));
        marks.push(mark(report.deadline, "deadline", true));
        marks.sort_by_key(|mark| mark.at);
        Self {
            node: Some(report.node.clone()),
            kind: Some(report.kind),
            zero: report.noticed,
            zero_is: "the notice",
            from: report.noticed - before(report.deadline.since(report.noticed)),
            to: to.max(report.noticed + BEFORE),
            marks,
            rows: report.pods.iter().filter(|pod| leaves(pod)).map(row).collect(),
            report: Some(report.clone()),
            by_report: true,
        }
    }

    /// Each evacuation of one boot.
    fn evacuations(steps: &[&Step]) -> Vec<Self> {
        let active_notices = active_notices(steps);
        if active_notices.is_empty() {
            return Vec::new();
        }
        let course = Course::of(steps);
        active_notices.iter().map(|active_notice| Self::evacuation(steps, &course, active_notice)).collect()
    }

    fn evacuation(steps: &[&Step], course: &Course, active_notice: &ActiveNotice) -> Self {
        let ActiveNotice { began: zero, deadline, .. } = *active_notice;
        let first = steps.iter().find(|step| {
            matches!(step.event, Event::NoticeReceived(_)) && step.at + PRELUDE >= zero && step.at <= zero
        });
        let from = first.map_or(zero, |step| step.at).min(zero) - before(active_notice.deadline.since(zero));
        // Beyond twice the time there was, nothing is part of it any more.
        let latest = deadline + deadline.since(zero);
        let report = course.report(&active_notice.notice);
        let own = |bar: &&Bar| bar.from >= zero && bar.from <= deadline && !bar.pre_copy;
        let bars = course.bars().filter(own).map(|bar| bar.to).filter(|to| *to <= latest);
        let written = report.iter().map(|report| report.written).filter(|written| *written <= latest);
        let to = bars.chain(written).fold(deadline, Moment::max).max(zero + BEFORE);
        Self {
            node: node(steps),
            kind: Some(active_notice.kind),
            zero,
            zero_is: "the notice",
            from,
            to,
            marks: course.marks(active_notice, from, to),
            rows: rows(steps, course, report, from, to),
            report: report.cloned(),
            by_report: false,
        }
    }

    /// A boot without an evacuation: restores, pre-copies, pods that others deleted.
    fn quiet(steps: &[&Step]) -> Self {
        let course = Course::of(steps);
        let (zero, zero_is) = zero(steps.iter().copied());
        let from = course.bars().map(|bar| bar.from).min().unwrap_or(zero).min(zero);
        let to = course.bars().map(|bar| bar.to).max().unwrap_or(zero).max(from + Span::from_secs(1));
        let rows = rows(steps, &course, None, from, to);
        let marks = Vec::new();
        Self {
            node: node(steps),
            kind: None,
            zero,
            zero_is,
            from,
            to,
            marks,
            rows,
            report: None,
            by_report: false,
        }
    }
}

impl Row {
    fn by_report(pod: &PodReport, name: String, bars: Vec<Bar>) -> Self {
        let (priority, outcome) = (Some(pod.priority), Some(pod.clone()));
        Self { name, priority, outcome, bars, cutoff: None, refusals: Vec::new() }
    }
}

/// The steps of each boot: its moments have nothing to do with another's.
fn boots<'s>(steps: impl IntoIterator<Item = &'s Step>) -> Vec<Vec<&'s Step>> {
    let mut boots: Vec<(Option<&str>, Vec<&Step>)> = Vec::new();
    for step in steps {
        let boot = match &step.event {
            Event::AgentStarted { boot, .. } => Some(boot.as_str()),
            _ => boots.last().and_then(|(boot, _)| *boot),
        };
        match boots.last_mut() {
            Some((of, steps)) if *of == boot => steps.push(step),
            _ => boots.push((boot, vec![step])),
        }
    }
    boots.into_iter().map(|(_, steps)| steps).collect()
}

/// Every evacuation of one boot as it last stood, oldest first.
fn active_notices(steps: &[&Step]) -> Vec<ActiveNotice> {
    let mut found: Vec<ActiveNotice> = Vec::new();
    let mut note = |active_notice: &ActiveNotice| match found
        .iter_mut()
        .find(|known| known.notice == active_notice.notice)
    {
        Some(known) => *known = active_notice.clone(),
        None => found.push(active_notice.clone()),
    };
    let mut life = None;
    for step in steps {
        match &step.event {
            Event::AgentStarted { boot, .. } => life = Some(boot),
            Event::NodeRead(node) => {
                let own =
                    |active_notice: &&ActiveNotice| active_notice.hard && Some(&active_notice.boot) == life;
                node.active_notice.iter().filter(own).for_each(&mut note);
            }
            _ => {
                for effect in &step.effects {
                    if let Action::Node(NodeAction::MarkNode(active_notice)) = &effect.action
                        && active_notice.hard
                    {
                        note(active_notice);
                    }
                }
            }
        }
    }
    found
}

/// How much of the time before it is shown.
fn before(window: Span) -> Span {
    BEFORE.min(window.div(12))
}

fn node(steps: &[&Step]) -> Option<String> {
    steps.iter().find_map(|step| match &step.event {
        Event::NodeRead(node) => Some(node.name.clone()),
        _ => None,
    })
}

/// It is one of those that were to leave.
fn leaves(pod: &PodReport) -> bool {
    pod.departure != DepartureOutcome::Stays
}

/// Those who were to leave by the report, in its order; then all others of whom there is anything to be seen.
fn rows(steps: &[&Step], course: &Course, report: Option<&Report>, from: Moment, to: Moment) -> Vec<Row> {
    let cast = Cast::of(steps.iter().copied());
    let told: BTreeMap<&str, (usize, &PodReport)> = report
        .into_iter()
        .flat_map(|report| report.pods.iter().enumerate())
        .map(|(place, pod)| (pod.uid.as_str(), (place, pod)))
        .collect();
    let mut rows: Vec<(usize, Moment, Row)> = Vec::new();
    for (uid, pod) in course.pods() {
        let told = told.get(uid.0.as_str());
        let bars: Vec<Bar> = pod.bars.iter().filter_map(|bar| within(bar, from, to)).collect();
        if bars.is_empty() && !told.is_some_and(|(_, pod)| leaves(pod)) {
            continue;
        }
        let shown = |at: &Moment| (from..=to).contains(at);
        let row = Row {
            name: cast.name(uid),
            priority: pod.priority.or_else(|| told.map(|(_, pod)| pod.priority)),
            outcome: told.map(|(_, pod)| (*pod).clone()),
            cutoff: pod.cutoff.filter(shown),
            refusals: pod.refusals.iter().copied().filter(shown).collect(),
            bars,
        };
        let first = row.bars.first().map_or(to, |bar| bar.from);
        rows.push((told.map_or(usize::MAX, |(place, _)| *place), first, row));
    }
    // Pods that left in an earlier life whose steps are not here: only the report knows of them.
    let known: BTreeSet<&str> = course.pods().map(|(uid, _)| uid.0.as_str()).collect();
    for (place, pod) in told.values().filter(|(_, pod)| leaves(pod) && !known.contains(pod.uid.as_str())) {
        rows.push((*place, to, Row::by_report(pod, pod.name.clone(), Vec::new())));
    }
    rows.sort_by(|a, b| (a.0, a.1, &a.2.name).cmp(&(b.0, b.1, &b.2.name)));
    rows.into_iter().map(|(_, _, row)| row).collect()
}

/// The part of the bar that is in the picture.
fn within(bar: &Bar, from: Moment, to: Moment) -> Option<Bar> {
    if bar.to < from || bar.from > to {
        return None;
    }
    let end = if bar.to > to { End::Open } else { bar.end };
    Some(Bar { from: bar.from.max(from), to: bar.to.min(to), end, ..bar.clone() })
}
