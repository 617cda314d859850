//! The report: in time, whatever happened; complete in the end (guarantee 4); and true (2, 5). And what the commits
//! were of which it may speak.
//!
//! Knows what was asked to be written and what was answered. It must not know a store.

use super::Checker;
use evacuation::pod::PodUid;
use evacuation::report::{DepartureOutcome, PodReport, Report, StateOutcome};
use std::collections::{BTreeMap, BTreeSet};

/// The commits that were answered. They outlive the agent.
#[derive(Debug, Default)]
pub(super) struct Commits {
    generations: BTreeSet<(PodUid, String)>,
    /// The departure in which a pod's state was committed last.
    finals: BTreeMap<PodUid, String>,
}

impl Commits {
    pub(super) fn add(&mut self, pod: &PodUid, generation: &str) {
        self.generations.insert((pod.clone(), generation.to_owned()));
    }

    /// The final round of this departure is committed.
    pub(super) fn committed(&mut self, pod: &PodUid, departure: Option<&str>) {
        if let Some(departure) = departure {
            self.finals.insert(pod.clone(), departure.to_owned());
        }
    }

    /// Another departure of the pod begins: its intent takes the place of the one before.
    pub(super) fn intends(&mut self, pod: &PodUid, departure: &str, again: bool) {
        if again || self.finals.get(pod).is_some_and(|of| of != departure) {
            self.finals.remove(pod);
        }
    }

    /// The state was committed in this very departure.
    pub(super) fn is_final(&self, pod: &PodUid, departure: &str) -> bool {
        self.finals.get(pod).is_some_and(|of| of == departure)
    }

    fn holds(&self, pod: &str, generation: Option<&str>) -> bool {
        generation.is_some_and(|generation| {
            self.generations.contains(&(PodUid(pod.to_owned()), generation.to_owned()))
        })
    }
}

/// The reports of one evacuation, in one life.
#[derive(Debug, Default)]
pub(super) struct Reports {
    last: Option<Report>,
    in_time: bool,
}

impl Checker {
    pub(super) fn writes_report(&mut self, report: &Report) {
        let now = self.now;
        let Some(evacuation) = self.notices.evacuation.clone() else {
            return self.wrong(4, "a report is written without an evacuation");
        };
        if report.deadline.as_millis() != evacuation.deadline {
            let wrote = report.deadline.as_millis();
            self.wrong(7, format!("the report's deadline is {wrote} ms, not {} ms", evacuation.deadline));
        }
        if report.complete && self.notices.listed.is_none() {
            self.wrong(4, "a report is complete before every pod was seen");
        }
        self.reports.in_time |= now <= evacuation.deadline;
        let decided = now >= evacuation.deadline && !evacuation.hibernates;
        let wrong: Vec<_> = report.pods.iter().flat_map(|pod| self.entry(pod, report, decided)).collect();
        self.all_wrong("the report", wrong);
        let missing: Vec<_> = self
            .pods
            .iter()
            .filter(|(uid, pod)| {
                (pod.asked || pod.announced) && !report.pods.iter().any(|entry| entry.uid == uid.0)
            })
            .map(|(_, pod)| (2, format!("does not speak of {}", pod.name())))
            .collect();
        self.all_wrong("the report", missing);
        self.reports.last = Some(report.clone());
    }

    /// What is wrong with one pod's entry.
    fn entry(&self, pod: &PodReport, report: &Report, decided: bool) -> Vec<(u8, String)> {
        let mut wrong = Vec::new();
        let mut say = |guarantee: u8, what: &str| {
            wrong.push((guarantee, format!("says of {}/{} ({}): {what}", pod.namespace, pod.name, pod.uid)));
        };
        let given = |reason: &Option<String>| reason.as_deref().is_some_and(|reason| !reason.is_empty());
        if matches!(pod.departure, DepartureOutcome::Abandoned | DepartureOutcome::DeletedAtCutOff)
            && !given(&pod.reason)
        {
            say(4, "given up or deleted without a reason");
        }
        if pod.state == StateOutcome::Lost && !given(&pod.state_reason) {
            say(4, "lost without a reason");
        }
        let claims = matches!(
            pod.state,
            StateOutcome::Saved
                | StateOutcome::Partial
                | StateOutcome::SavedWithoutEvidence
                | StateOutcome::Earlier
        );
        if claims && !self.commits.holds(&pod.uid, pod.generation.as_deref()) {
            say(5, "a generation that is not in the store");
        }
        let seen = self.pods.get(&PodUid(pod.uid.clone()));
        if pod.state == StateOutcome::Saved && seen.is_some_and(|seen| seen.partial == Some(true)) {
            say(5, "whole, although its commit is partial");
        }
        let usable = matches!(pod.state, StateOutcome::Saved | StateOutcome::Partial);
        if usable && seen.is_some_and(|seen| seen.partial.is_some() && !seen.evidence) {
            say(5, "saved, although no engine may use it");
        }
        if decided && pod.departure == DepartureOutcome::Pending {
            say(4, "undecided at the deadline");
        }
        let pending = pod.departure == DepartureOutcome::Pending || pod.state == StateOutcome::Pending;
        if report.complete && pending {
            say(4, "undecided in a complete report");
        }
        wrong
    }

    /// One report by the deadline, and one that says how it ended at it.
    pub(super) fn reports_due(&mut self) {
        let Some(evacuation) = &self.notices.evacuation else { return };
        let (now, deadline) = (self.now, evacuation.deadline);
        // A moment to read the pods after a start, and after a sleep.
        let settled = self.node_read.unwrap_or(now).max(self.notices.woke()) + 3_000;
        if now > deadline && settled < deadline && !self.reports.in_time {
            self.wrong(4, format!("no report was written by the deadline {deadline} ms"));
        }
        let last = self.reports.last.as_ref();
        let told = last.is_some_and(|report| report.complete || report.written.as_millis() >= deadline);
        if now > deadline.max(settled) + 1_600 && !told {
            self.wrong(4, format!("no report was written at the deadline {deadline} ms"));
        }
    }

    /// At the end of a trace: the last report is complete, unless a pod is still ending.
    pub(super) fn final_report(&mut self) {
        let Some(evacuation) = &self.notices.evacuation else { return };
        if self.now < evacuation.deadline + 60_000 || !self.node.is_decided() {
            return;
        }
        // The report that was asked for before the list ended may take as long as a call.
        let call = self.policy.call_timeout.as_millis() + 1_000;
        if self.notices.listed.is_none_or(|since| self.now < since + call) {
            return;
        }
        // The save of a pod that somebody else deletes has until the end of its own grace, even when the pod is gone.
        let waits = self.pods.values().any(|pod| {
            let saves = pod.intended && !pod.committed && !pod.given_up;
            pod.facts.terminating.is_some_and(|ends| !pod.gone || (saves && ends.as_millis() > self.now))
        });
        let complete = self.reports.last.as_ref().is_some_and(|report| report.complete);
        if !complete && !waits {
            let open: Vec<_> = self.reports.last.iter().flat_map(|report| &report.pods).collect();
            let what = format!("the last report is not complete: {open:?}");
            self.wrong(4, what);
        }
    }
}
