//! Authority that a reader cannot look up: citations of documents that are not in the repository.
//!
//! The project was begun from a design and from sheets of facts that were never in it. What rests on them says so in its
//! own words: a number with what was measured, or an address.

use crate::StructureError;
use crate::markdown;
use crate::places;
use crate::tree::Tree;
use regex_lite::Regex;
use std::fmt;

/// This test plants such citations.
const EXEMPT: &str = "tests/structure/tests/citations.rs";

/// A section of the design, across a break of the line in a comment too.
const SECTION: Form = Form { needles: &["§"], pattern: r"(?i)\b(design(?:\.md)?[\s/!#*,]*§)" };
/// A file of the folders in which the design and the facts were, also by its absolute path.
const FILE: Form = Form {
    needles: &["facts/", "shared/", "lab/", "design."],
    pattern: r"(?m)(?:^|[^\w./-])((?:/work/)?(?:facts|shared|lab)/[\w./-]*\w|design\.md)",
};
/// A section of the architecture, by its heading.
const HEADING: Form = Form { needles: &[places::FILE], pattern: r#""([^"\n]+)" in docs/architecture\.md"# };

/// The form of a citation.
struct Form {
    /// One of these is in it. Few files have any, and a plain search is many times faster.
    needles: &'static [&'static str],
    /// What is cited is its first group.
    pattern: &'static str,
}

impl Form {
    /// What a file cites in this form, each with its place.
    fn find<'a>(&self, text: &'a str) -> Result<Vec<(usize, &'a str)>, StructureError> {
        if !self.needles.iter().any(|needle| text.contains(needle)) {
            return Ok(Vec::new());
        }
        let regex = Regex::new(self.pattern)
            .map_err(|error| StructureError::malformed(file!(), 1, error.to_string()))?;
        let hits = regex.captures_iter(text).filter_map(|captures| captures.get(1));
        Ok(hits.map(|hit| (hit.start(), hit.as_str())).collect())
    }
}

/// A citation that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Citation {
    /// The file, from the root of the tree.
    pub file: String,
    /// Where in it.
    pub line: usize,
    /// What is cited.
    pub cited: String,
}

impl fmt::Display for Citation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}` is not in this repository: say it here", self.file, self.line, self.cited)
    }
}

/// Every citation in a tree that leads nowhere.
pub fn dangling(tree: &Tree) -> Result<Vec<Citation>, StructureError> {
    let titles: Vec<&str> = markdown::headings(tree.file(places::FILE).unwrap_or_default()).collect();
    let mut found = Vec::new();
    for (file, text) in tree.files().filter(|(file, _)| *file != EXEMPT) {
        let mut cite = |at: usize, cited: String| {
            let line = text[..at].matches('\n').count() + 1;
            found.push(Citation { file: file.to_owned(), line, cited });
        };
        for (at, _) in SECTION.find(text)? {
            cite(at, "a section of the design".to_owned());
        }
        for (at, path) in FILE.find(text)?.into_iter().filter(|(_, path)| tree.file(path).is_none()) {
            cite(at, path.to_owned());
        }
        for (at, title) in HEADING.find(text)?.into_iter().filter(|(_, title)| !titles.contains(title)) {
            cite(at, format!("{}: {title}", places::FILE));
        }
    }
    found.sort();
    Ok(found)
}
