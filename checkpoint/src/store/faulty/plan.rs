//! The text form of faults.

use std::{fmt, str::FromStr, time::Duration};

/// Every fault by name, with what it does: for `lifeboat drill --list-faults`.
pub const FAULTS: &[(&str, &str)] = &[
    ("slow:<n>MiB/s", "bodies share a line of that rate (B, KiB, MiB, GiB per second)"),
    ("slow:<n>ms", "each operation waits that long first (ms or s)"),
    ("503", "refused with 503 SlowDown"),
    ("denied", "refused with 403 AccessDenied"),
    ("gone", "connection refused"),
    ("hang", "never answers"),
    ("torn", "half of the bytes are stored (or read), and success is reported"),
    ("flip", "one bit is stored (or read) wrongly, and success is reported"),
    ("lost", "carried out, but the answer is lost"),
    ("unconditional", "conditions are accepted and ignored, as some S3-compatible stores do"),
];

/// A list of faults. See the module above for examples.
///
/// `<operation>[:<object>]=<fault>[#n | *n | @from[+for]]`, separated by commas. The operation is `put`, `get`,
/// `range`, `list`, `delete` or `*`; the object is a component of the key (`pack`, `manifest`, `gen`, `intent`, `claim`,
/// `tombstone`, `report`, `erased`, `fleet`, `preflight`). `#n` is the n-th occurrence only, `*n` the first n; `@` counts occurrences, or time if it has a
/// unit (`@5s`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPlan(Vec<Rule>);

/// A fault that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the fault {token:?} is not understood: {why}")]
pub struct PlanError {
    token: String,
    why: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) text: String,
    operation: Option<Operation>,
    object: Option<String>,
    pub(super) fault: Fault,
    pub(super) when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Put,
    Get,
    Range,
    List,
    Delete,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault {
    Rate(u64),
    Delay(Duration),
    Unavailable,
    Denied,
    Gone,
    Hang,
    Torn,
    Flip,
    Lost,
    Unconditional,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum When {
    Always,
    Nth(u64),
    First(u64),
    Calls { from: u64, count: Option<u64> },
    Time { from: Duration, span: Option<Duration> },
}

impl FaultPlan {
    /// Reads a plan; an empty text is an empty plan.
    ///
    /// # Errors
    /// [`PlanError`] with the part that is not understood.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let tokens = text.split([',', ';']).flat_map(str::split_whitespace);
        tokens.map(rule).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn into_rules(self) -> impl Iterator<Item = Rule> {
        self.0.into_iter()
    }
}

impl FromStr for FaultPlan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        Self::parse(text)
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<_> = self.0.iter().map(|rule| rule.text.as_str()).collect();
        f.write_str(&rules.join(","))
    }
}

impl Rule {
    pub(super) fn concerns(&self, operation: Operation, key: &str) -> bool {
        self.operation.is_none_or(|own| own == operation)
            && self.object.as_ref().is_none_or(|object| key.split('/').any(|component| component == object))
    }
}

impl When {
    /// Whether the `nth` matching occurrence (from 1), `after` the start, is struck.
    pub(super) fn holds(self, nth: u64, after: Duration) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(n) => nth == n,
            Self::First(n) => nth <= n,
            Self::Calls { from, count } => nth >= from && count.is_none_or(|count| nth - from < count),
            Self::Time { from, span } => {
                after >= from && span.is_none_or(|span| after < from.saturating_add(span))
            }
        }
    }
}

fn rule(token: &str) -> Result<Rule, PlanError> {
    let wrong = |why: String| PlanError { token: token.to_owned(), why };
    let (target, action) = token
        .split_once('=')
        .ok_or_else(|| wrong("write <operation>=<fault>, for example put=503*3".to_owned()))?;
    let (operation, object) = match target.split_once(':') {
        Some((operation, object)) => (operation, Some(object)),
        None => (target, None),
    };
    let operation = match operation {
        "put" => Some(Operation::Put),
        "get" => Some(Operation::Get),
        "range" => Some(Operation::Range),
        "list" => Some(Operation::List),
        "delete" => Some(Operation::Delete),
        "*" => None,
        other => {
            return Err(wrong(format!("{other:?} is no operation (put, get, range, list, delete or *)")));
        }
    };
    const OBJECTS: [&str; 10] =
        ["pack", "manifest", "gen", "intent", "claim", "tombstone", "report", "erased", "fleet", "preflight"];
    if let Some(object) = object.filter(|object| !OBJECTS.contains(object)) {
        return Err(wrong(format!("{object:?} is no object ({})", OBJECTS.join(", "))));
    }
    let split = action.find(['#', '*', '@']).unwrap_or(action.len());
    let (name, when) = action.split_at(split);
    Ok(Rule {
        text: token.to_owned(),
        operation,
        object: object.map(str::to_owned),
        fault: fault(name).map_err(wrong)?,
        when: self::when(when).map_err(wrong)?,
    })
}

fn fault(name: &str) -> Result<Fault, String> {
    Ok(match name {
        "503" => Fault::Unavailable,
        "denied" => Fault::Denied,
        "gone" => Fault::Gone,
        "hang" => Fault::Hang,
        "torn" => Fault::Torn,
        "flip" => Fault::Flip,
        "lost" => Fault::Lost,
        "unconditional" => Fault::Unconditional,
        other => match other.strip_prefix("slow:") {
            Some(rate) if rate.ends_with("/s") => Fault::Rate(self::rate(rate)?),
            Some(delay) => Fault::Delay(time(delay)?),
            None => {
                let known: Vec<_> = FAULTS.iter().map(|(name, _)| *name).collect();
                return Err(format!("{other:?} is no fault ({})", known.join(", ")));
            }
        },
    })
}

fn when(text: &str) -> Result<When, String> {
    let Some(kind) = text.chars().next() else { return Ok(When::Always) };
    let rest = &text[1..];
    match kind {
        '#' => Ok(When::Nth(count(rest)?)),
        '*' => Ok(When::First(count(rest)?)),
        _ => {
            let (from, span) = match rest.split_once('+') {
                Some((from, span)) => (from, Some(span)),
                None => (rest, None),
            };
            if from.ends_with('s') {
                Ok(When::Time { from: time(from)?, span: span.map(time).transpose()? })
            } else {
                Ok(When::Calls { from: count(from)?, count: span.map(count).transpose()? })
            }
        }
    }
}

fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is no count from 1")),
        Ok(count) => Ok(count),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time (200ms, 5s)");
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(wrong)
}

fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no rate (500KiB/s, 2MiB/s)");
    let size = text.strip_suffix("/s").ok_or_else(wrong)?;
    let split = size.find(|digit: char| !digit.is_ascii_digit()).ok_or_else(wrong)?;
    let (digits, unit) = size.split_at(split);
    let unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|rate| *rate > 0).ok_or_else(wrong)
}
