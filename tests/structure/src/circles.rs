//! Circles: modules of a crate's root that import each other, at once or through others.
//!
//! The root itself is left out: it names all modules, and what it defines is everybody's. So is code of tests.

use crate::scan::Reference;
use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

/// Which module imports which, each with one import as an example.
pub type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Reference>>;

/// The imports between the modules of a crate's root.
pub fn graph(source: &Source) -> Graph<'_> {
    let mut graph = Graph::new();
    for reference in &source.references {
        let (Some(from), Some(to)) = (reference.from.first(), reference.to.first()) else { continue };
        let own = reference.member == source.member && source.modules.contains(to);
        if own && from != to && !reference.test {
            graph.entry(from).or_default().entry(to).or_insert(reference);
        }
    }
    graph
}

/// A shortest circle through each module that is in one, each once: its imports, in order. The shortest come first.
pub fn circles<'a>(graph: &Graph<'a>) -> Vec<Vec<&'a Reference>> {
    let mut circles: Vec<Vec<&Reference>> = graph.keys().filter_map(|start| way_back(graph, start)).collect();
    circles.sort_by_key(Vec::len);
    let mut seen = BTreeSet::new();
    circles.retain(|circle| {
        let mut edges: Vec<_> = circle.iter().map(|edge| (edge.from.first(), edge.to.first())).collect();
        edges.sort_unstable();
        seen.insert(edges)
    });
    circles
}

/// The shortest way from a module to itself.
fn way_back<'a>(graph: &Graph<'a>, start: &str) -> Option<Vec<&'a Reference>> {
    let mut came_by: BTreeMap<&str, (&str, &'a Reference)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for (next, reference) in graph.get(module).into_iter().flatten() {
            if !came_by.contains_key(next) {
                came_by.insert(next, (module, reference));
                queue.push_back(next);
            }
        }
    }
    let mut way = Vec::new();
    let mut at = start;
    loop {
        let (before, reference) = came_by.get(at)?;
        way.push(*reference);
        at = before;
        if at == start {
            way.reverse();
            return Some(way);
        }
    }
}

/// The circles of the crate in `folder`, for people; nothing if it has none.
pub fn report(folder: &str, source: &Source) -> Option<String> {
    let circles = circles(&graph(source));
    let modules: BTreeSet<&str> =
        circles.iter().flatten().filter_map(|edge| edge.from.first()).map(String::as_str).collect();
    if circles.is_empty() {
        return None;
    }
    let modules: Vec<&str> = modules.into_iter().collect();
    let mut text = format!("{folder}: {} modules are in circles: {}\n", modules.len(), modules.join(", "));
    for circle in circles {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  a circle of {}:", circle.len());
        for edge in circle {
            let (from, to) = (edge.from.first().map_or("", |from| from), edge.to.first().map_or("", |to| to));
            let _ = writeln!(text, "    {from} → {to}    `{}`, {}:{}", edge.text, edge.file, edge.line);
        }
    }
    Some(text)
}
