//! Words of metrics, reports, Events and fault plans that were renamed. No old one may remain.
//!
//! The table of old and new is in `CHANGELOG.md`, for those who read it and for this test. Many old words are ordinary
//! English (`look`, `mark`), so each is searched in the forms in which it was such a word; [`forms`] has them.

pub mod forms;
pub mod table;

use crate::StructureError;
use crate::tree::{Tree, is_below};
use forms::Forms;
use std::collections::BTreeSet;
use std::fmt;
use table::{Kind, Renamed};

/// Where no old word may be left.
pub const PLACES: &[&str] = &["README.md", "SECURITY.md", "CONTRIBUTING.md", "docs", "manifests", "tests"];
/// This package plants old words.
const EXEMPT: &str = "tests/structure";
/// Where the values of labels are listed.
const METRICS: &str = "docs/metrics.md";

/// An old word that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left<'a> {
    /// The file, from the root of the tree.
    pub file: &'a str,
    /// Where in it.
    pub line: usize,
    /// What it should be.
    pub renamed: &'a Renamed,
    /// By which form it was recognised.
    pub form: &'static str,
}

impl fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Renamed { kind, old, new, .. } = self.renamed;
        write!(f, "{}:{}: {kind} `{old}` is now `{new}` ({})", self.file, self.line, self.form)
    }
}

/// Every old word that is left in a tree.
pub fn left<'a>(tree: &'a Tree, words: &'a [Renamed]) -> Result<Vec<Left<'a>>, StructureError> {
    let mut found = Vec::new();
    let forms: Vec<(&Renamed, Forms)> =
        words.iter().map(|word| Ok((word, Forms::of(word)?))).collect::<Result<_, StructureError>>()?;
    for (file, text) in PLACES.iter().flat_map(|place| tree.below(place)) {
        if is_below(file, EXEMPT) {
            continue;
        }
        for (renamed, forms) in forms.iter().filter(|(_, forms)| text.contains(forms.needle())) {
            for (index, line) in text.lines().enumerate() {
                if let Some(form) = forms.find(file, line) {
                    found.push(Left { file, line: index + 1, renamed, form });
                }
            }
        }
    }
    // One word may have been of several kinds. Which one is meant is known where the form says it.
    let told_apart: BTreeSet<_> = found
        .iter()
        .filter(|left| left.form != forms::QUOTED)
        .map(|left| (left.file, left.line, &left.renamed.old))
        .collect();
    found.retain(|left| {
        left.form != forms::QUOTED || !told_apart.contains(&(left.file, left.line, &left.renamed.old))
    });
    found.sort_by_key(|left| (left.file, left.line));
    Ok(found)
}

/// New values of labels that the list of metrics does not have: the table or the list is wrong.
pub fn unknown<'a>(tree: &Tree, words: &'a [Renamed]) -> Vec<&'a Renamed> {
    let metrics = tree.file(METRICS).unwrap_or_default();
    words
        .iter()
        .filter(|word| match &word.kind {
            Kind::Label(label) => !metrics.lines().any(|line| forms::is_listed(line, label, &word.new)),
            _ => false,
        })
        .collect()
}
