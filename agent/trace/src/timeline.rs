//! One life of the core as a person reads it at three in the morning: what was heard, what was decided, what came of it.
//!
//! Decides which steps of a trace are told, and in which words. It must not know how anything was decided: everything
//! here comes from the events and effects themselves.
//!
//! ```text
//!  T+0.0   notice  terminate: the instance goes at T+120.0
//!  T+0.0   node    mark: cordon, taint, annotation; deadline T+115.0 → done
//!  T+0.1   gold    evict, 114 s of grace, held → accepted
//!  T+3.2   gold    flush → 1.0 GiB in 2.1 s
//! ```
//! A line is one thing that was asked for, with its answer; attempts at the same thing share a line, and so do answers
//! that repeat. What only keeps the machinery going (inspections that show nothing new, holds that are kept ahead, renewals)
//! is told where it fails.

mod asking;
mod cast;
pub mod chart;
mod telling;
#[cfg(test)]
mod tests;
mod words;

pub use telling::Teller;
pub use words::{ANOMALY, bytes, departure_word, stamp, state_word};

use crate::Step;
use evacuation::effect::{Action, NodeAction};
use evacuation::event::Event;
use evacuation::moment::Moment;
use evacuation::report::Report;
use serde::Serialize;

/// What happened in one life, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// The node; `None` where the trace does not begin with the agent's start.
    pub node: Option<String>,
    /// `T`: when the evacuation began; without one, the first notice; without that, the first event.
    pub zero: Moment,
    /// What `T` is.
    pub zero_is: &'static str,
    /// The lines, oldest first.
    pub lines: Vec<TimelineLine>,
    /// The last report that was written.
    pub report: Option<Report>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineLine {
    /// When it was heard or asked for.
    pub at: Moment,
    /// A pod's name, `node`, `notice`, `link`.
    pub subject: String,
    /// What.
    pub what: String,
    /// What came of it: several where it was asked for more than once.
    pub answers: Vec<Answer>,
    /// It was asked for, and the trace ends before its answer.
    pub open: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// In words.
    pub what: String,
    /// How often it came in a row.
    pub times: u32,
    /// When it came last.
    pub at: Moment,
    /// It is not what was asked for.
    pub trouble: bool,
}

impl Timeline {
    /// The timeline of one life.
    pub fn of(steps: &[Step]) -> Self {
        let (zero, zero_is) = zero(steps.iter());
        Self::since(zero, zero_is, steps)
    }

    /// The timeline of one life, told relative to a moment that somebody else knows.
    pub fn since(zero: Moment, zero_is: &'static str, steps: &[Step]) -> Self {
        let mut teller = telling::Teller::new(zero, cast::Cast::of(steps));
        for step in steps {
            teller.hear(step.at, &step.event);
            for effect in &step.effects {
                teller.ask(step.at, effect);
            }
        }
        let node = steps.iter().find_map(|step| match &step.event {
            Event::NodeRead(node) => Some(node.name.clone()),
            _ => None,
        });
        let (lines, report) = teller.end();
        Self { node, zero, zero_is, lines, report }
    }

    /// What the report of an evacuation knows of its course, where there is no journal.
    pub fn of_report(report: &Report) -> Self {
        let line = |at, subject: &str, what: String| {
            let subject = subject.to_owned();
            TimelineLine { at, subject, what, answers: Vec::new(), open: false }
        };
        let deadline = words::stamp(report.deadline, report.noticed);
        let notice = format!("{}; deadline {deadline}", report.kind.as_str());
        let mut lines = vec![line(report.noticed, "notice", notice)];
        lines.extend(report.cordoned.map(|at| line(at, "node", "cordoned".into())));
        for pod in &report.pods {
            lines.extend(pod.evicted.map(|at| line(at, &pod.name, "evicted".into())));
            let committed = || format!("{} committed", words::bytes(pod.bytes));
            lines.extend(pod.committed.map(|at| line(at, &pod.name, committed())));
            lines.extend(pod.gone.map(|at| line(at, &pod.name, "gone".into())));
        }
        lines.push(line(report.written, "node", "this report".into()));
        lines.sort_by_key(|line| line.at);
        Self {
            node: Some(report.node.clone()),
            zero: report.noticed,
            zero_is: "the notice",
            lines,
            report: Some(report.clone()),
        }
    }

