//! The table of renamed words.

use crate::StructureError;
use crate::markdown::Table;
use crate::tree::Tree;
use std::fmt;

/// Where the table is.
pub const CHANGES: &str = "CHANGELOG.md";
/// The table.
const TABLE: Table<'static> =
    Table { file: CHANGES, heading: "### Renamed on the wire", columns: ["where", "old", "new"] };

/// What kind of word it is; the first column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `action label`: a value of that label of metrics.
    Label(String),
    /// `report word`: a value in reports.
    Report,
    /// `Event reason`: of Kubernetes Events.
    EventReason,
    /// `fault plan`: in the text form of faults.
    FaultPlan,
    /// `journal, ANYTHING`: a key or a value in journals; the rest of the cell is for people.
    Journal(String),
    /// `/PATH`: a field of what that path of the agent answers.
    Answer(String),
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "report word" => Some(Self::Report),
            "Event reason" => Some(Self::EventReason),
            "fault plan" => Some(Self::FaultPlan),
            text if text.starts_with("journal, ") => {
                Some(Self::Journal(text["journal, ".len()..].to_owned()))
            }
            text if text.starts_with('/') => Some(Self::Answer(text.to_owned())),
            text => {
                let label = text.strip_suffix(" label")?;
                let is_name = label.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !label.is_empty();
                is_name.then(|| Self::Label(label.to_owned()))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "{label} label"),
            Self::Report => f.write_str("report word"),
            Self::EventReason => f.write_str("Event reason"),
            Self::FaultPlan => f.write_str("fault plan"),
            Self::Journal(of) => write!(f, "journal, {of}"),
            Self::Answer(path) => f.write_str(path),
        }
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// What kind of word it is.
    pub kind: Kind,
    /// What it was.
    pub old: String,
    /// What it is.
    pub new: String,
    /// Its line in [`CHANGES`].
    pub line: usize,
}

/// Reads the table.
pub fn read(tree: &Tree) -> Result<Vec<Renamed>, StructureError> {
    let wrong = |line: usize, why: String| StructureError::malformed(CHANGES, line, why);
    let text = tree.file(CHANGES).ok_or_else(|| wrong(1, "there is no such file".into()))?;
    let mut words: Vec<Renamed> = Vec::new();
    for (line, [kind, old, new]) in TABLE.rows(text)? {
        let kind = Kind::parse(&kind).ok_or_else(|| {
            let known = "`NAME label`, `report word`, `Event reason`, `fault plan`, `journal, …`, `/PATH`";
            wrong(line, format!("`{kind}` is none of {known}"))
        })?;
        if old.is_empty() || new.is_empty() || old == new {
            return Err(wrong(line, format!("`{old}` cannot have become `{new}`")));
        }
        words.push(Renamed { kind, old, new, line });
    }
    for (index, word) in words.iter().enumerate() {
        let of_kind = |other: &&Renamed| other.kind == word.kind;
        if words[..index].iter().filter(of_kind).any(|other| other.old == word.old) {
            return Err(wrong(word.line, format!("`{}` is renamed twice", word.old)));
        }
        if words.iter().filter(of_kind).any(|other| other.new == word.old) {
            return Err(wrong(word.line, format!("`{}` is old and new: no test can tell", word.old)));
        }
    }
    Ok(words)
}
