//! The crates of the workspace, as their manifests describe them.
//!
//! Crates are told apart by their folders; what code calls them is read here, so that a crate can be renamed without a
//! change of any table.

use crate::StructureError;
use crate::tree::Tree;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Everything below it is for tests; every other member is shipped.
const TESTS: &str = "tests";

/// One member of the workspace.
#[derive(Debug)]
pub struct Member {
    /// Its folder, from the root.
    pub folder: String,
    /// The name of its package.
    pub package: String,
    /// What its own binary calls its library.
    pub library: String,
    /// Other members, by what code of this one calls them; those that only its tests use are in it too.
    pub externs: BTreeMap<String, usize>,
    /// The members that it needs to be built, each with the line of its manifest.
    pub dependencies: Vec<(usize, usize)>,
}

impl Member {
    /// Is it in what users get?
    pub fn is_shipped(&self) -> bool {
        !crate::tree::is_below(&self.folder, TESTS)
    }

    /// The path of its manifest.
    pub fn manifest(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }
}

/// The members, in the order of the manifest.
pub fn members(tree: &Tree) -> Result<Vec<Member>, StructureError> {
    let root = parse(tree, "Cargo.toml")?;
    let workspace = table(&root, "workspace");
    let folders: Vec<String> = workspace
        .and_then(|workspace| workspace.get("members"))
        .and_then(Value::as_array)
        .map(|members| members.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    if folders.is_empty() || folders.iter().any(|folder| folder.contains('*')) {
        return Err(StructureError::malformed("Cargo.toml", 1, "list the workspace's members, one by one"));
    }
    let mut manifests = Vec::new();
    for folder in &folders {
        let path = format!("{folder}/Cargo.toml");
        let manifest = parse(tree, &path)?;
        let package = text(table(&manifest, "package"), "name")
            .ok_or_else(|| StructureError::malformed(&path, 1, "the package has no name"))?
            .to_owned();
        manifests.push((path, manifest, package));
    }
    let libraries: Vec<String> = manifests
        .iter()
        .map(|(_, manifest, package)| {
            text(table(manifest, "lib"), "name").map_or_else(|| package.replace('-', "_"), str::to_owned)
        })
        .collect();

    let shared = workspace.and_then(|workspace| table(workspace, "dependencies"));
    let mut members = Vec::new();
    for (folder, (path, manifest, package)) in folders.iter().zip(&manifests) {
        let mut member = Member {
            folder: folder.clone(),
            package: package.clone(),
            library: libraries[members.len()].clone(),
            externs: BTreeMap::new(),
            dependencies: Vec::new(),
        };
        for (key, dependency, needed) in dependencies(manifest) {
            let inherited = dependency.get("workspace").is_some();
            let described =
                if inherited { shared.and_then(|shared| shared.get(key)) } else { Some(dependency) };
            let Some(at) = described.and_then(|dependency| dependency.get("path")).and_then(Value::as_str)
            else {
                continue; // not ours
            };
            let at = if inherited { at.to_owned() } else { joined(folder, at) };
            // A path that leads out of the workspace is not ours either.
            let Some(index) = folders.iter().position(|folder| *folder == at) else { continue };
            let renamed = described.and_then(|dependency| dependency.get("package")).is_some();
            let name = if renamed { key.replace('-', "_") } else { libraries[index].clone() };
            member.externs.insert(name, index);
            if needed {
                member.dependencies.push((index, line_of(tree, path, key)));
            }
        }
        members.push(member);
    }
    Ok(members)
}

/// Every dependency of a manifest: its key, what is said of it, and whether a build without tests needs it.
fn dependencies(manifest: &Table) -> Vec<(&str, &Value, bool)> {
    let mut tables = vec![manifest];
    if let Some(targets) = table(manifest, "target") {
        tables.extend(targets.values().filter_map(Value::as_table));
    }
    let mut found = Vec::new();
    for within in tables {
        for (kind, needed) in
            [("dependencies", true), ("build-dependencies", true), ("dev-dependencies", false)]
        {
            let entries = table(within, kind).into_iter().flatten();
            found.extend(entries.map(|(key, value)| (key.as_str(), value, needed)));
        }
    }
    found
}

/// The folder that `path` means when `folder` names it.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn parse(tree: &Tree, path: &str) -> Result<Table, StructureError> {
    let text = tree.file(path).ok_or_else(|| StructureError::malformed(path, 1, "there is no such file"))?;
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        StructureError::malformed(path, line, error.message())
    })
}

fn table<'a>(within: &'a Table, key: &str) -> Option<&'a Table> {
    within.get(key).and_then(Value::as_table)
}

fn text<'a>(within: Option<&'a Table>, key: &str) -> Option<&'a str> {
    within.and_then(|table| table.get(key)).and_then(Value::as_str)
}

/// The line that begins with `key`.
fn line_of(tree: &Tree, path: &str, key: &str) -> usize {
    let text = tree.file(path).unwrap_or_default();
    let is_entry = |line: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['.', '=']))
    };
    1 + text.lines().position(is_entry).unwrap_or(0)
}
