//! An agent's journal, read back while it is written, with an answer found for each effect.

use evacuation::effect::{Action, Effect, EffectId};
use evacuation::event::{Event, Outcome};
use evacuation::moment::Moment;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use trace::Step;
use trace::journal::Line;
use trace::lives::Life;

/// Follows a journal that is being written.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    /// A line whose end is not written yet.
    partial: String,
}

impl Tail {
    /// Begins at the beginning; the file need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, partial: String::new() }
    }

    /// The lines that came since; one that was cut by SIGKILL is passed over.
    pub fn read(&mut self) -> Vec<Line> {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(&self.path)
            && file.seek(SeekFrom::Start(self.offset)).is_ok()
        {
            let mut bytes = Vec::new();
            if file.read_to_end(&mut bytes).is_ok() {
                self.offset += bytes.len() as u64;
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        self.partial.push_str(&text);
        let mut lines = Vec::new();
        while let Some(end) = self.partial.find('\n') {
            let line: String = self.partial.drain(..=end).collect();
            lines.extend(serde_json::from_str::<Line>(&line));
        }
        lines
    }
}

/// A whole journal. Effect ids count within one life of the agent.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The lives of the agent.
    pub lives: Vec<Life>,
}

/// One effect with its answer.
#[derive(Clone, Debug)]
pub struct Answered<'a> {
    /// Its place among all effects.
    pub index: usize,
    /// When it was begun.
    pub at: Moment,
    /// The effect.
    pub effect: &'a Effect,
    /// When and how it was answered; `None` if the agent died first or the journal ends.
    pub answer: Option<(Moment, &'a Outcome)>,
}

impl Answered<'_> {
    /// When it was done; `None` if it was not.
    pub fn done(&self) -> Option<Moment> {
        match self.answer {
            Some((at, Outcome::Done(_))) => Some(at),
            _ => None,
        }
    }
}

impl Recording {
    /// The journal of one life.
    pub fn of(steps: Vec<Step>) -> Self {
        Self { lives: vec![Life { steps, ..Life::default() }] }
    }

    /// Each life by itself.
    pub fn by_life(&self) -> impl Iterator<Item = Recording> {
        self.lives.iter().map(|life| Recording::of(life.steps.clone()))
    }

    /// Each event with the effects that it led to.
    pub fn steps(&self) -> impl Iterator<Item = &Step> + Clone {
        self.lives.iter().flat_map(|life| &life.steps)
    }

    /// Every effect, in the order of the journal.
    pub fn effects(&self) -> impl Iterator<Item = Answered<'_>> {
        let steps = self.lives.iter().flat_map(|life| (1..).zip(&life.steps).map(move |step| (life, step)));
        let effects = steps.flat_map(|(life, (next, step))| {
            step.effects.iter().map(move |effect| (step.at, effect, answer(&life.steps[next..], effect.id)))
        });
        effects.enumerate().map(|(index, (at, effect, answer))| Answered { index, at, effect, answer })
    }

    /// Every effect on this pod.
    pub fn of_pod<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = Answered<'a>> {
        self.effects().filter(move |answered| answered.effect.action.pod().is_some_and(|pod| pod.0 == uid))
    }

    /// The effects on this pod that `is` picks.
    pub fn picked<'a>(&'a self, uid: &'a str, is: fn(&Action) -> bool) -> impl Iterator<Item = Answered<'a>> {
        self.of_pod(uid).filter(move |answered| is(&answered.effect.action))
    }
}

fn answer(steps: &[Step], wanted: EffectId) -> Option<(Moment, &Outcome)> {
    steps.iter().find_map(|step| match &step.event {
        Event::Answered { id, outcome } if *id == wanted => Some((step.at, outcome)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::effect::PodAction;
    use evacuation::event::Done;
    use evacuation::pod::PodUid;
    use std::io::Write;
    use trace::journal::What;
    use trace::lives;

    #[test]
    fn a_journal_is_followed_while_it_is_written_and_a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut tail = Tail::new(&path);
        assert!(tail.read().is_empty());
        let mut file = std::fs::File::create(&path).unwrap();
        write!(file, "{{\"at\":5,\"event\":\"timer_fired\"}}\n{{\"at\":6,\"eve").unwrap();
        assert_eq!(tail.read().len(), 1);
        write!(file, "nt\":\"timer_fired\"}}\n{{\"at\":7,\"ev\n{{\"at\":8,\"event\":\"timer_fired\"}}\n")
            .unwrap();
        let at: Vec<_> = tail.read().iter().map(|line| line.at.as_millis()).collect();
        assert_eq!(at, [6, 8]);
    }

    #[test]
    fn an_answer_belongs_to_the_effect_of_its_own_life() {
        let effect = Effect {
            id: EffectId(1),
            deadline: Moment::from_millis(99),
            attempt: 1,
            action: Action::Pod { uid: PodUid("u".into()), action: PodAction::InspectEngine },
        };
        let done = Event::Answered { id: EffectId(1), outcome: Outcome::Done(Done::Nothing) };
        let lines = [
            (1, What::Event(Event::TimerFired)),
            (1, What::Effect(effect.clone())),
            (2, What::Event(Event::AgentStarted { boot: "b".into(), slept: evacuation::moment::Span::ZERO })),
            (2, What::Effect(effect)),
            (4, What::Event(done)),
        ];
        let mut recording = Recording::default();
        for (at, what) in lines {
            lives::add(&mut recording.lives, Line { at: Moment::from_millis(at), what }).unwrap();
        }
        let answers: Vec<_> = recording.of_pod("u").map(|answered| answered.done()).collect();
        assert_eq!(answers, [None, Some(Moment::from_millis(4))]);
    }
}
