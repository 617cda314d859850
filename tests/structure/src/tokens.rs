//! What the token walk asks of tokens.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The identifier at `at`, without `r#`.
pub(crate) fn ident(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string().trim_start_matches("r#").to_owned()),
        _ => None,
    }
}

/// The group at `at`, if it has this delimiter.
pub(crate) fn group(tokens: &[TokenTree], at: usize, delimiter: Delimiter) -> Option<&Group> {
    match tokens.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

/// Is `letter` at `at`?
pub(crate) fn is_punct(tokens: &[TokenTree], at: usize, letter: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == letter)
}

/// Is `::` at `at`?
pub(crate) fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

/// The line of the token at `at`.
pub(crate) fn line(tokens: &[TokenTree], at: usize) -> usize {
    tokens.get(at).map_or(0, |token| token.span().start().line)
}

/// All tokens of a stream.
pub(crate) fn list(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

/// `#[…]` or `#![…]`.
pub(crate) struct Attribute {
    /// `#!`: it is about what it stands in.
    pub inner: bool,
    /// What is between the brackets.
    pub body: Vec<TokenTree>,
    /// The first token after it.
    pub end: usize,
}

/// The attribute that begins at `at`.
pub(crate) fn attribute(tokens: &[TokenTree], at: usize) -> Option<Attribute> {
    if !is_punct(tokens, at, '#') {
        return None;
    }
    let inner = is_punct(tokens, at + 1, '!');
    let brackets = at + 1 + usize::from(inner);
    let body = list(group(tokens, brackets, Delimiter::Bracket)?.stream());
    Some(Attribute { inner, body, end: brackets + 1 })
}

impl Attribute {
    /// Its name, if that is one word.
    pub(crate) fn name(&self) -> Option<String> {
        ident(&self.body, 0)
    }

    /// `#[path = "…"]`, under a condition or not.
    pub(crate) fn moves_a_module(&self) -> bool {
        let sets_path = |tokens: &[TokenTree]| {
            (0..tokens.len())
                .any(|at| ident(tokens, at).as_deref() == Some("path") && is_punct(tokens, at + 1, '='))
        };
        match self.name().as_deref() {
            Some("path") => sets_path(&self.body),
            Some("cfg_attr") => group(&self.body, 1, Delimiter::Parenthesis)
                .is_some_and(|conditional| sets_path(&list(conditional.stream()))),
            _ => false,
        }
    }

    /// Is what it is about left out of a build: `cfg(test)`, `cfg(doc)`, or one of them among what `all` asks for?
    pub(crate) fn is_left_out(&self) -> bool {
        self.name().as_deref() == Some("cfg")
            && group(&self.body, 1, Delimiter::Parenthesis).is_some_and(|of| needs_test(&list(of.stream())))
    }
}

fn needs_test(predicate: &[TokenTree]) -> bool {
    match ident(predicate, 0).as_deref() {
        Some("test" | "doc") => predicate.len() == 1,
        Some("all") => group(predicate, 1, Delimiter::Parenthesis).is_some_and(|all| {
            let all = list(all.stream());
            all.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','))
                .any(needs_test)
        }),
        _ => false,
    }
}

/// The first token after the item, field, variant or statement that begins at `at`.
pub(crate) fn item_end(tokens: &[TokenTree], mut at: usize) -> usize {
    while let Some(attribute) = attribute(tokens, at) {
        at = attribute.end;
    }
    if ident(tokens, at).as_deref() == Some("pub") {
        at += 1 + usize::from(group(tokens, at + 1, Delimiter::Parenthesis).is_some());
    }
    let is_function = |at| matches!(ident(tokens, at).as_deref(), Some("fn" | "unsafe" | "async" | "extern"));
    let (to_semicolon, over_commas) = match ident(tokens, at).as_deref() {
        Some("const") => (!is_function(at + 1), true),
        Some("use" | "static" | "type" | "let") => (true, true),
        Some(
            "fn" | "mod" | "struct" | "enum" | "union" | "trait" | "impl" | "unsafe" | "async" | "extern"
            | "macro_rules",
        ) => (false, true),
        _ => (false, false),
    };
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => break,
            TokenTree::Punct(punct) if punct.as_char() == ',' && !over_commas => break,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !to_semicolon => break,
            _ => {}
        }
    }
    at
}
