//! An agent's journal, read back: the same types that it was written with.

use evacuation::effect::{Action, Effect, EffectId};
use evacuation::event::{Event, Outcome};
use evacuation::moment::Moment;
use serde::{Deserialize, Serialize};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use trace::Step;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, on the boot clock.
    pub at: Moment,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// What was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// Follows a journal that is being written.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    /// A line whose end is not written yet.
    partial: String,
    /// Lines that could not be read: a line cut by SIGKILL is one.
    pub unreadable: u32,
}

impl Tail {
    /// Begins at the beginning; the file need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, partial: String::new(), unreadable: 0 }
    }

    /// The lines that came since.
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
            match serde_json::from_str(line.trim()) {
                Ok(line) => lines.push(line),
                Err(_) if line.trim().is_empty() => {}
                Err(_) => self.unreadable += 1,
            }
        }
        lines
    }
}

/// A whole journal, with answers found for effects. Effect ids count within one life of the agent.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Every line.
    pub lines: Vec<Line>,
}

/// One effect with its answer.
#[derive(Clone, Debug)]
pub struct Answered<'a> {
    /// Its place in the journal.
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
    /// The journal of each life of the agent by itself.
    pub fn lives(&self) -> Vec<Recording> {
        let mut lives: Vec<Recording> = vec![Recording::default()];
        for line in &self.lines {
            if matches!(line.event, Some(Event::Started(_))) {
                lives.push(Recording::default());
            }
            if let Some(life) = lives.last_mut() {
                life.lines.push(line.clone());
            }
        }
        lives
    }

    /// Each event with the effects that it led to. Effects whose event is not in the journal are left out.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in &self.lines {
            if let Some(event) = &line.event {
                steps.push(Step { at: line.at, event: event.clone(), effects: Vec::new() });
            }
            if let (Some(effect), Some(step)) = (&line.effect, steps.last_mut()) {
                step.effects.push(effect.clone());
            }
        }
        steps
    }

    /// Every effect, in the order of the journal.
    pub fn effects(&self) -> impl Iterator<Item = Answered<'_>> {
        self.lines.iter().enumerate().filter_map(|(index, line)| {
            let effect = line.effect.as_ref()?;
            Some(Answered { index, at: line.at, effect, answer: self.answer(index, effect.id) })
        })
    }

    /// Every effect on this pod.
    pub fn of_pod<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = Answered<'a>> {
        self.effects().filter(move |answered| answered.effect.action.pod().is_some_and(|pod| pod.0 == uid))
    }

    /// The effects on this pod that `is` picks.
    pub fn picked<'a>(&'a self, uid: &'a str, is: fn(&Action) -> bool) -> impl Iterator<Item = Answered<'a>> {
        self.of_pod(uid).filter(move |answered| is(&answered.effect.action))
    }

    fn answer(&self, index: usize, wanted: EffectId) -> Option<(Moment, &Outcome)> {
        for line in &self.lines[index + 1..] {
            match &line.event {
                Some(Event::Started(_)) => return None,
                Some(Event::Answered { id, outcome }) if *id == wanted => return Some((line.at, outcome)),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::event::Done;
    use evacuation::pod::PodUid;
    use std::io::Write;

    #[test]
    fn a_journal_is_followed_while_it_is_written_and_a_torn_line_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut tail = Tail::new(&path);
        assert!(tail.read().is_empty());
        let mut file = std::fs::File::create(&path).unwrap();
        write!(file, "{{\"at\":5,\"event\":\"timer_fired\"}}\n{{\"at\":6,\"eve").unwrap();
        assert_eq!(tail.read().len(), 1);
        write!(file, "nt\":\"timer_fired\"}}\ntorn{{\n").unwrap();
        assert_eq!(tail.read()[0].at, Moment::from_millis(6));
        assert_eq!(tail.unreadable, 1);
    }

    #[test]
    fn an_answer_belongs_to_the_effect_of_its_own_life() {
        let effect = |at| Line {
            at: Moment::from_millis(at),
            event: None,
            effect: Some(Effect {
                id: EffectId(1),
                deadline: Moment::from_millis(99),
                attempt: 1,
                action: Action::InspectEngine { pod: PodUid("u".into()) },
            }),
        };
        let event = |at, event| Line { at: Moment::from_millis(at), event: Some(event), effect: None };
        let node = evacuation::event::NodeFacts {
            name: "n".into(),
            boot: "b".into(),
            unschedulable: false,
            tainted: false,
            active_notice: None,
        };
        let done = Event::Answered { id: EffectId(1), outcome: Outcome::Done(Done::Nothing) };
        let lines = vec![effect(1), event(2, Event::Started(node)), effect(3), event(4, done)];
        let recording = Recording { lines };
        let answers: Vec<_> = recording.of_pod("u").map(|answered| answered.done()).collect();
        assert_eq!(answers, [None, Some(Moment::from_millis(4))]);
    }
}
