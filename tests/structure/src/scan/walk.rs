//! The walk over a file's tokens: what begins at each of them, in which module, and whether only tests see it.

use super::{Definition, Found, Place, Refusal};
use crate::tokens::{attribute, group, ident, is_punct, item_end, line, list};
use crate::use_tree;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;

/// Where in a file the walk is.
#[derive(Clone)]
pub(super) struct Scope {
    pub module: Vec<String>,
    /// Names that mean something of this module and no crate.
    pub local: BTreeSet<String>,
    pub test: bool,
    /// Directly in a module: what is here is an item.
    pub items: bool,
}

/// What has been found so far.
pub(super) struct Walk<'a> {
    pub place: Place<'a>,
    pub found: Found,
}

impl Walk<'_> {
    pub(super) fn module(&mut self, tokens: &[TokenTree], module: &[String], test: bool) {
        let scope = Scope { module: module.to_vec(), local: local_names(tokens), test, items: true };
        self.tokens(tokens, &scope);
    }

    fn tokens(&mut self, tokens: &[TokenTree], scope: &Scope) {
        let mut scope = scope.clone();
        let mut at = 0;
        while at < tokens.len() {
            at = self.token(tokens, at, &mut scope);
        }
    }

    /// What begins at `at`; returns the first token after it.
    fn token(&mut self, tokens: &[TokenTree], at: usize, scope: &mut Scope) -> usize {
        if let Some(attribute) = attribute(tokens, at) {
            let name = attribute.name();
            if attribute.moves_a_module() {
                self.refuse(tokens, at, "#[path] hides where a module lies: move the file");
            }
            if name.as_deref() != Some("doc") {
                self.attribute(&attribute.body, scope);
            }
            if !attribute.is_left_out() {
                return attribute.end;
            }
            if attribute.inner {
                scope.test = true;
                self.found.test_modules.push(scope.module.clone());
                return attribute.end;
            }
            let end = item_end(tokens, attribute.end);
            self.tokens(&tokens[attribute.end..end], &Scope { test: true, ..scope.clone() });
            return end;
        }
        if let Some(TokenTree::Group(group)) = tokens.get(at) {
            self.tokens(&list(group.stream()), &Scope { items: false, ..scope.clone() });
            return at + 1;
        }
        match ident(tokens, at).as_deref() {
            Some("mod") if scope.items => self.submodule(tokens, at, scope),
            // `impl Trait + use<'a>` is no import.
            Some("use") if !is_punct(tokens, at + 1, '<') => {
                let (leaves, end) = use_tree::read(tokens, at + 1);
                leaves.iter().for_each(|leaf| self.import(leaf, scope));
                end
            }
            Some("extern") if ident(tokens, at + 1).as_deref() == Some("crate") => {
                self.refuse(tokens, at, "`extern crate` can rename a crate: name it in `use`");
                at + 3
            }
            Some("include") if is_punct(tokens, at + 1, '!') => {
                self.refuse(tokens, at, "`include!` hides what a module is made of: make it a module");
                at + 2
            }
            // The path of `pub(in crate::a)` is one of the modules around it, so it never leads to another part.
            Some(keyword) => {
                self.define(tokens, at, keyword, scope);
                self.path(tokens, at, scope)
            }
            None => at + 1,
        }
    }

    fn submodule(&mut self, tokens: &[TokenTree], at: usize, scope: &Scope) -> usize {
        let Some(name) = ident(tokens, at + 1) else { return at + 1 };
        let module: Vec<String> = scope.module.iter().cloned().chain([name]).collect();
        if scope.test {
            self.found.test_modules.push(module.clone());
        }
        match group(tokens, at + 2, Delimiter::Brace) {
            Some(body) => self.module(&list(body.stream()), &module, scope.test),
            None => return at + 2,
        }
        at + 3
    }

    /// Paths among an attribute's tokens, and its strings that are paths.
    fn attribute(&mut self, tokens: &[TokenTree], scope: &Scope) {
        let scope = Scope { items: false, ..scope.clone() };
        self.tokens(tokens, &scope);
        self.strings(tokens.iter().cloned().collect(), &scope);
    }

    fn strings(&mut self, stream: TokenStream, scope: &Scope) {
        for token in stream {
            match &token {
                TokenTree::Group(group) => self.strings(group.stream(), scope),
                TokenTree::Literal(literal) => {
                    let written = literal.to_string();
                    let text = written.trim_start_matches('r').trim_matches('#').trim_matches('"');
                    let is_path = text.contains("::")
                        && text
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '<' | '>' | ' '));
                    if let (true, Ok(path)) = (is_path, text.parse::<TokenStream>()) {
                        let mut path = list(path);
                        path.iter_mut().for_each(|part| part.set_span(token.span()));
                        self.tokens(&path, scope);
                    }
                }
                _ => {}
            }
        }
    }

    fn define(&mut self, tokens: &[TokenTree], at: usize, keyword: &str, scope: &Scope) {
        // Elsewhere `type` is a member of a trait, and `union` may be any name.
        let is_type = matches!(keyword, "struct" | "enum" | "trait")
            || (scope.items && matches!(keyword, "type" | "union"));
        if let (true, Some(name)) = (is_type, ident(tokens, at + 1)) {
            let (file, line, module) =
                (self.place.file.to_owned(), line(tokens, at + 1), scope.module.clone());
            self.found.definitions.push(Definition { name, file, line, module, test: scope.test });
        }
    }

    fn refuse(&mut self, tokens: &[TokenTree], at: usize, why: &'static str) {
        self.found.refusals.push(Refusal { file: self.place.file.to_owned(), line: line(tokens, at), why });
    }
}

/// The modules that a module declares, and the names that its `use` bind to something below a path.
fn local_names(tokens: &[TokenTree]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for at in 0..tokens.len() {
        match ident(tokens, at).as_deref() {
            Some("mod") => names.extend(ident(tokens, at + 1)),
            Some("use") => {
                let (leaves, _) = use_tree::read(tokens, at + 1);
                names.extend(
                    leaves.into_iter().filter(|leaf| leaf.path.len() > 1).filter_map(|leaf| leaf.bound),
                );
            }
            _ => {}
        }
    }
    names
}
