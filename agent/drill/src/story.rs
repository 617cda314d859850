//! The agents' journals among everything else that happens in a drill, in the words of `lifeboat timeline`.

use super::chronicle::{Chronicle, Happening};
use super::observation::{Observation, SOURCE, TARGET};
use evacuation::moment::Moment;
use trace::timeline::{ANOMALY, Timeline, TimelineLine};

/// What a node's agent has just begun or been answered.
pub fn news(node: &str, line: &TimelineLine, at: Moment, zero: Moment) -> Happening {
    // An answer that comes again is no new trouble.
    let trouble = line.answers.last().is_some_and(|answer| answer.trouble && answer.times == 1);
    Happening { at, trouble: trouble || is_anomaly(line), ..happening(node, line, zero) }
}

/// Everything that happened, oldest first.
pub fn whole(chronicle: &Chronicle, observation: &Observation) -> Vec<Happening> {
    let zero = observation.shown;
    let mut story = chronicle.all();
    for (node, recording) in [(SOURCE, &observation.source), (TARGET, &observation.target)] {
        for life in &recording.lives {
            let lines = Timeline::since(zero, "the notice appears", &life.steps).lines;
            story.extend(lines.iter().map(|line| happening(node, line, zero)));
        }
    }
    story.sort_by_key(|happening| happening.at);
    story
}

fn happening(node: &str, line: &TimelineLine, zero: Moment) -> Happening {
    let subject = match line.subject.as_str() {
        "node" => node.to_owned(),
        heard @ ("notice" | "link" | "drill") => format!("{node} {heard}"),
        pod => pod.to_owned(),
    };
    let trouble = is_anomaly(line) || line.answers.iter().any(|answer| answer.trouble);
    Happening { at: line.at, subject, what: line.sentence(zero), trouble }
}

fn is_anomaly(line: &TimelineLine) -> bool {
    line.what.starts_with(ANOMALY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::effect::{Action, Effect, EffectId, PodAction};
    use evacuation::event::{Event, FailureKind, Outcome};
    use evacuation::pod::PodUid;
    use trace::journal::{Line, What};
    use trace::timeline::Teller;

    #[test]
    fn a_refusal_is_trouble_when_it_comes_first_and_an_anomaly_always() {
        let at = Moment::from_millis(1);
        let mut teller = Teller::default();
        let mut told = |what| {
            let lines = teller.tell(&Line { at, what }, at);
            lines.iter().map(|line| news("node-a", line, at, at)).collect::<Vec<_>>()
        };
        let ask =
            |id, attempt, action| What::Effect(Effect { id: EffectId(id), deadline: at, attempt, action });
        let evict = || Action::Pod {
            uid: PodUid("web".into()),
            action: PodAction::Evict { grace: Default::default() },
        };
        let why = "a budget".to_owned();
        let refused = Outcome::Failed { kind: FailureKind::Refused, why };
        let answer = |id| What::Event(Event::Answered { id: EffectId(id), outcome: refused.clone() });
        assert!(told(ask(1, 1, evict()))[0].what.ends_with("no answer yet"));
        assert!(told(answer(1))[0].trouble);
        told(ask(2, 2, evict()));
        let again = told(answer(2));
        assert!(!again[0].trouble && again[0].what.contains("a budget, 2 times"), "{again:?}");
        assert!(told(answer(2)).is_empty(), "answered once");
        let anomaly = told(ask(3, 1, Action::Anomaly { what: "odd".into() }));
        assert!(anomaly[0].trouble && anomaly[0].subject == "node-a", "{anomaly:?}");
    }
}
