//! What goes wrong, and when: the fault plan in its one text form.
//!
//! ```text
//! target[:object]=outcome[:argument][*times|#which][@when][+duration]
//!
//! notice=late:10s      api=429@3s+5s      engine:gold=hang      agent=kill@step:commit
//! ```
//! `@when` counts from the moment the notice appears; `@step:NAME` is the first effect of that name in the
//! agent's journal. Parsing does no I/O, so that the core's simulation can read the same plans.

pub mod catalogue;
mod duration;
mod near;

use catalogue::{Argument, CATALOGUE, Entry, Object, When};
pub use duration::{parse_span, show_span};
use evacuation::moment::Span;
use std::fmt;
use std::str::FromStr;

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault: one line of the catalogue.
    pub kind: &'static Entry,
    /// `gold` in `engine:gold=hang`.
    pub object: Option<String>,
    /// `10s` in `notice=late:10s`, `2MiB/s` in `store=slow:2MiB/s`.
    pub argument: Option<String>,
    /// How often it strikes.
    pub count: Count,
    /// When it begins.
    pub start: Start,
    /// How long it lasts.
    pub lasts: Option<Span>,
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// As long as its time lasts.
    #[default]
    Always,
    /// The first so many times (`*3`).
    First(u32),
    /// This time only, counted from 1 (`#2`).
    Only(u32),
}

/// When a fault begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the notice.
    #[default]
    Notice,
    /// So long after the notice.
    After(Span),
    /// With the first effect of this name in the agent's journal.
    Step(String),
}

/// Why a fault text was refused. Each names the token and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// There is no `=`.
    #[error("--fault {text:?}: it must have the form target[:object]=outcome, for example {example:?}")]
    NoOutcome {
        /// The whole text.
        text: String,
        /// Something that would do.
        example: &'static str,
    },
    /// No such target or outcome.
    #[error("--fault {text:?}: {token:?} is not known; did you mean {near}? (all: --list-faults)")]
    Unknown {
        /// The whole text.
        text: String,
        /// What is not known.
        token: String,
        /// The nearest known ones.
        near: String,
    },
    /// A part that this kind of fault does not take, or lacks.
    #[error("--fault {text:?}: {what}; an example is {example:?}")]
    Part {
        /// The whole text.
        text: String,
        /// What is wrong.
        what: String,
        /// Something that would do.
        example: &'static str,
    },
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
}

fn once(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((left, right)) => (left, Some(right)),
        None => (text, None),
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let text = text.trim();
        let parts = Parts::cut(text)
            .ok_or_else(|| FaultError::NoOutcome { text: text.to_owned(), example: "api=429@3s+5s" })?;
        let kind = find(text, &parts)?;
        let wrong = |what: String| FaultError::Part { text: text.to_owned(), what, example: kind.example };

        let object = match (kind.object, parts.object) {
            (Object::None, None) => None,
            (Object::None, Some(object)) => {
                return Err(wrong(format!("{:?} takes no object, and {object:?} was given", kind.target)));
            }
            (Object::Pod, Some(object)) if !object.is_empty() => Some(object.to_owned()),
            (Object::Pod, _) => {
                return Err(wrong(format!("{:?} needs a pod: {}:POD", kind.target, kind.target)));
            }
        };
        let argument = match (kind.argument, parts.argument) {
            (Argument::None, None) => None,
            (Argument::None, Some(argument)) => {
                return Err(wrong(format!(
                    "{:?} takes no argument, and {argument:?} was given",
                    kind.outcome
                )));
            }
            (Argument::Span, Some(argument)) => {
                parse_span(argument).map_err(&wrong)?;
                Some(argument.to_owned())
            }
            (Argument::Rate, Some(argument)) => {
                rate(argument).map_err(&wrong)?;
                Some(argument.to_owned())
            }
            (wanted, None) => return Err(wrong(format!("{:?} needs {}", kind.outcome, wanted.in_words()))),
        };
        let count = match parts.count {
            None => Count::Always,
            Some((mark, _)) if !kind.counted => {
                return Err(wrong(format!("{:?} cannot be counted with {mark:?}", kind.outcome)));
            }
            Some((mark, digits)) => {
                let number =
                    digits.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(|| {
                        wrong(format!("{digits:?} after {mark:?} is not a number from 1 up"))
                    })?;
                if mark == '*' { Count::First(number) } else { Count::Only(number) }
            }
        };
        let start = match (kind.when, parts.when) {
            (When::Never, Some(when)) => return Err(wrong(format!("it takes no @, and @{when} was given"))),
            (When::TimeOrStep | When::NeedsTimeOrStep, Some(when)) if when.starts_with("step:") => {
                Start::Step(step(&when[5..]).map_err(&wrong)?)
            }
            (_, Some(when)) => Start::After(parse_span(when).map_err(&wrong)?),
            (When::NeedsTime, None) => return Err(wrong("it needs a time, as in @4s".to_owned())),
            (When::NeedsTimeOrStep, None) => {
                return Err(wrong("it needs a time or a step, as in @4s or @step:commit".to_owned()));
            }
            (_, None) => Start::Notice,
        };
        let lasts = match parts.lasts {
            None => None,
            Some(lasts) if !kind.lasting => {
                return Err(wrong(format!("it takes no duration, and +{lasts} was given")));
            }
            Some(lasts) => Some(parse_span(lasts).map_err(&wrong)?),
        };
        Ok(Self { kind, object, argument, count, start, lasts })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.target)?;
        if let Some(object) = &self.object {
            write!(f, ":{object}")?;
        }
        write!(f, "={}", self.kind.outcome)?;
        if let Some(argument) = &self.argument {
            write!(f, ":{argument}")?;
        }
        match self.count {
            Count::Always => {}
            Count::First(n) => write!(f, "*{n}")?,
            Count::Only(n) => write!(f, "#{n}")?,
        }
        match &self.start {
            Start::Notice => {}
            Start::After(span) => write!(f, "@{}", show_span(*span))?,
            Start::Step(step) => write!(f, "@step:{step}")?,
        }
        if let Some(lasts) = self.lasts {
            write!(f, "+{}", show_span(lasts))?;
        }
        Ok(())
    }
}

