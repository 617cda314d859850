//! The documents say what is there.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).context("the repository's root")
}

fn sources(folder: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sources(&entry.path(), text)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

#[test]
fn every_test_that_a_document_names_exists() -> Result<()> {
    let root = root()?;
    let mut code = String::new();
    for folder in ["agent", "checkpoint", "tests"] {
        sources(&root.join(folder), &mut code)?;
    }
    // Words between backticks that are long and of one kind are tests; flags and paths are not.
    let is_test = |word: &&str| {
        word.len() >= 20 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    for (document, at_least) in [("docs/guarantees.md", 30), ("docs/store.md", 30)] {
        let text = std::fs::read_to_string(root.join(document))?;
        let named: Vec<&str> = text.split('`').filter(is_test).collect();
        assert!(named.len() > at_least, "{document}: only {} tests are named", named.len());
        let missing: Vec<&&str> =
            named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{document} names tests that are not there: {missing:?}");
    }
    Ok(())
}
