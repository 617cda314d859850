//! Paths as they are written, in `use` and elsewhere: `crate::a::{b, c::d as e, f::*}` is three of them.

use crate::tokens::{group, ident, is_punct, is_separator, line, list};
use proc_macro2::{Delimiter, TokenTree};

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Its segments, with `crate`, `self` and `super` as written.
    pub path: Vec<String>,
    /// `::a::b`: its first segment is a crate.
    pub absolute: bool,
    /// What the name is here, if it is a `use`; nothing for `*`.
    pub bound: Option<String>,
    /// `as` renames it.
    pub renamed: bool,
    /// It ends in `*`.
    pub glob: bool,
    /// Where its last segment stands.
    pub line: usize,
}

/// Reads the path that begins at `at`; returns its leaves, and the first token after it.
pub(crate) fn read(tokens: &[TokenTree], at: usize) -> (Vec<Leaf>, usize) {
    let mut leaves = Vec::new();
    let absolute = is_separator(tokens, at);
    let end = branch(tokens, if absolute { at + 2 } else { at }, &[], absolute, &mut leaves);
    (leaves, end)
}

fn branch(
    tokens: &[TokenTree],
    mut at: usize,
    prefix: &[String],
    absolute: bool,
    out: &mut Vec<Leaf>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut leaf_line = line(tokens, at);
    // Nothing of it was read yet, or the last that was is `::`.
    let mut is_open = true;
    loop {
        if is_punct(tokens, at, '$') {
            at += 1; // `$crate`
        } else if let Some(name) = ident(tokens, at) {
            leaf_line = line(tokens, at);
            at += 1;
            path.push(name);
            is_open = is_separator(tokens, at);
            if !is_open {
                break;
            }
            at += 2;
        } else if let Some(group) = group(tokens, at, Delimiter::Brace) {
            let within = list(group.stream());
            let mut from = 0;
            while from < within.len() {
                let inner = is_separator(&within, from);
                let absolute = absolute || (inner && path.is_empty());
                from = branch(&within, if inner { from + 2 } else { from }, &path, absolute, out);
                while from < within.len() && !is_punct(&within, from, ',') {
                    from += 1;
                }
                from += 1;
            }
            return at + 1;
        } else {
            break;
        }
    }
    let glob = is_open && is_punct(tokens, at, '*');
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let mut bound = path.last().cloned().filter(|_| !glob);
    let renamed = ident(tokens, at).as_deref() == Some("as");
    if renamed {
        bound = ident(tokens, at + 1);
        at += 2;
    }
    if !path.is_empty() {
        out.push(Leaf { path, absolute, bound, renamed, glob, line: leaf_line });
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let (leaves, _) = read(&list(text.parse().unwrap()), 0);
        leaves
            .iter()
            .map(|leaf| {
                let bound = leaf.bound.as_deref().unwrap_or("*");
                format!("{}{} as {bound}", if leaf.absolute { "::" } else { "" }, leaf.path.join("::"))
            })
            .collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            paths("crate::a::{self, b::{c as d, e::*}, *, super::f};"),
            [
                "crate::a as a",
                "crate::a::b::c as d",
                "crate::a::b::e as *",
                "crate::a as *",
                "crate::a::super::f as f"
            ]
        );
        assert_eq!(paths("{crate::a, ::host::b, c}"), ["crate::a as a", "::host::b as b", "c as c"]);
    }

    #[test]
    fn a_path_ends_where_its_generics_begin() {
        assert_eq!(paths("crate::a::b::<u8>::c"), ["crate::a::b as b"]);
        assert_eq!(paths("crate::A * crate::B"), ["crate::A as A"]);
    }
}
