//! The end of a drill on paper: the timeline, the verdict's table, or both as one JSON document.

use super::cast::CAST;
use super::chronicle::Happening;
use super::observation::Observation;
use super::progress::stamp;
use super::trail::Trail;
use super::verdict::{Check, held};
use crate::cast::Place;

use evacuation::moment::Moment;
use serde_json::{Value, json};
use std::fmt::Write;

/// How wide a pod's bar is.
const BAR: usize = 60;

/// The text that ends a drill.
pub fn text(observation: &Observation, story: &[Happening], checks: &[Check]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\nTimeline (T = the notice appears)");
    for happening in story.iter().filter(|happening| happening.at >= observation.shown) {
        let at = stamp(happening.at, Some(observation.shown));
        let _ = writeln!(text, "  {at}  {:<24} {}", happening.subject, happening.what);
    }
    let _ = writeln!(text, "\nPods");
    bars(observation, &mut text);
    let _ = writeln!(text, "\nVerdict");
    for check in checks {
        let Check { guarantee, what, finding } = check;
        let _ = writeln!(text, "  {guarantee:>2}  {:<9} {what}: {}", finding.word(), finding.evidence());
    }
    let broken = checks.iter().filter(|check| check.finding.is_broken()).count();
    let outcome = match broken {
        0 => "Every guarantee held.".to_owned(),
        1 => "One guarantee was BROKEN.".to_owned(),
        n => format!("{n} guarantees were BROKEN."),
    };
    let spent = (observation.ended.as_millis() - observation.shown.as_millis()) as f64 / 1000.0;
    let _ = writeln!(text, "\n{outcome} {spent:.1} s after the notice.");
    text
}

/// One bar for each pod that leaves or arrives.
fn bars(observation: &Observation, text: &mut String) {
    let begin = observation.shown;
    let end = observation.ended.max(begin + evacuation::moment::Span::from_secs(1));
    let column = |at: Moment| {
        let whole = end.since(begin).as_millis().max(1);
        ((at.since(begin).as_millis() * BAR as u64 / whole) as usize).min(BAR - 1)
    };
    let _ = writeln!(
        text,
        "  {:<26} = serves   ~ terminating, engine runs   r restores   F flush   C commit   {:.1} s",
        "",
        end.since(begin).as_millis() as f64 / 1000.0
    );
    let mut trails: Vec<&Trail> = observation.trails.iter().collect();
    trails.sort_by_key(|trail| {
        let rank = CAST.iter().position(|member| member.name == trail.member).unwrap_or(CAST.len());
        (rank, trail.place == Place::Replacement, trail.started)
    });
    for trail in trails {
        let mut bar = [' '; BAR];
        let mut paint = |from: Option<Moment>, to: Option<Moment>, mark: char| {
            let Some(from) = from else { return };
            let to = to.unwrap_or(end);
            for cell in &mut bar[column(from)..=column(to).max(column(from))] {
                *cell = mark;
            }
        };
        match trail.place {
            Place::Source => {
                paint(trail.started, trail.terminating, '=');
                paint(
                    trail.terminating,
                    trail.gone.or(Some(end)).filter(|_| trail.terminating.is_some()),
                    '~',
                );
                for flush in &trail.flushes {
                    paint(Some(flush.at), Some(flush.at), 'F');
                }
                let committed = observation.committed(&trail.uid);
                paint(committed, committed, 'C');
            }
            Place::Replacement => {
                paint(trail.started, trail.ready, 'r');
                paint(trail.ready, None, '=');
            }
        }
        let bar: String = bar.iter().collect();
        let _ = writeln!(text, "  {:<26}|{bar}|", trail.pod);
    }
}

/// The document that `--output json` prints.
pub fn document(observation: &Observation, story: &[Happening], checks: &[Check]) -> Value {
    let since = |at: Moment| (at.as_millis() as i64 - observation.shown.as_millis() as i64) as f64 / 1000.0;
    let timeline: Vec<Value> = story
        .iter()
        .map(|one| json!({"t": since(one.at), "subject": one.subject, "what": one.what, "trouble": one.trouble}))
        .collect();
    json!({
        "verdict": if held(checks) { "held" } else { "broken" },
        "faults": observation.scene.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "deadline": since(observation.deadline()),
        "times_up": since(observation.times_up),
        "ended": since(observation.ended),
        "checks": checks,
        "timeline": timeline,
        "pods": observation.trails,
        "report": observation.report().map(|(report, _)| report),
        "store": observation.store,
        "requests": observation.requests.len(),
        "agents": {"node-a": observation.source_lives, "node-b": observation.target_lives},
    })
}
