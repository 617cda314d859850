//! Where things are: the table of `docs/architecture.md` that leads from a question to a definition.
//!
//! A definition is found in the tokens of its file, so a name in a comment or in a string is none.

use crate::StructureError;
use crate::markdown::Table;
use crate::tokens::{ident, list};
use crate::tree::Tree;
use proc_macro2::{LexError, TokenStream, TokenTree};

/// The document.
pub const FILE: &str = "docs/architecture.md";
/// The table in it.
const TABLE: Table<'static> =
    Table { file: FILE, heading: "## Where is ...?", columns: ["question", "path", "symbol"] };
/// The fewest rows that are of use.
pub const ROWS_MIN: usize = 12;
/// What a definition begins with.
const KEYWORDS: [&str; 9] = ["const", "enum", "fn", "mod", "static", "struct", "trait", "type", "union"];

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What is asked.
    pub question: String,
    /// The file of the answer, from the root of the tree.
    pub path: String,
    /// What is defined there.
    pub symbol: String,
    /// The row's line in [`FILE`].
    pub line: usize,
}

/// Reads the table.
pub fn read(tree: &Tree) -> Result<Vec<Place>, StructureError> {
    let text = tree.file(FILE).ok_or_else(|| StructureError::malformed(FILE, 1, "there is no such file"))?;
    let rows = TABLE.rows(text)?;
    if rows.len() < ROWS_MIN {
        let (line, _) = rows[0];
        let why = format!("{} rows, fewer than {ROWS_MIN}", rows.len());
        return Err(StructureError::malformed(FILE, line, why));
    }
    Ok(rows
        .into_iter()
        .map(|(line, [question, path, symbol])| Place { question, path, symbol, line })
        .collect())
}

/// The rows that lead nowhere, in words.
pub fn misleading(tree: &Tree, places: &[Place]) -> Result<Vec<String>, StructureError> {
    let mut wrong = Vec::new();
    for Place { path, symbol, line, .. } in places {
        match tree.file(path) {
            None => wrong.push(format!("{FILE}:{line}: there is no file `{path}`")),
            Some(text) if !is_defined(path, text, symbol)? => {
                wrong.push(format!("{FILE}:{line}: `{path}` defines no `{symbol}`"));
            }
            Some(_) => {}
        }
    }
    Ok(wrong)
}

fn is_defined(path: &str, text: &str, symbol: &str) -> Result<bool, StructureError> {
    let tokens: TokenStream = text.parse().map_err(|error: LexError| {
        StructureError::malformed(path, error.span().start().line, "these are no tokens of Rust")
    })?;
    Ok(defines(tokens, symbol))
}

fn defines(tokens: TokenStream, symbol: &str) -> bool {
    let tokens = list(tokens);
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(group) => defines(group.stream(), symbol),
        TokenTree::Ident(_) => {
            ident(&tokens, at).is_some_and(|word| KEYWORDS.contains(&word.as_str()))
                && ident(&tokens, at + 1).as_deref() == Some(symbol)
        }
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}
