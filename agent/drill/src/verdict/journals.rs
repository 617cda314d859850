//! Every guarantee, by the agents' own journals: what the core was told and what it asked for, judged by `guarantees`,
//! which shares nothing with the deciding code.
//!
//! It must not know what the other services saw: the other checks do.

use super::{Finding, unless};
use crate::observation::{Observation, SOURCE, TARGET};
use evacuation::event::Event;
use trace::guarantees;

/// Violations that are shown of one journal.
const SHOWN: usize = 3;

/// Both agents' journals, with the policy that the drill gave them.
pub fn keep_every_guarantee(observation: &Observation) -> Finding {
    let policy = observation.scene.policy();
    let mut wrong = Vec::new();
    let mut judged = Vec::new();
    for (node, recording) in [(SOURCE, &observation.source), (TARGET, &observation.target)] {
        let steps = recording.steps();
        let lives = steps.clone().filter(|step| matches!(step.event, Event::AgentStarted { .. })).count();
        if lives == 0 {
            continue;
        }
        judged.push(format!("{} steps in {lives} lives of {node}", steps.clone().count()));
        let violations = guarantees::check(&policy, steps);
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

#[cfg(test)]
mod tests {
    use super::super::tests::good;
    use super::*;
    use crate::recording::Recording;
    use evacuation::effect::{Action, Effect, EffectId, PodAction};
    use evacuation::event::NodeFacts;
    use evacuation::moment::{Moment, Span};
    use evacuation::notice::{InstanceAction, Notice, NoticeKind};
    use evacuation::pod::{Owner, PodFacts, PodUid, Role};
    use trace::Step;

    fn step(at: u64, event: Event) -> Step {
        Step { at: Moment::from_millis(at), event, effects: Vec::new() }
    }

    /// A node with one pod under a notice.
    fn noticed() -> Vec<Step> {
        let node = NodeFacts {
            name: SOURCE.into(),
            unschedulable: false,
            tainted: false,
            active_notice: None,
            over: Vec::new(),
        };
        let pod = PodFacts {
            uid: PodUid("uid-1".into()),
            namespace: "default".into(),
            name: "web".into(),
            priority: 0,
            role: Role::Active,
            owner: Owner::Replicated,
            grace: Span::from_secs(30),
            terminating: None,
            running: true,
            engine: None,
            restore_decided: true,
            restarts: 0,
        };
        let kind = NoticeKind::Interruption(InstanceAction::Terminate);
        let notice =
            Notice { kind, id: "n".into(), seen: Moment::from_millis(2_000), left_ms: 30_000, event: None };
        vec![
            step(1_000, Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO }),
            step(1_000, Event::NodeRead(node)),
            step(1_000, Event::PodUpdated(Box::new(pod))),
            step(1_000, Event::PodsListed),
            step(2_000, Event::NoticeReceived(notice)),
        ]
    }

    #[test]
    fn a_journal_in_which_a_pod_is_evicted_before_the_cordon_breaks_a_drill() {
        let mut observation = good();
        assert!(matches!(keep_every_guarantee(&observation), Finding::NotApplicable(_)));
        let mut steps = noticed();
        observation.source = Recording::of(steps.clone());
        let found = keep_every_guarantee(&observation);
        assert_eq!(found, Finding::Held("guarantees 1 to 11 over 5 steps in 1 lives of node-a".into()));
        let at = Moment::from_millis(2_000);
        let action = Action::Pod {
            uid: PodUid("uid-1".into()),
            action: PodAction::Evict { grace: Span::from_secs(5) },
        };
        let effect = Effect { id: EffectId(1), deadline: at + Span::from_secs(3), attempt: 1, action };
        steps[4].effects.push(effect);
        observation.source = Recording::of(steps);
        let found = keep_every_guarantee(&observation);
        assert!(found.is_broken(), "{found:?}");
        assert!(found.evidence().starts_with("node-a: guarantee 1: at 2000 ms"), "{found:?}");
    }
}
