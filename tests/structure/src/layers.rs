//! Who may import whom: layers, each of which sees only what is below it.
//!
//! Two parts of one layer do not import each other. The root of a crate (`lib.rs`, `main.rs`) is above all of its
//! modules. Code that only tests are built with may import what it likes; what it imports upwards is listed apart.

use crate::scan::Reference;
use crate::source::{Source, Sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The layers from the top down. A part is a crate, by its folder, or a module of the crate's root, by its path.
pub type Layers<'a> = &'a [&'a [&'a str]];

/// The layers of lifeboat.
pub const LAYERS: Layers<'static> = &[
    &["agent/src/cli"],
    &["agent/src/commands", "agent/src/fleet", "agent/src/node"],
    &["agent/src/kube", "agent/src/imds", "agent/src/volume"],
    &["agent/src/pods"],
    &["agent/src/runtime"],
    &["agent/drill"],
    &["agent/fakes"],
    &["agent/engines", "agent/trace", "agent/fault-plan"],
    &["agent/host"],
    &["agent/core", "checkpoint"],
];

/// Something that the layers forbid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    /// The file, from the root of the tree.
    pub file: String,
    /// Where in it.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.why)
    }
}

/// What was found in a tree.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many imports between two parts were judged.
    pub judged: usize,
    /// What is forbidden.
    pub breaches: Vec<Breach>,
    /// Imports upwards in code that only tests are built with; allowed.
    pub in_tests: Vec<Breach>,
    /// Parts without a layer, and lines of the table without a part.
    pub table: Vec<String>,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standpoint<'a> {
    /// A part of the table, with its layer.
    Part(usize, &'a str),
    /// The root of a crate whose modules are in the table.
    Root,
    /// Not in the table.
    Nowhere(String),
}

/// Judges every import of the shipped crates.
pub fn check(sources: &Sources, layers: Layers<'_>) -> Verdict {
    let mut verdict = Verdict { table: stale(sources, layers), ..Verdict::default() };
    let mut nowhere = BTreeSet::new();
    for source in &sources.crates {
        let folder = &sources.member(source).folder;
        for module in &source.modules {
            if let Standpoint::Nowhere(part) = standpoint(folder, Some(module), layers) {
                nowhere.insert(part);
            }
        }
        for reference in &source.references {
            judge(sources, source, reference, layers, &mut verdict);
        }
        for refusal in &source.refusals {
            verdict.breaches.push(Breach {
                file: refusal.file.clone(),
                line: refusal.line,
                why: refusal.why.to_owned(),
            });
        }
        judge_manifest(sources, source, layers, &mut verdict);
    }
    verdict.table.extend(nowhere.into_iter().map(|part| format!("{part} has no layer")));
    verdict.breaches.sort();
    verdict
}

fn judge(
    sources: &Sources,
    source: &Source,
    reference: &Reference,
    layers: Layers<'_>,
    verdict: &mut Verdict,
) {
    let own = reference.member == source.member;
    let from = standpoint(&sources.member(source).folder, reference.from.first().map(String::as_str), layers);
    let target = &sources.members[reference.member];
    // What is no module is an item of the root, and stands where the root does.
    let module = reference.to.first().map(String::as_str).filter(|first| {
        sources.crates.iter().any(|other| other.member == reference.member && other.modules.contains(*first))
    });
    let to = standpoint(&target.folder, module, layers);
    let why = match (&from, &to) {
        _ if from == to => return,
        // The root of a crate sees its modules, and they see what it defines itself.
        (Standpoint::Root, Standpoint::Part(..)) => None,
        (_, Standpoint::Root) if own => return,
        // Said once for each part, not once for each import.
        (Standpoint::Nowhere(_), _) => return,
        (_, Standpoint::Nowhere(_)) if own => return,
        (_, Standpoint::Nowhere(part)) => Some(format!("{part} has no layer: shipped crates do not use it")),
        (_, Standpoint::Root) => Some(format!("{} is above all other crates", target.folder)),
        (Standpoint::Part(from, above), Standpoint::Part(to, below)) => (from >= to).then(|| {
            let how = if from == to { "stands beside" } else { "is above" };
            format!("{below} {how} {above}")
        }),
    };
    verdict.judged += 1;
    if let Some(why) = why {
        let breach = Breach {
            file: reference.file.clone(),
            line: reference.line,
            why: format!("`{}`: {why}", reference.text),
        };
        if reference.test { verdict.in_tests.push(breach) } else { verdict.breaches.push(breach) }
    }
}

/// A dependency in a manifest is an import, used or not.
fn judge_manifest(sources: &Sources, source: &Source, layers: Layers<'_>, verdict: &mut Verdict) {
    let member = sources.member(source);
    let Standpoint::Part(from, _) = standpoint(&member.folder, None, layers) else { return };
    for (index, line) in &member.dependencies {
        let target = &sources.members[*index];
        if !matches!(standpoint(&target.folder, None, layers), Standpoint::Part(to, _) if from < to) {
            let why = format!("{} depends on {}, which is not below it", member.folder, target.folder);
            verdict.breaches.push(Breach { file: member.manifest(), line: *line, why });
        }
    }
}

fn standpoint<'a>(folder: &str, module: Option<&str>, layers: Layers<'a>) -> Standpoint<'a> {
    let ranks: BTreeMap<&'a str, usize> = layers
        .iter()
        .enumerate()
        .flat_map(|(rank, parts)| parts.iter().map(move |part| (*part, rank)))
        .collect();
    let find = |path: &str| ranks.get_key_value(path).map(|(part, rank)| Standpoint::Part(*rank, part));
    if let Some(part) = find(folder) {
        return part;
    }
    let below = format!("{folder}/src/");
    match module {
        Some(module) => {
            let path = format!("{below}{module}");
            find(&path).unwrap_or(Standpoint::Nowhere(path))
        }
        None if ranks.keys().any(|part| part.starts_with(&below)) => Standpoint::Root,
        None => Standpoint::Nowhere(folder.to_owned()),
    }
}

/// Lines of the table that name nothing.
fn stale(sources: &Sources, layers: Layers<'_>) -> Vec<String> {
    let exists = |part: &str| {
        sources.crates.iter().any(|source| {
            let folder = &sources.member(source).folder;
            let module = part.strip_prefix(folder.as_str()).and_then(|rest| rest.strip_prefix("/src/"));
            part == folder || module.is_some_and(|module| source.modules.contains(module))
        })
    };
    let parts = layers.iter().copied().flatten();
    parts
        .filter(|part| !exists(part))
        .map(|part| format!("{part} is in the table and not in the tree"))
        .collect()
}
