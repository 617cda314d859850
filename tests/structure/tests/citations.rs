//! Citations of documents that are not in the repository.

use structure::StructureError;
use structure::citations::dangling;
use structure::tree::Tree;

#[test]
fn no_file_cites_a_document_that_is_not_here() -> Result<(), StructureError> {
    let found: Vec<String> = dangling(&Tree::of_checkout()?)?.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} citations:\n{}", found.len(), found.join("\n"));
    Ok(())
}

// ---- planted -------------------------------------------------------------------------------------------------------

fn found(text: &str) -> Result<Vec<(usize, String)>, StructureError> {
    let tree = Tree::planted([
        ("base/src/a.rs", text),
        ("docs/architecture.md", "# A\n\n## Notices\n\n```text\n# Code\n```\n"),
        ("facts/here.md", "It is."),
    ]);
    Ok(dangling(&tree)?.into_iter().map(|citation| (citation.line, citation.cited)).collect())
}

#[test]
fn what_is_not_here_is_found() -> Result<(), StructureError> {
    for (text, line, cited) in [
        ("\n// The order (design §5).", 2, "a section of the design"),
        ("// As Design  §12 says.", 1, "a section of the design"),
        ("//! As the design\n//! §5 says.", 1, "a section of the design"),
        ("# by design.md §3", 1, "a section of the design"),
        ("// five seconds (facts/store.md\n//! §1.2)", 1, "facts/store.md"),
        ("facts/a-b/c.md", 1, "facts/a-b/c.md"),
        ("// `shared/house.md`", 1, "shared/house.md"),
        ("\n\n[it](shared/house.md)", 3, "shared/house.md"),
        ("// /work/shared/house", 1, "/work/shared/house"),
        ("// lab/run.sh.", 1, "lab/run.sh"),
        ("// see design.md", 1, "design.md"),
        ("// \"Budget\" in docs/architecture.md", 1, "docs/architecture.md: Budget"),
        ("// \"Code\" in docs/architecture.md", 1, "docs/architecture.md: Code"),
    ] {
        let found = found(text)?;
        assert!(found.contains(&(line, cited.to_owned())), "{text}: {found:?}");
    }
    Ok(())
}

#[test]
fn what_is_here_and_what_only_looks_like_it_is_left_alone() -> Result<(), StructureError> {
    for text in [
        "// facts/here.md says it.",
        "// \"Notices\" in docs/architecture.md",
        "// RFC 9110 §5.6.7",
        "// Turns are taken by design.",
        "mod facts; // agent/core/src/facts.rs, https://a.b/shared/c",
        "format!(\"{shard}/shared/{name}/\")",
        "// docs/decisions/0001-the-design.md",
        "// shared between pods; facts / figures",
    ] {
        let found = found(text)?;
        assert!(found.is_empty(), "{text}: {found:?}");
    }
    Ok(())
}
