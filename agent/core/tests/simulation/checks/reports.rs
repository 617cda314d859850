//! The report: in time, whatever happened; complete in the end; and true.

use super::Checks;
use crate::store::Store;
use evacuation::report::{DepartureOutcome, Report, StateOutcome};

impl Checks {
    pub(super) fn reports(&mut self, now: u64, report: &Report, store: &Store) {
        let Some(evacuation) = self.notices.evacuation.clone() else {
            return self.wrong("a report without an evacuation");
        };
        if report.deadline.as_millis() != evacuation.deadline {
            self.wrong(format!("a report with another deadline: {:?}", report.deadline));
        }
        self.reported_in_time |= now <= evacuation.deadline;
        let mut wrong = Vec::new();
        for pod in &report.pods {
            let mut say = |what: &str| wrong.push(format!("the report at {now} says of {}: {what}", pod.uid));
            let reason = pod.reason.as_deref().unwrap_or("");
            if matches!(pod.departure, DepartureOutcome::Abandoned | DepartureOutcome::LetGo)
                && reason.is_empty()
            {
                say("given up or let go without a reason");
            }
            let why = pod.state_reason.as_deref().unwrap_or("");
            if pod.state == StateOutcome::Lost && why.is_empty() {
                say("lost without a reason");
            }
            let stored =
                pod.generation.as_deref().is_some_and(|generation| store.holds(&pod.uid, generation));
            let claims =
                matches!(pod.state, StateOutcome::Saved | StateOutcome::Partial | StateOutcome::Earlier);
            if claims && !stored {
                say("a generation that is not in the store");
            }
            if pod.departure == DepartureOutcome::Pending
                && now >= evacuation.deadline
                && !evacuation.hibernates
            {
                say("undecided at the deadline");
            }
            if report.complete
                && (pod.departure == DepartureOutcome::Pending || pod.state == StateOutcome::Pending)
            {
                say("undecided in a complete report");
            }
        }
        for (uid, pod) in &self.pods {
            if (pod.asked || pod.announced) && !report.pods.iter().any(|entry| entry.uid == *uid) {
                wrong.push(format!("the report at {now} does not speak of {uid}"));
            }
        }
        self.violations.extend(wrong);
        self.report = Some(report.clone());
    }

    /// One report by the deadline, and one that says how it ended at it.
    pub(super) fn reports_due(&mut self, now: u64) {
        let Some(evacuation) = self.notices.evacuation.clone() else { return };
        let deadline = evacuation.deadline;
        // A moment to read the pods after a start.
        let settled = self.life_began + 3_000;
        if now > deadline && settled < deadline && !self.reported_in_time {
            self.wrong(format!("no report was written by the deadline {deadline}"));
        }
        let last = self.report.as_ref();
        let told = last.is_some_and(|report| report.complete || report.written.as_millis() >= deadline);
        if now > deadline.max(settled) + 1_600 && !told {
            self.wrong(format!("no report was written at the deadline {deadline}, and it is {now}"));
        }
    }

    pub(super) fn final_report(&mut self, now: u64) {
        let Some(evacuation) = self.notices.evacuation.clone() else { return };
        let cordoned = self.cordoned || self.forbidden;
        if now < evacuation.deadline + 60_000 || !cordoned {
            return;
        }
        let waits: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.facts.terminating.is_some() && !pod.gone)
            .map(|(uid, _)| uid.clone())
            .collect();
        let complete = self.report.as_ref().is_some_and(|report| report.complete);
        if !complete && waits.is_empty() {
            let open: Vec<_> = self.report.iter().flat_map(|report| &report.pods).collect();
            self.wrong(format!("the last report is not complete at {now}: {open:#?}"));
        }
    }
}
