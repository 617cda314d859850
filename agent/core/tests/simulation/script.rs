//! What happens on its own at set moments: notices, other drainers, crashes. Made of the scenario's
//! faults before the run begins.

use crate::scenario::Scenario;
use evacuation::notice::{InstanceAction, NoticeKind};

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
    /// IMDS no longer shows what it showed of this kind.
    Hide(NoticeKind),
    Delete(String),
    Finish(String),
    RestartEngine(String),
    Uncordon,
    Kill,
    Boot,
    Rate(u64),
}

/// The moments, which faults made them, and when the run is over.
pub struct Plan {
    pub moments: Vec<(u64, Script, &'static str)>,
    pub end: u64,
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Lays a scenario out in time.
pub fn plan(scenario: &Scenario, start: u64) -> Plan {
    let at = start + scenario.notice_after;
    let has = |kind: &str| scenario.faults.iter().any(|fault| fault.kind == kind);
    let undo = scenario.policy.undo_after.as_millis();
    let mut moments = Vec::new();
    let mut end = at + scenario.window + 75_000;
    let action = if has("kind=hibernate") {
        InstanceAction::Hibernate
    } else if has("kind=stop") || has("node=boots") {
        InstanceAction::Stop
    } else {
        InstanceAction::Terminate
    };
    let main = NoticeKind::Interruption(action);
    let mut ends = signed(at + scenario.window);
    for fault in &scenario.faults {
        match fault.kind {
            "notice=late" => ends = signed(at + fault.argument.unwrap_or(0)),
            "notice=past" => ends = signed(at) - signed(fault.argument.unwrap_or(0)),
            _ => {}
        }
    }
    let quiet = has("rebalance=only") || has("maintenance=cancelled") || has("maintenance=far");
    if !quiet && !has("maintenance=near") {
        moments.push((at, Script::Show { kind: main, id: "n-1".into(), ends }, "notice"));
    }
    for (index, actor) in scenario.actors.iter().enumerate() {
        if let Some(after) = actor.appears {
            moments.push((start + after, Script::Appear(index), "pod=appears"));
            end = end.max(start + after + scenario.policy.restore_timeout.as_millis() + 15_000);
        }
    }
    for fault in &scenario.faults {
        let when = at + fault.at;
        let pod = fault.object.clone().unwrap_or_default();
        let span = fault.argument.unwrap_or(0);
        let mut push = |when: u64, script: Script| moments.push((when, script, fault.kind));
        match fault.kind {
            "notice=late" | "notice=past" | "kind=stop" | "kind=hibernate" => push(at, Script::Repeat),
            "notice=repeated" => (1..6).for_each(|n| push(at + n * 700, Script::Repeat)),
            "notice=moving" if !quiet => {
                for n in 1..12 {
                    let (id, ends) = (format!("moving-{n}"), ends + signed(n * 5_000));
                    push(at + n * 5_000, Script::Show { kind: main, id, ends });
                }
            }
            "notice=nearer" if !quiet => {
                let ends = signed(when + span);
                push(when, Script::Show { kind: main, id: "nearer".into(), ends });
                end = end.max(when + span + 75_000);
            }
            "notice=withdrawn" if !quiet => {
                push(when, Script::Hide(main));
                end = end.max(when + undo + 20_000);
            }
            "notice=again" if !quiet => {
                let hidden = scenario.faults.iter().find(|other| other.kind == "notice=withdrawn");
                if let Some(hidden) = hidden {
                    let when = at + hidden.at + 500 + fault.at;
                    let same = fault.at % 2 == 0;
                    let id = if same { "n-1".into() } else { "n-again".to_owned() };
                    let ends = if same { ends } else { signed(when + scenario.window) };
                    push(when, Script::Show { kind: main, id, ends });
                    end = end.max(when + scenario.window + 75_000);
                }
            }
            "rebalance=first" => {
                let when = at.saturating_sub(span).max(start + 100);
                let kind = NoticeKind::Rebalance;
                push(when, Script::Show { kind, id: "r-1".into(), ends: signed(when) });
                // IMDS goes on showing it.
                push(when + 1_500, Script::Repeat);
            }
            "rebalance=only" => {
                let kind = NoticeKind::Rebalance;
                push(at, Script::Show { kind, id: "r-2".into(), ends: signed(at) });
                push(at + undo + 8_000, Script::Repeat);
                end = end.max(at + undo + 20_000);
            }
            "maintenance=far" | "maintenance=near" => {
                let kind = NoticeKind::Maintenance;
                push(at, Script::Show { kind, id: "m-1".into(), ends: signed(at + span) });
                end = end.max(at + span + 75_000);
            }
            "maintenance=cancelled" => {
                let kind = NoticeKind::Maintenance;
                let ends = signed(at + 200_000);
                push(at, Script::Show { kind, id: "m-2".into(), ends });
                push(when + 1_000, Script::Hide(kind));
                end = end.max(when + undo + 20_000);
            }
            "agent=kill" => push(when, Script::Kill),
            "drainer=delete" => push(when.saturating_sub(8_000).max(start + 500), Script::Delete(pod)),
            "pod=finishes" => push(when, Script::Finish(pod)),
            "engine=restarts" => push(when, Script::RestartEngine(pod)),
            "node=uncordoned" => push(when, Script::Uncordon),
            "node=boots" if !quiet => {
                let when = at + scenario.window + 15_000;
                push(when, Script::Boot);
                end = end.max(when + 40_000);
            }
            "link=changes" => push(when, Script::Rate(span / 1000)),
            _ => {}
        }
    }
    Plan { moments, end }
}
