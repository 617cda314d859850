//! Where a path leads.

use super::walk::{Scope, Walk};
use super::{Reference, Refusal};
use crate::tokens::{is_punct, is_separator};
use crate::use_tree::{self, Leaf};
use proc_macro2::TokenTree;

impl Walk<'_> {
    /// A path in an expression, a type, an attribute or a macro.
    pub(super) fn path(&mut self, tokens: &[TokenTree], at: usize, scope: &Scope) -> usize {
        if !is_separator(tokens, at + 1) {
            return at + 1;
        }
        let continues = at >= 2 && is_separator(tokens, at - 2);
        // `<T>::a::b` goes on; after anything else `::a` begins at the crates.
        let (mut leaves, end) = use_tree::read(tokens, at);
        if continues && at >= 3 && is_punct(tokens, at - 3, '>') {
            return end;
        }
        for leaf in &mut leaves {
            leaf.absolute |= continues;
            self.reference(leaf, scope);
        }
        end
    }

    /// One name of a `use`.
    pub(super) fn import(&mut self, leaf: &Leaf, scope: &Scope) {
        if scope.module.is_empty()
            && !scope.test
            && let Some(bound) = &leaf.bound
        {
            self.found.root_names.push((bound.clone(), leaf.path.clone()));
        }
        let Some((member, to)) = self.reference(leaf, scope) else { return };
        let of_root = to.is_empty() && !scope.module.is_empty() && !scope.test;
        let why = if member != self.place.member {
            (leaf.renamed && to.is_empty() && leaf.bound.as_deref() != Some("_"))
                .then_some("a crate under another name: use the one it has")
        } else if of_root && leaf.glob {
            Some("`*` of the crate's root hides what is used: name it")
        } else {
            (of_root && leaf.renamed).then_some("the crate's root under another name: write `crate`")
        };
        if let Some(why) = why {
            self.found.refusals.push(Refusal { file: self.place.file.to_owned(), line: leaf.line, why });
        }
    }

    /// Notes where a path leads, if that is to a crate of the workspace.
    fn reference(&mut self, leaf: &Leaf, scope: &Scope) -> Option<(usize, Vec<String>)> {
        let (member, to) = self.resolve(leaf, scope)?;
        self.found.references.push(Reference {
            file: self.place.file.to_owned(),
            line: leaf.line,
            text: format!("{}{}", leaf.path.join("::"), if leaf.glob { "::*" } else { "" }),
            from: scope.module.clone(),
            member,
            to: to.clone(),
            test: scope.test,
        });
        Some((member, to))
    }

    fn resolve(&self, leaf: &Leaf, scope: &Scope) -> Option<(usize, Vec<String>)> {
        let first = leaf.path.first()?;
        let mut rest = &leaf.path[1..];
        let mut to = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => {
                let mut module = scope.module.clone();
                if first == "super" {
                    module.pop();
                }
                while rest.first().is_some_and(|next| next == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
                module
            }
            name if leaf.absolute || !scope.local.contains(name) => {
                return self.place.externs.get(name).map(|member| (*member, rest.to_vec()));
            }
            _ => return None,
        };
        to.extend_from_slice(rest);
        Some((self.place.member, to))
    }
}
