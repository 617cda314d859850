//! Every guarantee, by the agents' own journals: what the core was told and what it asked for, judged by `plan_check`,
//! which shares nothing with the deciding code.
//!
//! It must not know what the other services saw: the other checks do.

use super::{Finding, unless};
use crate::drill::observation::{Observation, SOURCE, TARGET};
use evacuation::event::Event;
use evacuation::plan_check;

/// Violations that are shown of one journal.
const SHOWN: usize = 3;

/// Both agents' journals, with the policy that the drill gave them.
pub fn keep_every_guarantee(observation: &Observation) -> Finding {
    let policy = observation.scene.policy();
    let mut wrong = Vec::new();
    let mut judged = Vec::new();
    for (node, recording) in [(SOURCE, &observation.source), (TARGET, &observation.target)] {
        let steps = recording.steps();
        let lives = steps.iter().filter(|step| matches!(step.event, Event::Started(_))).count();
        if lives == 0 {
            continue;
        }
        judged.push(format!("{} steps in {lives} lives of {node}", steps.len()));
        let violations = plan_check::check(&policy, &steps);
        wrong.extend(violations.iter().take(SHOWN).map(|violation| format!("{node}: {violation}")));
        if violations.len() > SHOWN {
            wrong.push(format!("{node}: and {} more", violations.len() - SHOWN));
        }
    }
    if judged.is_empty() {
        return Finding::NotApplicable("no agent has a journal".to_owned());
    }
    unless(wrong, || format!("guarantees 1 to 11 over {}", judged.join(", ")))
}