impl Fault {
    /// The catalogue's name of it.
    pub const fn name(&self) -> &'static str {
        self.kind.name
    }

    /// From when to when it holds, in time after the notice: by default for as long as the catalogue says.
    pub fn window(&self) -> (Span, Option<Span>) {
        let from = match self.start {
            Start::After(span) => span,
            Start::Notice | Start::Step(_) => Span::ZERO,
        };
        let lasts = self.lasts.or(match self.count {
            Count::Always => self.kind.default_lasts.map(Span::from_secs),
            Count::First(_) | Count::Only(_) => None,
        });
        (from, lasts.map(|lasts| from + lasts))
    }

    /// The argument as a span: it was checked when the text was read.
    pub fn span(&self) -> Option<Span> {
        self.argument.as_deref().and_then(|argument| parse_span(argument).ok())
    }
}

/// Reads a plan from a file's text: one fault a line, `#` at the start of a line is a comment.
///
/// # Errors
/// The first [`FaultError`].
pub fn parse_plan(text: &str) -> Result<Vec<Fault>, FaultError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(Fault::from_str).collect()
}

fn find(text: &str, parts: &Parts<'_>) -> Result<&'static Entry, FaultError> {
    let of_target = || CATALOGUE.iter().filter(|entry| entry.target == parts.target);
    if let Some(entry) = of_target().find(|entry| entry.outcome == parts.outcome) {
        return Ok(entry);
    }
    let (token, candidates): (_, Vec<&'static str>) = if of_target().next().is_some() {
        (parts.outcome, of_target().map(|entry| entry.example).collect())
    } else {
        (parts.target, CATALOGUE.iter().map(|entry| entry.example).collect())
    };
    let near = near::nearest(text, &candidates, 3).join(", ");
    Err(FaultError::Unknown { text: text.to_owned(), token: token.to_owned(), near })
}

/// `2MiB/s`: bytes per second.
fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a rate such as 2MiB/s");
    let amount = text.strip_suffix("/s").ok_or_else(wrong)?;
    let bytes = amount.parse::<bytesize::ByteSize>().map_err(|_| wrong())?.as_u64();
    if bytes == 0 { Err(wrong()) } else { Ok(bytes) }
}

/// A step is the name of one of the core's actions.
fn step(text: &str) -> Result<String, String> {
    if catalogue::STEPS.contains(&text) {
        return Ok(text.to_owned());
    }
    let near = near::nearest(text, catalogue::STEPS, 3).join(", ");
    Err(format!("{text:?} is not a step; did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_the_catalogue_is_understood_and_written_back_as_it_was() {
        for entry in CATALOGUE {
            let fault: Fault =
                entry.example.parse().unwrap_or_else(|error| panic!("{}: {error}", entry.example));
            assert_eq!(fault.to_string(), entry.example);
            assert_eq!(fault.name(), entry.name);
            assert!(!entry.what.is_empty() && !entry.tries.is_empty(), "{}", entry.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
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
            ("pdb:web=stuck", "takes no object"),
            ("api=429*0", "number from 1"),
            ("notice=repeated*3", "cannot be counted"),
            ("agent=kill", "needs a time or a step"),
            ("store=slow:fast", "rate"),
            ("kind=stop@3s", "takes no @"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_window_counts_from_the_notice() {
        let fault: Fault = "api=503@3s+5s".parse().unwrap();
        assert_eq!(fault.window(), (Span::from_secs(3), Some(Span::from_secs(8))));
        let fault: Fault = "pdb=stuck".parse().unwrap();
        assert_eq!(fault.window(), (Span::ZERO, None));
    }

    #[test]
    fn a_plan_file_has_one_fault_a_line_and_comments() {
        let plan = parse_plan("# a bad day\nnotice=late:10s\n\n  api=429*3  \n").unwrap();
        assert_eq!(plan.iter().map(Fault::to_string).collect::<Vec<_>>(), ["notice=late:10s", "api=429*3"]);
    }
}
