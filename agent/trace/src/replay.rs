//! One life once more: its events, told to a fresh core under its policy, lead to the effects that are written.
//!
//! Decides whether they are the same, byte for byte of their JSON. It must not know what any of them means.

use crate::lives::Life;
use evacuation::Machine;
use evacuation::effect::Effect;
use evacuation::event::Event;
use evacuation::moment::Moment;
use serde_json::{Value, json};
use std::fmt;

/// How a replay ended.
#[derive(Debug)]
pub enum Replayed {
    /// Every effect is the same.
    Same {
        /// Events that were handled.
        events: usize,
        /// Effects that were asked for.
        effects: usize,
        /// Of the last event, so many effects are not written: the agent was killed before.
        unwritten: usize,
    },
    /// They part here.
    Differs(Box<Difference>),
    /// It cannot be replayed.
    Impossible(&'static str),
}

/// The first difference.
#[derive(Debug)]
pub struct Difference {
    /// The event after which it is, counted from one.
    number: usize,
    at: Moment,
    event: String,
    /// What is written; `None` where nothing more is.
    wanted: Option<String>,
    /// What the core asks for now.
    got: Option<String>,
}

/// Replays a life.
pub fn replay(life: &Life) -> Replayed {
    if !life.is_whole() {
        return Replayed::Impossible("its beginning is missing");
    }
    let Some(head) = &life.head else {
        return Replayed::Impossible("its policy was not written: it is of an older version of lifeboat");
    };
    let mut machine = Machine::new(head.policy.clone());
    let (mut count, mut unwritten) = (0, 0);
    for (number, step) in (1..).zip(&life.steps) {
        let got = machine.handle(step.at, step.event.clone());
        count += step.effects.len();
        let parts = (0..got.len().max(step.effects.len()))
            .map(|index| (step.effects.get(index).map(json_of), got.get(index).map(json_of)))
            .find(|(wanted, got)| wanted != got);
        let Some((wanted, next)) = parts else { continue };
        if number == life.steps.len() && wanted.is_none() {
            unwritten = got.len() - step.effects.len();
            continue;
        }
        let event = event_json(&step.event);
        return Replayed::Differs(Box::new(Difference { number, at: step.at, event, wanted, got: next }));
    }
    Replayed::Same { events: life.steps.len(), effects: count, unwritten }
}

fn json_of(effect: &Effect) -> String {
    serde_json::to_string(effect).unwrap_or_default()
}

fn event_json(event: &Event) -> String {
    serde_json::to_string(event).unwrap_or_default()
}

impl Replayed {
    /// The same for programs.
    pub fn document(&self) -> Value {
        match self {
            Replayed::Same { events, effects, unwritten } => {
                json!({"same": true, "events": events, "effects": effects, "unwritten": unwritten})
            }
            Replayed::Differs(difference) => json!({"same": false, "difference": {
                "number": difference.number,
                "at": difference.at,
                "event": difference.event,
                "wanted": difference.wanted,
                "got": difference.got,
            }}),
            Replayed::Impossible(why) => json!({"same": null, "why": why}),
        }
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Replayed::Same { events, effects, unwritten } => {
                write!(f, "{events} events, {effects} effects: the same")?;
                match unwritten {
                    0 => Ok(()),
                    n => write!(
                        f,
                        "; {n} effects of the last event were not written before the agent was killed"
                    ),
                }
            }
            Replayed::Differs(difference) => {
                let Difference { number, at, event, wanted, got } = &**difference;
                let nothing = "nothing more";
                writeln!(f, "event {number}, {} ms after boot, differs: {event}", at.as_millis())?;
                writeln!(f, "  wanted {}", wanted.as_deref().unwrap_or(nothing))?;
                write!(f, "  got    {}", got.as_deref().unwrap_or(nothing))
            }
            Replayed::Impossible(why) => write!(f, "cannot be replayed: {why}"),
        }
    }
}
