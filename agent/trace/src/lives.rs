//! A journal read back, strictly: the lives in it, each with its policy and its steps.
//!
//! For people and replays. What this version does not know is refused by name, since a replay that leaves it out proves
//! nothing; only what a killed agent leaves (a torn last line, a last step without all its effects) is tolerated, and
//! said. Who follows a journal that is still being written puts the lives together itself, line by line ([`add`]).

use crate::Step;
use crate::journal::{FORMAT, Head, Line, NAME, VERSION, What};
use evacuation::event::Event;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One life of an agent.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Version and policy. `None` where its beginning was rotated away, or was written by a version that kept none.
    pub head: Option<Box<Head>>,
    /// Its events and what they were answered with.
    pub steps: Vec<Step>,
    /// Its last line was cut off: the agent was killed while it wrote.
    pub torn: bool,
}

impl Life {
    /// Nothing of it is missing.
    pub fn is_whole(&self) -> bool {
        self.head.is_some()
            || self.steps.first().is_none_or(|step| matches!(step.event, Event::AgentStarted { .. }))
    }

    /// It ends where an agent that wrote no head starts.
    fn ends_before(&self, event: &Event) -> bool {
        let has_started = || self.steps.iter().any(|step| matches!(step.event, Event::AgentStarted { .. }));
        matches!(event, Event::AgentStarted { .. })
            && !self.steps.is_empty()
            && (self.head.is_none() || has_started())
    }
}

/// Why a journal cannot be read. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum ReadError {
    /// The path does not lead to a journal.
    #[error("{path}: {source}: give a journal, or the folder that the agent got as --state-dir")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// A folder without one.
    #[error(
        "{path}: there is no {NAME} in this folder: give a journal, or the folder that the agent got as --state-dir"
    )]
    Nothing { path: PathBuf },
    /// There is nothing in it.
    #[error("{path}: no event is in this journal: has its agent ever read its node?")]
    Empty { path: PathBuf },
    /// A line that is none, and not the last of a life.
    #[error(
        "{path}, line {line}: not a line of a journal ({why}): restore the file, or cut it off before this line"
    )]
    NoLine { path: PathBuf, line: u64, why: String },
    /// Another format.
    #[error(
        "{path}, line {line}: format {format} of the journal is not known to lifeboat {VERSION}, which reads \
         format {FORMAT}: use {agent}, which wrote it"
    )]
    Format { path: PathBuf, line: u64, format: String, agent: String },
    /// Something that this version would drop.
    #[error("{path}, line {line}: {field} is not known to lifeboat {VERSION}: use {agent}, which wrote it")]
    Unknown { path: PathBuf, line: u64, field: String, agent: String },
}

/// An effect at another moment than the event in front of it: that event's line is missing.
#[derive(Debug, thiserror::Error)]
#[error("an effect without its event")]
pub struct OrphanEffect;

/// Adds a line to the lives that were read before it.
///
/// # Errors
/// [`OrphanEffect`]; it is not added.
pub fn add(lives: &mut Vec<Life>, line: Line) -> Result<(), OrphanEffect> {
    match line.what {
        What::Life(head) => lives.push(Life { head: Some(head), ..Life::default() }),
        What::Event(event) => {
            let step = Step { at: line.at, event, effects: Vec::new() };
            match lives.last_mut().filter(|life| !life.ends_before(&step.event)) {
                Some(life) => life.steps.push(step),
                // The rest of a life that was rotated away, or a life of a version that wrote no head.
                None => lives.push(Life { steps: vec![step], ..Life::default() }),
            }
        }
        What::Effect(effect) => match lives.last_mut().map(|life| life.steps.last_mut()) {
            // The beginning of a file may be in the middle of a step of a life that was rotated away.
            None => {}
            Some(Some(step)) if step.at == line.at => step.effects.push(effect),
            Some(_) => return Err(OrphanEffect),
        },
    }
    Ok(())
}

/// Reads a journal line by line.
#[derive(Default)]
pub struct Reader {
    lives: Vec<Life>,
    /// A line that could not be read: an error, unless a life ends with it.
    bad: Option<ReadError>,
    /// The version that wrote the life.
    agent: Option<String>,
}

impl Reader {
    /// The next line; `path` and `number` say where it stands.
    ///
    /// # Errors
    /// [`ReadError`] naming the line.
    pub fn line(&mut self, raw: &[u8], path: &Path, number: u64) -> Result<(), ReadError> {
        if raw.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let no_line = |why: String| ReadError::NoLine { path: path.to_owned(), line: number, why };
        let value: Value = match serde_json::from_slice(raw) {
            Ok(value) => value,
            Err(error) => {
                // Only the last line of a life may be torn, and there is one last line.
                return match self.bad.replace(no_line(error.to_string())) {
                    Some(earlier) => Err(earlier),
                    None => Ok(()),
                };
            }
        };
        if let Some(head) = value.get("life") {
            self.end_life();
            self.agent = head["agent"].as_str().map(|agent| format!("lifeboat {agent}"));
            if head["format"] != FORMAT {
                let (agent, format) = (self.agent(), head["format"].to_string());
                return Err(ReadError::Format { path: path.to_owned(), line: number, format, agent });
            }
        } else if let Some(bad) = self.bad.take() {
            return Err(bad);
        }
        let line: Line = match serde_json::from_slice(raw) {
            Ok(line) => line,
            Err(error) if value.get("at").is_some() => {
                let field = format!("what it says ({error})");
                return Err(ReadError::Unknown {
                    path: path.to_owned(),
                    line: number,
                    field,
                    agent: self.agent(),
                });
            }
            Err(error) => return Err(no_line(error.to_string())),
        };
        let again = serde_json::to_value(&line).unwrap_or_default();
        if let Some(field) = dropped(&value, &again, "") {
            let field = format!("the field {field}");
            return Err(ReadError::Unknown {
                path: path.to_owned(),
                line: number,
                field,
                agent: self.agent(),
            });
        }
        add(&mut self.lives, line).map_err(|orphan| no_line(orphan.to_string()))
    }

    fn end_life(&mut self) {
        if self.bad.take().is_some()
            && let Some(life) = self.lives.last_mut()
        {
            life.torn = true;
        }
    }

    /// What was read, without the lives in which nothing happened.
    pub fn end(mut self) -> Vec<Life> {
        self.end_life();
        self.lives.retain(|life| !life.steps.is_empty());
        self.lives
    }

    /// Who wrote the life that is being read.
    fn agent(&self) -> String {
        self.agent.clone().unwrap_or_else(|| "the version of lifeboat".to_owned())
    }
}

/// The first field of `written` that is not, or is otherwise, in `read`.
fn dropped(written: &Value, read: &Value, name: &str) -> Option<String> {
    let within = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(key, value)| {
            let Some(read) = read.get(key) else { return Some(within(key)) };
            dropped(value, read, &within(key))
        }),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            let mut pairs = (0u32..).zip(written.iter().zip(read));
            pairs.find_map(|(index, (written, read))| dropped(written, read, &within(&index.to_string())))
        }
        _ => (written != read).then(|| name.to_owned()),
    }
}
