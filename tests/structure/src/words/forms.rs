//! The forms in which a word is one of lifeboat's, and not ordinary English.
//!
//! | form | example of the action label `look` |
//! |---|---|
//! | matcher | `{action="look"}`, `{action=~"mark\|look"}`, in JSON with `\"` |
//! | pair | `{action: look}`, `"action": "look"`, `("action", "look")` |
//! | list of a label | in `docs/metrics.md` after `` `action`: `` |
//! | in a line about it | `` the effect `look` `` in a document |
//! | step, fault | `agent=kill@step:look` |
//! | key | `"looked": {` of a journal |
//! | field | `status["standing"]` of `/status` |
//! | quoted | only for words that are not English, as `"let_go"` or `LetGo` in backticks |

use super::table::{Kind, Renamed};
use crate::StructureError;
use regex_lite::{Regex, escape};

/// What documents call a label beside its own name.
const CALLED: &[(&str, &str)] = &[("action", "actions?|effects?|steps?"), ("event", "events?")];
/// How a line of the list of metrics begins.
const METRIC: &str = "| `lifeboat_";
/// The fields of reports that have words.
const REPORT_FIELDS: &str = "departure|state|outcome";

/// The form that does not tell what kind of word it is.
pub const QUOTED: &str = "quoted";

const START: &str = r"(?:^|[^\w-])";
const END: &str = r"(?:[^\w-]|$)";

/// How one word is recognised.
#[derive(Debug)]
pub struct Forms {
    renamed: Renamed,
    patterns: Vec<(&'static str, Regex)>,
    /// A line about it, and the word in backticks or quotes.
    context: Option<(Regex, Regex)>,
    /// For a word that is not English: the word in backticks or quotes, wherever it is.
    quoted: Option<Regex>,
}

impl Forms {
    /// The forms of a word.
    pub fn of(renamed: &Renamed) -> Result<Self, StructureError> {
        let regex = |pattern: String| {
            Regex::new(&pattern).map_err(|error| {
                StructureError::malformed(super::table::CHANGES, renamed.line, error.to_string())
            })
        };
        let old = escape(&renamed.old);
        let quoted = format!("[\"'`]{old}\\\\?[\"'`]");
        let pair = |name: &str| {
            format!("{START}[\"'`]?(?:{name})\\\\?[\"'`]?\\s*(?:[:=]\\s*\\\\?[\"'`]?|,\\s*[\"']){old}{END}")
        };
        let mut patterns = Vec::new();
        let mut context = None;
        match &renamed.kind {
            Kind::Label(label) => {
                let within = r#"[^"'\\]*"#;
                patterns.push((
                    "matcher",
                    regex(format!(
                        "{START}{label}\\s*(?:=~|!~|!=|=)\\s*\\\\?[\"'](?:{within}[^\\w\"'\\\\-])?{old}(?:[^\\w\"'\\\\-]{within})?\\\\?[\"']"
                    ))?,
                ));
                patterns.push(("pair", regex(pair(label))?));
                if label == "action" {
                    patterns.push(("step", regex(format!("{START}step[:=]{old}{END}"))?));
                }
                let called = CALLED
                    .iter()
                    .find(|(name, _)| name == label)
                    .map_or(label.as_str(), |(_, called)| called);
                context = Some((regex(format!("{START}(?:{called}){END}"))?, regex(quoted.clone())?));
            }
            Kind::Report => {
                patterns.push(("pair", regex(pair(REPORT_FIELDS))?));
                let about = format!("{START}(?:reports?|{REPORT_FIELDS}){END}");
                context = Some((regex(about)?, regex(quoted.clone())?));
            }
            Kind::EventReason => {
                patterns.push(("pair", regex(pair("reason"))?));
                context = Some((regex(format!("{START}(?:Events?|reasons?){END}"))?, regex(quoted.clone())?));
            }
            Kind::FaultPlan => {
                let pattern = match moment(renamed) {
                    Some(moment) => format!("{}{END}", escape(moment)),
                    None if renamed.old.contains(['=', ':', '-']) => format!("{START}{old}{END}"),
                    None => format!("[\\w@][=@:]{old}{END}"),
                };
                patterns.push(("fault", regex(pattern)?));
            }
            Kind::Journal(of) => {
                let key = format!("\"{old}\\\\?\"\\s*:");
                // Between backticks are the keys above a field. Without any the line must speak of a journal.
                let above: Vec<String> = of.split('`').skip(1).step_by(2).map(escape).collect();
                let pattern = match of.starts_with("field") {
                    false => key,
                    true if above.is_empty() => format!("[Jj]ournal.*{key}"),
                    true => format!("\"(?:{})\\\\?\"\\s*:.*{key}", above.join("|")),
                };
                patterns.push(("key", regex(pattern)?));
                let value = format!("\"(?:event|effect|action|done)\\\\?\"\\s*:\\s*\\\\?\"{old}\\\\?\"");
                patterns.push(("pair", regex(value)?));
                context = Some((regex(format!("{START}[Jj]ournals?{END}"))?, regex(quoted.clone())?));
            }
            Kind::Answer(path) => {
                let name = escape(path.trim_start_matches('/'));
                patterns.push(("field", regex(format!("{name}.*\\[\"{old}\"\\]"))?));
                patterns.push(("field", regex(format!("{name}.*\"{old}\\\\?\"\\s*:"))?));
                context = Some((regex(format!("{}{END}", escape(path)))?, regex(quoted.clone())?));
            }
        }
        let is_enough = renamed.kind != Kind::FaultPlan && is_distinct(&renamed.old);
        let quoted = is_enough.then(|| regex(quoted)).transpose()?;
        Ok(Self { renamed: renamed.clone(), patterns, context, quoted })
    }

    /// What every form of the word contains.
    pub fn needle(&self) -> &str {
        moment(&self.renamed).unwrap_or(&self.renamed.old)
    }

    /// The form in which the word is in a line.
    pub fn find(&self, file: &str, line: &str) -> Option<&'static str> {
        if !line.contains(self.needle()) {
            return None;
        }
        let is_document = file.ends_with(".md");
        if is_document && line.starts_with(METRIC) {
            let listed =
                matches!(&self.renamed.kind, Kind::Label(label) if is_listed(line, label, &self.renamed.old));
            return listed.then_some("list of a label");
        }
        if let Some((form, _)) = self.patterns.iter().find(|(_, pattern)| pattern.is_match(line)) {
            return Some(form);
        }
        let is_about = |(about, word): &(Regex, Regex)| word.is_match(line) && about.is_match(line);
        if is_document && self.context.as_ref().is_some_and(is_about) {
            return Some("in a line about it");
        }
        self.quoted.as_ref().filter(|quoted| quoted.is_match(line)).map(|_| QUOTED)
    }
}

/// The moment that a fault plan names, from `@` on: it is the same for every target and outcome.
fn moment(renamed: &Renamed) -> Option<&str> {
    let at = renamed.old.rfind('@').filter(|_| renamed.kind == Kind::FaultPlan)?;
    Some(&renamed.old[at..])
}

/// Does a line of the list of metrics have `value` among those of `label`?
pub fn is_listed(line: &str, label: &str, value: &str) -> bool {
    line.starts_with(METRIC)
        && line.split(['|', ';']).any(|part| {
            let values = part.trim().strip_prefix(&format!("`{label}`:"));
            values
                .is_some_and(|values| values.split(',').any(|other| other.trim().trim_matches('`') == value))
        })
}

/// Is a word not English: of several parts, joined by `_` or in CamelCase?
fn is_distinct(word: &str) -> bool {
    word.contains('_') || word.chars().skip(1).any(char::is_uppercase)
}
