//! Types that share a name with another type of their crate.
//!
//! Two types of one name make each `use` a riddle. A few are right where they are; the list below says why.

use crate::scan::Definition;
use crate::source::{Source, Sources};
use std::collections::BTreeMap;

/// A name that several types of a crate may have.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// The crate, by its folder.
    pub folder: &'static str,
    /// The name.
    pub name: &'static str,
    /// Why no other name would be better.
    pub reason: &'static str,
}

/// The names that may be shared.
pub const ALLOWED: &[Allowed] = &[];

/// How many of a crate's types may share their names, percent.
pub const SHARED_MAX: usize = 5;

/// The names of one crate's types.
#[derive(Debug)]
pub struct Names<'a> {
    /// The crate, by its folder.
    pub folder: &'a str,
    /// How many types it has.
    pub types: usize,
    /// Each name that more than one of them has.
    pub shared: BTreeMap<&'a str, Vec<&'a Definition>>,
}

impl<'a> Names<'a> {
    /// Counts the types of a crate that are not for tests.
    pub fn of(folder: &'a str, source: &'a Source) -> Self {
        let mut by_name: BTreeMap<&str, Vec<&Definition>> = BTreeMap::new();
        let definitions = source.definitions.iter().filter(|definition| !definition.test);
        definitions.for_each(|definition| by_name.entry(&definition.name).or_default().push(definition));
        let types = by_name.values().map(Vec::len).sum();
        by_name.retain(|_, definitions| definitions.len() > 1);
        Self { folder, types, shared: by_name }
    }

    /// How many types share a name with another.
    pub fn sharing(&self) -> usize {
        self.shared.values().map(Vec::len).sum()
    }

    /// One line for the crate, and one for each name.
    pub fn table(&self) -> String {
        let (types, sharing) = (self.types, self.sharing());
        let percent = 100.0 * sharing as f64 / types.max(1) as f64;
        let mut text = format!("{}: {types} types, {sharing} share a name ({percent:.1} %)\n", self.folder);
        let mut shared: Vec<_> = self.shared.iter().collect();
        shared.sort_by_key(|(_, definitions)| std::cmp::Reverse(definitions.len()));
        for (name, definitions) in shared {
            let places: Vec<String> = definitions
                .iter()
                .map(|definition| format!("{}:{}", definition.file, definition.line))
                .collect();
            text.push_str(&format!("  {:2} {name:24} {}\n", definitions.len(), places.join(" ")));
        }
        text
    }
}

/// What is wrong with the names of the shipped crates.
pub fn check(sources: &Sources, allowed: &[Allowed]) -> Vec<String> {
    let mut wrong = Vec::new();
    let crates: Vec<Names<'_>> =
        sources.crates.iter().map(|source| Names::of(&sources.member(source).folder, source)).collect();
    for names in &crates {
        for (name, definitions) in &names.shared {
            if !allowed.iter().any(|allowed| allowed.folder == names.folder && allowed.name == *name) {
                wrong.push(format!("{}: {} types are called {name}", names.folder, definitions.len()));
            }
        }
        if 100 * names.sharing() > SHARED_MAX * names.types {
            wrong.push(format!(
                "{}: {} of {} types share a name, more than {SHARED_MAX} %",
                names.folder,
                names.sharing(),
                names.types
            ));
        }
    }
    for Allowed { folder, name, reason } in allowed {
        if !crates.iter().any(|names| names.folder == *folder && names.shared.contains_key(name)) {
            wrong.push(format!("{folder}: {name} is allowed and not shared: take it off the list"));
        }
        if reason.is_empty() {
            wrong.push(format!("{folder}: {name} is allowed for no reason"));
        }
    }
    wrong
}