    /// The timeline as text: a head, one line each, and what the last report says of each pod.
    pub fn text(&self) -> String {
        let mut text =
            format!("{}, T = {}\n", words::plain(self.node.as_deref().unwrap_or("a node")), self.zero_is);
        let wide = |names: &mut dyn Iterator<Item = &str>| {
            names.map(|name| name.chars().count()).max().unwrap_or(0).min(40)
        };
        let column = wide(&mut self.lines.iter().map(|line| line.subject.as_str()));
        for line in &self.lines {
            let at = words::stamp(line.at, self.zero);
            let told = format!(" {at:<8} {:<column$}  {}", line.subject, line.sentence(self.zero));
            text.push_str(&format!("{}\n", words::plain(&told)));
        }
        let Some(report) = &self.report else { return text };
        text.push_str(&format!("Pods, by the report of {}\n", words::stamp(report.written, self.zero)));
        let column = wide(&mut report.pods.iter().map(|pod| pod.name.as_str()));
        for pod in &report.pods {
            let outcome = words::outcome(pod, self.zero);
            let told = format!(" {:<column$}  {outcome}", pod.name);
            text.push_str(&format!("{}\n", words::plain(&told)));
        }
        text
    }
}

impl TimelineLine {
    /// What was asked for and what came of it, without its moment and subject; times are relative to `zero`.
    pub fn sentence(&self, zero: Moment) -> String {
        let alone = self.answers.len() == 1;
        let mut answers: Vec<_> = (0u32..)
            .zip(&self.answers)
            .map(|(position, answer)| {
                let Answer { what, times, at, .. } = answer;
                let took = at.since(self.at);
                match (times, position) {
                    (1, 0) if alone && !self.open && !answer.trouble && took.as_millis() >= 100 => {
                        format!("{what} in {}", words::seconds(took))
                    }
                    (1, 0) => what.clone(),
                    (1, _) => format!("{what} at {}", words::stamp(*at, zero)),
                    (times, _) => format!("{what}, {times} times until {}", words::stamp(*at, zero)),
                }
            })
            .collect();
        if self.open {
            answers.push("no answer yet".to_owned());
        }
        if answers.is_empty() {
            return self.what.clone();
        }
        format!("{} → {}", self.what, answers.join("; then "))
    }
}

/// The moment that everything is told relative to, and what it is.
fn zero<'s>(steps: impl Iterator<Item = &'s Step> + Clone) -> (Moment, &'static str) {
    let mut life = None;
    let hard = steps.clone().find_map(|step| {
        if let Event::AgentStarted { boot, .. } = &step.event {
            life = Some(boot);
        }
        if let Event::NodeRead(node) = &step.event
            && let Some(active_notice) = &node.active_notice
            && active_notice.hard
            && Some(&active_notice.boot) == life
        {
            return Some((active_notice.began, "the notice, seen by an earlier life of the agent"));
        }
        step.effects.iter().find_map(|effect| match &effect.action {
            Action::Node(NodeAction::MarkNode(active_notice)) if active_notice.hard => {
                Some((active_notice.began, "the notice"))
            }
            _ => None,
        })
    });
    let noticed = || {
        let first = steps.clone().find(|step| matches!(step.event, Event::NoticeReceived(_)));
        first.map(|step| (step.at, "the first notice"))
    };
    let first = || steps.clone().next().map(|step| (step.at, "the first event"));
    hard.or_else(noticed).or_else(first).unwrap_or((Moment::default(), "boot"))
}
