//! How a text becomes a fault, and what is said of one that does not.

use crate::catalogue::entries;
use crate::entry::{Argument, Entry, Level, Object, When};
use crate::fault::{Count, Fault, Start, Value};
use crate::quantity::{parse_duration, parse_rate};
use crate::{near, steps};
use std::str::FromStr;
use std::time::Duration;

/// Why a fault text was refused. Each names the token and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// There is no `=`.
    #[error("{text:?}: it must have the form target[:object]=outcome, for example {example:?}")]
    NoOutcome {
        /// The whole text.
        text: String,
        /// Something that would do.
        example: &'static str,
    },
    /// No such target or outcome.
    #[error("{text:?}: {token:?} is not known; did you mean {near}? (all: lifeboat drill --list-faults)")]
    Unknown {
        /// The whole text.
        text: String,
        /// What is not known.
        token: String,
        /// The nearest known ones.
        near: String,
    },
    /// It is known, but not here.
    #[error("{text:?}: {level} does not understand it: {why}")]
    Elsewhere {
        /// The whole text.
        text: String,
        /// Where it was given.
        level: Level,
        /// The catalogue's reason.
        why: &'static str,
    },
    /// A part that this kind of fault does not take, or lacks.
    #[error("{text:?}: {what}; an example is {example:?}")]
    Part {
        /// The whole text.
        text: String,
        /// What is wrong.
        what: String,
        /// Something that would do.
        example: &'static str,
    },
}

/// Reads a plan: faults with white space between them; a line that begins with `#` is a comment.
///
/// # Errors
/// The first [`FaultError`].
pub fn parse_plan(text: &str, level: Level) -> Result<Vec<Fault>, FaultError> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).map(|text| Fault::read(text, level)).collect()
}

/// The parts of one text, before they are compared with the catalogue.
struct Parts<'a> {
    target: &'a str,
    object: Option<&'a str>,
    outcome: &'a str,
    argument: Option<&'a str>,
    count: Option<(char, &'a str)>,
    when: Option<&'a str>,
    lasts: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Cuts from the right, because an argument may hold anything but the marks.
    fn cut(text: &'a str) -> Option<Self> {
        let (left, right) = text.split_once('=')?;
        let (target, object) = once(left, ':');
        let (right, lasts) = once(right, '+');
        let (right, when) = once(right, '@');
        let (right, count) = match right.find(['*', '#']) {
            Some(at) => (&right[..at], Some((right.as_bytes()[at] as char, &right[at + 1..]))),
            None => (right, None),
        };
        let (outcome, argument) = once(right, ':');
        Some(Self { target, object, outcome, argument, count, when, lasts })
    }

    fn object(&self, kind: &Entry, level: Option<Level>) -> Result<Option<String>, String> {
        let takes_none = || match kind.object {
            Object::None => true,
            Object::Pod => false,
            Object::SimulatedPod => level == Some(Level::Drill),
        };
        match self.object {
            Some(object) if takes_none() => {
                Err(format!("{:?} takes no object, and {object:?} was given", kind.target))
            }
            Some("") => Err(format!("{:?} names no pod after its colon", kind.target)),
            None if kind.object == Object::Pod => {
                Err(format!("{:?} needs a pod: {}:POD", kind.target, kind.target))
            }
            object => Ok(object.map(str::to_owned)),
        }
    }

    fn argument(&self, kind: &Entry) -> Result<Option<Value>, String> {
        match (kind.argument, self.argument) {
            (Argument::None, None) => Ok(None),
            (Argument::None, Some(argument)) => {
                Err(format!("{:?} takes no argument, and {argument:?} was given", kind.outcome))
            }
            (Argument::Span, Some(argument)) => Ok(Some(Value::Span(parse_duration(argument)?))),
            (Argument::Rate, Some(argument)) => Ok(Some(Value::Rate(parse_rate(argument)?))),
            (wanted, None) => Err(format!("{:?} needs {}", kind.outcome, wanted.in_words())),
        }
    }

    fn count(&self, kind: &Entry) -> Result<Count, String> {
        let Some((mark, digits)) = self.count else { return Ok(Count::Always) };
        if !kind.counted {
            return Err(format!("{:?} cannot be counted with {mark:?}", kind.outcome));
        }
        let number = digits.parse::<u32>().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("{digits:?} after {mark:?} is not a number from 1 up"))?;
        Ok(if mark == '*' { Count::First(number) } else { Count::Only(number) })
    }

    fn start(&self, kind: &Entry) -> Result<Start, String> {
        match (kind.when, self.when) {
            (When::Never, Some(when)) => Err(format!("it takes no @, and @{when} was given")),
            (When::NeedsTimeOrStep, Some(when)) if when.starts_with("step:") => {
                Ok(Start::Step(step(&when[5..])?))
            }
            (_, Some(when)) => Ok(Start::After(parse_duration(when)?)),
            (When::NeedsTime, None) => Err("it needs a time, as in @4s".to_owned()),
            (When::NeedsTimeOrStep, None) => {
                Err("it needs a time or a step, as in @4s or @step:commit".to_owned())
            }
            (When::Never | When::Time, None) => Ok(Start::Notice),
        }
    }

    fn lasts(&self, kind: &Entry) -> Result<Option<Duration>, String> {
        match self.lasts {
            Some(lasts) if !kind.lasting => Err(format!("it takes no duration, and +{lasts} was given")),
            lasts => lasts.map(parse_duration).transpose(),
        }
    }
}

fn once(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((left, right)) => (left, Some(right)),
        None => (text, None),
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    /// Reads a fault that any level understands.
    fn from_str(text: &str) -> Result<Self, FaultError> {
        read(text, None)
    }
}

