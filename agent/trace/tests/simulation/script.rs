//! What happens on its own at set moments: notices, other drainers, crashes. Made of the scenario's
//! faults before the run begins.

use crate::scenario::Scenario;
use crate::troubles::millis;
use evacuation::notice::{InstanceAction, NoticeKind};
use fault_plan::Start;

/// One such thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    Appear(usize),
    /// IMDS shows it from now on; `ends` is an absolute time of the run.
    Show {
        kind: NoticeKind,
        id: String,
        ends: i64,
    },
    /// A poll shows it once more.
    Repeat,
    /// IMDS no longer shows it.
    Hide(NoticeKind, String),
    Delete(String),
    Finish(String),
    RestartEngine(String),
    Uncordon,
    Kill,
    Boot,
    /// The instance is hibernated for so many milliseconds.
    Sleep(u64),
    /// Somebody asks for every state to be saved once.
    Copy,
    /// The uplink carries so many bytes per millisecond.
    Rate(u64),
    /// The watch lists anew, from an older cache.
    Relist,
    /// What is the default, spelt out.
    Nothing,
}

/// The moments, which faults made them, and when the run is over.
pub struct Plan {
    pub moments: Vec<(u64, Script, &'static str)>,
    pub end: u64,
}

/// EC2 announces a stop two weeks ahead.
const FORTNIGHT: u64 = 14 * 24 * 3_600_000;

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Lays a scenario out in time.
pub fn plan(scenario: &Scenario, start: u64) -> Plan {
    let at = start + scenario.notice_after;
    let has = |name: &str| scenario.faults.iter().any(|fault| fault.name() == name);
    let undo = scenario.policy.undo_after.as_millis();
    let mut moments = Vec::new();
    let mut end = at + scenario.window + 75_000;
    let action = if has("kind-hibernate") || (has("node-resumes") && scenario.seed.is_multiple_of(2)) {
        InstanceAction::Hibernate
    } else if has("kind-stop") || has("node-boots") {
        InstanceAction::Stop
    } else {
        InstanceAction::Terminate
    };
    let main = if has("kind-drill") { NoticeKind::Drill } else { NoticeKind::Interruption(action) };
    let mut ends = signed(at + scenario.window);
    for fault in &scenario.faults {
        let span = fault.span().map_or(0, millis);
        match fault.name() {
            "notice-late" => ends = signed(at + span),
            "notice-past" => ends = signed(at) - signed(span),
            _ => {}
        }
    }
    let quiet = has("rebalance-only") || has("maintenance-cancelled") || has("maintenance-far");
    if !quiet && !has("maintenance-near") {
        moments.push((at, Script::Show { kind: main, id: "n-1".into(), ends }, "notice"));
    }
    if scenario.copies {
        moments.push((start + (at - start) / 2, Script::Copy, "copy"));
    }
    for (index, actor) in scenario.actors.iter().enumerate() {
        if let Some(after) = actor.appears {
            moments.push((start + after, Script::Appear(index), "appears"));
            end = end.max(start + after + scenario.policy.restore_timeout.as_millis() + 15_000);
        }
    }
    for fault in &scenario.faults {
        let (from, _) = fault.window();
        let when = at + millis(from);
        let pod = fault.object.clone().unwrap_or_default();
        let span = fault.span().map_or(0, millis);
        let mut push = |when: u64, script: Script| moments.push((when, script, fault.name()));
        match fault.name() {
            "notice-late" | "notice-past" | "kind-stop" | "kind-hibernate" | "kind-drill"
            | "kind-terminate" => {
                push(at, Script::Nothing);
            }
            "notice-doubled" => (1..6).for_each(|n| push(at + n * 700, Script::Repeat)),
            "notice-repeated" if !quiet => {
                for n in 1..12 {
                    let (id, ends) = (format!("moving-{n}"), ends + signed(n * 5_000));
                    push(at + n * 5_000, Script::Show { kind: main, id, ends });
                }
            }
            "notice-nearer" if !quiet => {
                let ends = signed(when + span);
                push(when, Script::Show { kind: main, id: "nearer".into(), ends });
                end = end.max(when + span + 75_000);
            }
            "notice-withdrawn" if !quiet => {
                push(when, Script::Hide(main, "n-1".into()));
                end = end.max(when + undo + 20_000);
            }
            "notice-back" | "notice-anew" if !quiet => {
                let hidden = scenario.faults.iter().find(|other| other.name() == "notice-withdrawn");
                if let Some(hidden) = hidden {
                    // Never before it was withdrawn.
                    let when = when.max(at + millis(hidden.window().0) + 500);
                    let same = fault.name() == "notice-back";
                    let id = if same { "n-1".into() } else { "n-anew".to_owned() };
                    let ends = if same { ends } else { signed(when + scenario.window) };
                    push(when, Script::Show { kind: main, id, ends });
                    end = end.max(when + scenario.window + 75_000);
                }
            }
            "rebalance-first" => {
                let when = at.saturating_sub(span).max(start + 100);
                let kind = NoticeKind::Rebalance;
                push(when, Script::Show { kind, id: "r-1".into(), ends: signed(when) });
                // IMDS goes on showing it.
                push(when + 1_500, Script::Repeat);
            }
            "rebalance-only" => {
                let kind = NoticeKind::Rebalance;
                push(at, Script::Show { kind, id: "r-2".into(), ends: signed(at) });
                push(at + undo + 8_000, Script::Repeat);
                end = end.max(at + undo + 20_000);
            }
            "maintenance-far" | "maintenance-near" => {
                let kind = NoticeKind::Maintenance;
                push(at, Script::Show { kind, id: "m-1".into(), ends: signed(at + span) });
                end = end.max(at + span + 75_000);
            }
            "maintenance-also" => {
                // Before or after the notice, and every second time far ahead: what is announced last is not what ends first.
                let kind = NoticeKind::Maintenance;
                let id = format!("also-{span}");
                let when = when.saturating_sub(20_000).max(start + 300);
                let far = span % 2 == 0;
                let ends = if far { when + FORTNIGHT } else { when + span };
                push(when, Script::Show { kind, id: id.clone(), ends: signed(ends) });
                if span % 3 == 0 {
                    push(when + 30_000, Script::Hide(kind, id));
                    end = end.max(when + 30_000 + undo + 20_000);
                } else if !far {
                    end = end.max(ends + 75_000);
                }
            }
            "maintenance-cancelled" => {
                let kind = NoticeKind::Maintenance;
                let ends = signed(at + 200_000);
                push(at, Script::Show { kind, id: "m-2".into(), ends });
                push(when + 1_000, Script::Hide(kind, "m-2".into()));
                end = end.max(when + undo + 20_000);
            }
            "agent-kill" if !matches!(fault.start, Start::Step(_)) => push(when, Script::Kill),
            "drainer-delete" => push(when, Script::Delete(pod)),
            "drainer-first" => push(at.saturating_sub(span).max(start + 500), Script::Delete(pod)),
            "watch-relists" => push(when, Script::Relist),
            "pod-finishes" => push(when, Script::Finish(pod)),
            "engine-restarts" => push(when, Script::RestartEngine(pod)),
            "node-uncordoned" => push(when, Script::Uncordon),
            "node-boots" if !quiet => {
                let when = at + scenario.window + 15_000;
                push(when, Script::Boot);
                end = end.max(when + 40_000);
            }
            "node-resumes" => {
                push(when, Script::Sleep(span));
                end = end.max(when + undo + 60_000);
            }
            "link-changes" => push(when, Script::Rate(fault.rate().unwrap_or(0) / 1000)),
            _ => {}
        }
    }
    Plan { moments, end }
}
