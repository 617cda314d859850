//! The sources of a crate: its files, their modules, and what all of them refer to.

use crate::StructureError;
use crate::scan::{Definition, Place, Reference, Refusal, scan};
use crate::tree::Tree;
use crate::workspace::{Member, members};
use std::collections::{BTreeMap, BTreeSet};

/// A crate of the workspace that users get, without its folders of tests, benches and examples.
#[derive(Debug)]
pub struct Source {
    /// Its place among the members.
    pub member: usize,
    /// The modules of its root, those of tests left out.
    pub modules: BTreeSet<String>,
    /// Every path in it that leads to a crate of the workspace.
    pub references: Vec<Reference>,
    /// The types it defines.
    pub definitions: Vec<Definition>,
    /// What hides imports.
    pub refusals: Vec<Refusal>,
}

/// The shipped crates of a tree.
#[derive(Debug)]
pub struct Sources {
    /// Every member of the workspace.
    pub members: Vec<Member>,
    /// What was read of those that are shipped.
    pub crates: Vec<Source>,
}

impl Sources {
    /// Reads every crate that is shipped.
    pub fn read(tree: &Tree) -> Result<Self, StructureError> {
        let members = members(tree)?;
        let mut crates = Vec::new();
        for (index, member) in members.iter().enumerate().filter(|(_, member)| member.is_shipped()) {
            crates.push(read_crate(tree, &members, index, member)?);
        }
        Ok(Self { members, crates })
    }

    /// The member that a source is of.
    pub fn member(&self, source: &Source) -> &Member {
        &self.members[source.member]
    }
}

fn read_crate(
    tree: &Tree,
    members: &[Member],
    index: usize,
    member: &Member,
) -> Result<Source, StructureError> {
    // A binary calls its own library by its name.
    let mut of_root = member.externs.clone();
    of_root.insert(member.library.clone(), index);
    let folder = format!("{}/src", member.folder);
    let mut source = Source {
        member: index,
        modules: BTreeSet::new(),
        references: Vec::new(),
        definitions: Vec::new(),
        refusals: Vec::new(),
    };
    let mut test_modules = Vec::new();
    let mut root_names = Vec::new();
    let mut files = 0;
    for (file, text) in tree.below(&folder).filter(|(file, _)| file.ends_with(".rs")) {
        // A member may lie in the folder of another.
        if members
            .iter()
            .any(|other| other.folder.len() > folder.len() && crate::tree::is_below(file, &other.folder))
        {
            continue;
        }
        files += 1;
        let module = module_of(&file[folder.len() + 1..]);
        let externs = if module.is_empty() { &of_root } else { &member.externs };
        let found = scan(Place { file, module: &module, member: index, externs }, text)?;
        source.references.extend(found.references);
        source.definitions.extend(found.definitions);
        source.refusals.extend(found.refusals);
        source.modules.extend(module.into_iter().next());
        test_modules.extend(found.test_modules);
        root_names.extend(found.root_names);
    }
    if files == 0 {
        return Err(StructureError::malformed(&member.manifest(), 1, format!("{folder} has no sources")));
    }
    let is_test = |module: &[String]| test_modules.iter().any(|test| module.starts_with(test));
    source.references.iter_mut().for_each(|reference| reference.test |= is_test(&reference.from));
    source.definitions.iter_mut().for_each(|definition| definition.test |= is_test(&definition.module));
    source.modules.retain(|module| !is_test(std::slice::from_ref(module)));
    lead_through_the_root(&mut source, root_names);
    Ok(source)
}

/// `crate::Machine` is `crate::machine::Machine` if the root says `pub use machine::Machine`.
fn lead_through_the_root(source: &mut Source, names: Vec<(String, Vec<String>)>) {
    let named: BTreeMap<String, String> = names
        .into_iter()
        .filter_map(|(name, path)| {
            let module = path.into_iter().find(|part| part != "crate" && part != "self")?;
            source.modules.contains(&module).then_some((name, module))
        })
        .collect();
    let own = source.member;
    for reference in source.references.iter_mut().filter(|reference| reference.member == own) {
        if let Some(first) = reference.to.first()
            && !source.modules.contains(first)
            && let Some(module) = named.get(first)
        {
            reference.to.insert(0, module.clone());
        }
    }
}

/// The module of a file, by its path from `src`; empty for the root. A file in `bin` is a root as well.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "main" | "mod" => Vec::new(),
        path if path.starts_with("bin/") => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}
