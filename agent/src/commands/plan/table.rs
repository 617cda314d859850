//! A plan for people.

use crate::commands::page::{Page, size};
use evacuation::facts::{Facts, announced};
use evacuation::moment::Span;
use evacuation::plan::{Fate, Plan, PodPlan, Way};

/// Draws it.
pub(super) fn draw(page: &mut Page, facts: &Facts, plan: &Plan, source: &str) {
    let notice = match facts.notice {
        Some(kind) => format!("{} notice, {} left", kind.as_str(), seconds(plan.window)),
        None => format!("none; if one came now, {} would be left", seconds(plan.window)),
    };
    let link = plan.link.map_or("never measured".to_owned(), |rate| format!("{}/s", size(rate)));
    page.facts(&[
        ("node", plan.node.clone()),
        ("facts", source.to_owned()),
        ("notice", notice),
        ("announced", announced(facts)),
        ("uplink", link),
        ("headroom", headroom(plan)),
        ("state", state(plan)),
    ]);
    page.line("");
    let rows: Vec<Vec<String>> = plan.pods.iter().map(row).collect();
    page.table(&["POD", ">PRIORITY", "LEAVES", ">STATE", "SAVED", "WHY"], &rows);
    page.line("");
    match &plan.advice {
        Some(advice) => {
            page.line(&format!("What would help most: {} ({}).", advice.what, advice.pods.join(", ")))
        }
        None if plan.at_risk > 0 => page.line("No single change would make more of it safe."),
        None => {}
    }
}

fn headroom(plan: &Plan) -> String {
    let Some(ms) = plan.headroom else {
        return match (plan.pods.iter().any(|pod| pod.state == Fate::Unknown), plan.link) {
            (true, None) => {
                "unknown: the uplink was never measured; give --link-rate to see what would be".into()
            }
            (true, Some(_)) => "unknown: nobody has looked at the engines".into(),
            (false, _) => "nothing to save".into(),
        };
    };
    let seconds = ms as f64 / 1000.0;
    if ms < 0 { format!("{seconds:.1} s: not everything fits") } else { format!("{seconds:.1} s") }
}

fn state(plan: &Plan) -> String {
    let at_risk = match plan.at_risk {
        0 => String::new(),
        bytes => format!(", {} would not", size(bytes)),
    };
    format!("{} would be safe{at_risk}", size(plan.safe))
}

fn row(pod: &PodPlan) -> Vec<String> {
    let at = |span: Option<Span>| span.map_or(String::new(), |span| format!(" at {}", seconds(span)));
    let leaves = match pod.leaves {
        Way::Shed => "at once, shed".to_owned(),
        Way::AtOnce => "at once".to_owned(),
        Way::Held => "at once, held".to_owned(),
        Way::AfterSave => format!("saved{}", at(pod.evicted)),
        Way::Late => format!("late{}", at(pod.evicted)),
        Way::Terminating => "terminating".to_owned(),
        Way::Stays => "stays".to_owned(),
    };
    let saved = match (pod.state, pod.saved) {
        (Fate::None, _) => "-".to_owned(),
        (Fate::Safe, Some(at)) => format!("T+{}", seconds(at)),
        (Fate::Safe, None) => "yes".to_owned(),
        (Fate::AtRisk, _) => "NO".to_owned(),
        (Fate::Unknown, _) => "?".to_owned(),
    };
    let bytes = match (pod.state, pod.bytes) {
        (Fate::None, _) => "-".to_owned(),
        (_, None) => "?".to_owned(),
        (_, Some(bytes)) if pod.send < bytes && pod.send > 0 => {
            format!("{} of {}", size(pod.send), size(bytes))
        }
        (_, Some(bytes)) => size(bytes),
    };
    let name = match pod.namespace.as_str() {
        "" => pod.name.clone(),
        namespace => format!("{namespace}/{}", pod.name),
    };
    vec![name, pod.priority.to_string(), leaves, bytes, saved, pod.why.clone()]
}

fn seconds(span: Span) -> String {
    format!("{:.1} s", span.as_millis() as f64 / 1000.0)
}
