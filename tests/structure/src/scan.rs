//! One file: the paths that lead to other modules or crates, and the types it defines.
//!
//! It walks tokens, not syntax, so what macros are given counts, and comments and strings do not. Strings in attributes
//! do if they are a path, as in `#[serde(default = "crate::policy::one")]`. What it cannot follow it refuses: a renamed
//! crate or root, a `*` of the root, `#[path]`, `include!`.

mod path;
mod walk;

use crate::StructureError;
use crate::tokens::list;
use proc_macro2::TokenStream;
use std::collections::BTreeMap;
use walk::Walk;

/// A path that leads to a crate of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The file, from the root of the tree.
    pub file: String,
    /// Where in it.
    pub line: usize,
    /// As it is written, without groups.
    pub text: String,
    /// The module it stands in.
    pub from: Vec<String>,
    /// The member of the workspace it leads to.
    pub member: usize,
    /// Its path there.
    pub to: Vec<String>,
    /// It stands in code that only tests or documentation are built with.
    pub test: bool,
}

/// A struct, enum, union, trait or type alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// The file, from the root of the tree.
    pub file: String,
    /// Where in it.
    pub line: usize,
    /// The module it stands in.
    pub module: Vec<String>,
    /// Only tests are built with it.
    pub test: bool,
}

/// Something that hides an import from this walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file, from the root of the tree.
    pub file: String,
    /// Where in it.
    pub line: usize,
    /// What it is, and what to write instead.
    pub why: &'static str,
}

/// What a file is to be read as.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file, from the root of the tree.
    pub file: &'a str,
    /// Its module.
    pub module: &'a [String],
    /// The member it belongs to.
    pub member: usize,
    /// Other members, by what this one calls them.
    pub externs: &'a BTreeMap<String, usize>,
}

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Found {
    /// Paths to crates of the workspace, its own among them.
    pub references: Vec<Reference>,
    /// Types.
    pub definitions: Vec<Definition>,
    /// What hides imports.
    pub refusals: Vec<Refusal>,
    /// Modules of which only tests are built.
    pub test_modules: Vec<Vec<String>>,
    /// The names that `use` binds in the root of a crate, each with its path.
    pub root_names: Vec<(String, Vec<String>)>,
}

/// Reads one file.
pub fn scan(place: Place<'_>, text: &str) -> Result<Found, StructureError> {
    let tokens: TokenStream = text.parse().map_err(|error: proc_macro2::LexError| {
        StructureError::malformed(place.file, error.span().start().line, "these are no tokens of Rust")
    })?;
    let mut walk = Walk { place, found: Found::default() };
    walk.module(&list(tokens), place.module, false);
    Ok(walk.found)
}