impl Fault {
    /// Reads a fault that is given to this level.
    ///
    /// # Errors
    /// See [`FaultError`].
    pub fn read(text: &str, level: Level) -> Result<Self, FaultError> {
        read(text, Some(level))
    }
}

fn read(text: &str, level: Option<Level>) -> Result<Fault, FaultError> {
    let text = text.trim();
    let parts = Parts::cut(text)
        .ok_or_else(|| FaultError::NoOutcome { text: text.to_owned(), example: "api=429@3s+5s" })?;
    let kind = find(text, &parts, level)?;
    let wrong = |what: String| FaultError::Part { text: text.to_owned(), what, example: kind.example };
    Ok(Fault {
        kind,
        object: parts.object(kind, level).map_err(wrong)?,
        argument: parts.argument(kind).map_err(wrong)?,
        count: parts.count(kind).map_err(wrong)?,
        start: parts.start(kind).map_err(wrong)?,
        lasts: parts.lasts(kind).map_err(wrong)?,
    })
}

fn find(text: &str, parts: &Parts<'_>, level: Option<Level>) -> Result<&'static Entry, FaultError> {
    let here = |entry: &&'static Entry| level.is_none_or(|level| entry.not_at(level).is_none());
    let of_target = || entries().filter(|entry| entry.target == parts.target);
    if let Some(entry) = of_target().find(|entry| entry.outcome == parts.outcome) {
        return match level.and_then(|level| Some((level, entry.not_at(level)?))) {
            None => Ok(entry),
            Some((level, why)) => Err(FaultError::Elsewhere { text: text.to_owned(), level, why }),
        };
    }
    let (token, candidates): (_, Vec<&'static str>) = if of_target().next().is_some() {
        (parts.outcome, of_target().filter(here).map(|entry| entry.example).collect())
    } else {
        (parts.target, entries().filter(here).map(|entry| entry.example).collect())
    };
    let near = near::nearest(text, &candidates, 3).join(", ");
    Err(FaultError::Unknown { text: text.to_owned(), token: token.to_owned(), near })
}

fn step(text: &str) -> Result<String, String> {
    let steps = steps();
    if steps.contains(&text) {
        return Ok(text.to_owned());
    }
    let near = near::nearest(text, &steps, 3).join(", ");
    Err(format!("{text:?} is not a step; did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_the_catalogue_is_understood_and_written_back_as_it_was() {
        for entry in entries() {
            let fault: Fault =
                entry.example.parse().unwrap_or_else(|error| panic!("{}: {error}", entry.example));
            assert_eq!(fault.to_string(), entry.example);
            assert_eq!(fault.name(), entry.name);
        }
    }

    #[test]
    fn an_unknown_token_is_named_together_with_what_is_near_it() {
        let error = "engin:gold=hang".parse::<Fault>().unwrap_err().to_string();
        assert!(error.contains("\"engin\"") && error.contains("engine:gold=hang"), "{error}");
        let error = "notice=latte:10s".parse::<Fault>().unwrap_err().to_string();
        assert!(error.contains("\"latte\"") && error.contains("notice=late:10s"), "{error}");
        let error = "agent=kill@step:comit".parse::<Fault>().unwrap_err().to_string();
        assert!(error.contains("commit"), "{error}");
    }

    #[test]
    fn each_part_that_does_not_belong_or_lacks_is_one_error() {
        for (text, says) in [
            ("notice", "form"),
            ("notice=late", "needs a duration"),
            ("notice=late:soon", "soon"),
            ("notice=repeated:3", "takes no argument"),
            ("engine=hang", "needs a pod"),
            ("engine:=hang", "names no pod"),
            ("pdb:web=stuck", "takes no object"),
            ("api=429*0", "number from 1"),
            ("notice=repeated*3", "cannot be counted"),
            ("notice=withdrawn", "needs a time"),
            ("agent=kill", "needs a time or a step"),
            ("store=slow:fast", "rate"),
            ("kind=stop@3s", "takes no @"),
            ("agent=kill@3s+1s", "takes no duration"),
        ] {
            let error = Fault::read(text, Level::Drill).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_level_refuses_what_is_anothers_with_the_catalogues_reason() {
        for entry in entries() {
            for level in [Level::Simulation, Level::Drill] {
                match (Fault::read(entry.example, level), entry.not_at(level)) {
                    (Ok(fault), None) => assert_eq!(fault.kind, entry),
                    (Err(error), Some(why)) => assert!(error.to_string().contains(why), "{error}"),
                    (read, not) => panic!("{}: {read:?}, {not:?}", entry.name),
                }
            }
        }
    }

    #[test]
    fn in_the_simulation_a_budget_can_be_one_pods() {
        let fault = Fault::read("pdb:pod-01=stuck", Level::Simulation).unwrap();
        assert_eq!(fault.object.as_deref(), Some("pod-01"));
        assert_eq!(fault.to_string(), "pdb:pod-01=stuck");
    }

    #[test]
    fn a_plan_has_white_space_between_its_faults_and_comments() {
        let text = "# a bad day\nnotice=late:10s\n\n  api=429*3  pdb=stuck\n # another\n";
        let plan = parse_plan(text, Level::Drill).unwrap();
        let plan: Vec<_> = plan.iter().map(Fault::to_string).collect();
        assert_eq!(plan, ["notice=late:10s", "api=429*3", "pdb=stuck"]);
        assert!(parse_plan("notice=late:10s watch=lags", Level::Drill).is_err());
    }
}
