//! What a check found, and all of it together as one document.

use crate::commands::page::{Page, count};
use serde::Serialize;

/// So many objects are named in text; the JSON names all.
const NAMED: usize = 4;

/// How bad it is. In the order in which findings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something will not work, or is not safe.
    Failure,
    /// It works, and less well than it could.
    Warning,
    /// Worth knowing; nothing has to be done.
    Note,
    /// It could not be looked at from here, and why.
    Skipped,
    /// As it should be.
    Ok,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: a stable word.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// Why that matters; of what was skipped, why it was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The command or change that mends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// Which objects: `namespace/name` of pods and budgets, names of nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<String>,
}

impl Finding {
    /// One of this severity.
    pub fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        let (why, fix, about) = (String::new(), String::new(), Vec::new());
        Self { check, severity, what: what.into(), why, fix, about }
    }

    /// As it should be.
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, what)
    }

    /// Worth knowing.
    pub fn note(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Note, what)
    }

    /// Less well than it could.
    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, what)
    }

    /// It will not work, or is not safe.
    pub fn failure(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Failure, what)
    }

    /// Not looked at, and why not.
    pub fn skipped(check: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(check, Severity::Skipped, what).because(why)
    }

    /// Why it matters.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// What mends it.
    #[must_use]
    pub fn mend(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// Which object it is about.
    #[must_use]
    pub fn about(mut self, object: impl Into<String>) -> Self {
        self.about.push(object.into());
        self
    }

    fn is_the_same(&self, other: &Self) -> bool {
        (self.check, self.severity) == (other.check, other.severity)
            && (&self.what, &self.why, &self.fix) == (&other.what, &other.why, &other.fix)
    }
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this document: 1.
    pub format: u32,
    /// Of this program.
    pub version: &'static str,
    /// The node that was looked at; `None` if the whole cluster was.
    pub node: Option<String>,
    /// As whom the API server was asked, if it answered.
    pub identity: Option<String>,
    /// How many of each severity.
    pub failures: usize,
    /// See [`Report::failures`].
    pub warnings: usize,
    /// See [`Report::failures`].
    pub notes: usize,
    /// See [`Report::failures`].
    pub skipped: usize,
    /// See [`Report::failures`].
    pub ok: usize,
    /// The worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The same thing about many objects becomes one finding: a Deployment of a hundred pods has one mistake.
    pub fn new(node: Option<String>, identity: Option<String>, found: Vec<Finding>) -> Self {
        let mut findings: Vec<Finding> = Vec::new();
        for one in found {
            match findings.iter_mut().find(|known| known.is_the_same(&one)) {
                Some(known) => known.about.extend(one.about),
                None => findings.push(one),
            }
        }
        findings.sort_by_key(|finding| finding.severity);
        let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self {
            format: 1,
            version: env!("CARGO_PKG_VERSION"),
            node,
            identity,
            failures: of(Severity::Failure),
            warnings: of(Severity::Warning),
            notes: of(Severity::Note),
            skipped: of(Severity::Skipped),
            ok: of(Severity::Ok),
            findings,
        }
    }

    /// For people.
    pub fn page(&self, page: &mut Page) {
        let place = match &self.node {
            Some(node) => format!("node {node}"),
            None => "the whole cluster".to_owned(),
        };
        let identity = self.identity.as_deref().unwrap_or("nobody: the API server did not answer");
        page.line(&format!("looked at {place}, as {identity}"));
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Failure => "FAILURE",
                Severity::Warning => "warning",
                Severity::Note => "note",
                Severity::Skipped => "skipped",
                Severity::Ok => "ok",
            };
            page.line("");
            page.line(&format!("{severity:8} {}: {}", finding.check, finding.what));
            for (name, text) in [("why", &finding.why), ("fix", &finding.fix)] {
                if !text.is_empty() {
                    page.line(&format!("  {name:6} {text}"));
                }
            }
            if !finding.about.is_empty() {
                let named =
                    finding.about.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = finding.about.len().saturating_sub(NAMED);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                page.line(&format!("  about  {named}{more}"));
            }
        }
        page.line("");
        page.line(&format!(
            "{}, {}, {}, {} ok, {} skipped",
            count(self.failures, "failure"),
            count(self.warnings, "warning"),
            count(self.notes, "note"),
            self.ok,
            self.skipped
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_one_mistake_of_many_pods_is_one_finding() {
        let hold = |pod: &str| Finding::warning("hold", "none").because("it ends").about(pod);
        let found =
            vec![Finding::ok("store", "fine"), hold("a/1"), Finding::failure("rights", "no"), hold("a/2")];
        let report = Report::new(None, None, found);
        let checks: Vec<&str> = report.findings.iter().map(|finding| finding.check).collect();
        assert_eq!(checks, ["rights", "hold", "store"]);
        assert_eq!(report.findings[1].about, ["a/1", "a/2"]);
        assert_eq!((report.failures, report.warnings, report.ok), (1, 1, 1));
    }

    #[test]
    fn the_same_of_another_severity_stays_apart() {
        let found = vec![Finding::note("hold", "none"), Finding::warning("hold", "none")];
        assert_eq!(Report::new(None, None, found).findings.len(), 2);
    }

    #[test]
    fn text_has_what_why_and_fix_and_names_a_few_of_many() {
        let mut finding = Finding::failure("gate", "closed").because("no traffic").mend("kubectl do it");
        for n in 0..6 {
            finding = finding.about(format!("ns/pod-{n}"));
        }
        let mut page = Page::default();
        Report::new(Some("node-a".into()), Some("me".into()), vec![finding]).page(&mut page);
        let text = page.as_str();
        for part in [
            "node node-a, as me",
            "FAILURE  gate: closed",
            "no traffic",
            "kubectl do it",
            "and 2 more",
            "1 failure,",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
