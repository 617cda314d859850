//! What a report must be: there in time, complete and true.

use crate::pen::{DEADLINE, Pen, engine, entry, ms, web};
use evacuation::report::{DepartureOutcome, StateOutcome};

/// One pod that left, to speak of.
fn left() -> Pen {
    let mut pen = Pen::cordoned(&[web("a")]);
    pen.evicts("a");
    pen.done("evict", 2_200);
    pen
}

#[test]
fn a_report_of_what_happened_is_no_violation() {
    let mut pen = left();
    pen.report(|report| report.pods.push(entry("a")));
    pen.woke(DEADLINE + 80_000);
    pen.is_good();
}

#[test]
fn a_report_that_is_not_written_by_the_deadline_is_a_violation_of_guarantee_4() {
    let mut pen = left();
    pen.woke(DEADLINE);
    pen.is_good();
    pen.woke(DEADLINE + 1);
    pen.breaks(4, "no report was written by the deadline 117000 ms");
}

#[test]
fn an_early_report_that_is_not_brought_to_an_end_is_a_violation_of_guarantee_4() {
    let mut pen = left();
    pen.woke(DEADLINE - 1_500);
    let mut waiting = entry("a");
    waiting.departure = DepartureOutcome::Leaving;
    pen.report(|report| (report.complete, report.pods) = (false, vec![waiting.clone()]));
    pen.woke(DEADLINE + 1_600);
    pen.is_good();
    pen.woke(DEADLINE + 1_601);
    pen.breaks(4, "no report was written at the deadline");
    pen.steps.pop();
    pen.report(|report| (report.complete, report.pods) = (false, vec![waiting]));
    pen.woke(DEADLINE + 59_999);
    pen.is_good();
    pen.woke(DEADLINE + 60_000);
    pen.breaks(4, "the last report is not complete");
}

#[test]
fn a_pod_that_is_undecided_at_the_deadline_is_a_violation_of_guarantee_4() {
    let mut pen = left();
    pen.woke(DEADLINE);
    let mut waiting = entry("a");
    waiting.departure = DepartureOutcome::Pending;
    pen.report(|report| (report.complete, report.pods) = (false, vec![waiting]));
    pen.breaks(4, "says of ns/a (a): undecided at the deadline");
}

#[test]
fn a_complete_report_with_something_open_is_a_violation_of_guarantee_4() {
    let mut pen = left();
    let mut waiting = entry("a");
    waiting.state = StateOutcome::Pending;
    pen.report(|report| report.pods.push(waiting));
    pen.breaks(4, "undecided in a complete report");
}

#[test]
fn an_end_without_a_reason_is_a_violation_of_guarantee_4() {
    for departure in [DepartureOutcome::Abandoned, DepartureOutcome::DeletedAtCutOff] {
        let mut pen = left();
        pen.report(|report| {
            report.pods.push(entry("a"));
            report.pods[0].departure = departure;
        });
        pen.breaks(4, "given up or deleted without a reason");
    }
    let mut pen = left();
    pen.report(|report| {
        report.pods.push(entry("a"));
        report.pods[0].state = StateOutcome::Lost;
    });
    pen.breaks(4, "lost without a reason");
}

#[test]
fn a_report_without_an_evacuation_is_a_violation_of_guarantee_4() {
    let mut pen = Pen::new(evacuation::policy::Policy::default(), &[]);
    pen.report(|_| {});
    pen.breaks(4, "a report is written without an evacuation");
}

#[test]
fn a_pod_that_was_evicted_and_is_not_in_the_report_is_a_violation_of_guarantee_2() {
    let mut pen = left();
    pen.report(|_| {});
    pen.breaks(2, "the report does not speak of ns/a (a)");
}

#[test]
fn a_generation_that_nobody_committed_is_a_violation_of_guarantee_5() {
    for state in [StateOutcome::Saved, StateOutcome::Partial, StateOutcome::Earlier] {
        let told = |generation: &str| {
            let mut pen = Pen::cordoned(&[engine("gold")]);
            pen.committed("gold", 3_000);
            pen.report(|report| {
                report.pods.push(entry("gold"));
                report.pods[0].state = state;
                report.pods[0].generation = Some(generation.into());
            });
            pen
        };
        told("gold/1-1").is_good();
        told("gold/1-2").breaks(5, "says of ns/gold (gold): a generation that is not in the store");
    }
}

#[test]
fn a_part_that_is_reported_as_the_whole_is_a_violation_of_guarantee_5() {
    let told = |state| {
        let mut pen = Pen::cordoned(&[engine("gold")]);
        pen.saved("gold", 3_000, Some("a file that grew"));
        pen.commits("gold", true);
        pen.generation("gold", 3_100);
        pen.report(|report| {
            report.pods.push(entry("gold"));
            report.pods[0].state = state;
            report.pods[0].generation = Some("gold/1-1".into());
        });
        pen
    };
    told(StateOutcome::Partial).is_good();
    told(StateOutcome::Saved).breaks(5, "whole, although its commit is partial");
}

#[test]
fn a_report_with_another_deadline_is_a_violation_of_guarantee_7() {
    let mut pen = left();
    pen.report(|report| {
        report.pods.push(entry("a"));
        report.deadline = ms(DEADLINE + 1);
    });
    pen.breaks(7, "the report's deadline is 117001 ms, not 117000 ms");
}
