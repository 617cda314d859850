//! The table "Where is ...?" of `docs/architecture.md`.

use structure::StructureError;
use structure::places::{ROWS_MIN, misleading, read};
use structure::tree::Tree;

#[test]
fn each_row_leads_to_a_definition() -> Result<(), StructureError> {
    let tree = Tree::of_checkout()?;
    let wrong = misleading(&tree, &read(&tree)?)?;
    assert!(wrong.is_empty(), "{} rows lead nowhere:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

// ---- planted -------------------------------------------------------------------------------------------------------

/// Eleven rows that are right, and this one.
fn document(row: &str) -> String {
    let right = "| of a type | `base/src/a.rs` | `Order` |\n".repeat(ROWS_MIN - 1);
    format!(
        "# A\n\n## Where is ...?\n\nText.\n\n| question | path | symbol |\n|---|---|---|\n{right}{row}\n## B\n"
    )
}

fn found(row: &str, text: &str) -> Result<Vec<String>, StructureError> {
    let text = format!("pub struct Order;\n{text}");
    let tree = Tree::planted([("docs/architecture.md", &document(row)), ("base/src/a.rs", &text)]);
    misleading(&tree, &read(&tree)?)
}

#[test]
fn each_kind_of_definition_is_found() -> Result<(), StructureError> {
    for text in [
        "pub(crate) fn it() {}",
        "impl Order { async fn it(&self) {} }",
        "trait it {}",
        "enum it {}",
        "const it: u8 = 1;",
        "const fn it() {}",
        "static it: u8 = 1;",
        "pub mod it;",
        "mod tests {\n    #[test]\n    fn it() {}\n}",
        "made! { struct it; }",
    ] {
        assert_eq!(found("| q | `base/src/a.rs` | `it` |\n", text)?, [""; 0], "{text}");
    }
    Ok(())
}

#[test]
fn a_path_or_a_symbol_that_is_not_there_is_found() -> Result<(), StructureError> {
    let line = 9 + ROWS_MIN - 1;
    let said = found("| q | `base/src/gone.rs` | `it` |\n", "fn it() {}")?;
    assert_eq!(said, [format!("docs/architecture.md:{line}: there is no file `base/src/gone.rs`")]);
    for text in
        ["fn its() {}", "// fn it() {}", "/* fn it() {} */", "fn f() { it() }", "const A: &str = \"fn it\";"]
    {
        let said = found("| q | `base/src/a.rs` | `it` |\n", text)?;
        assert_eq!(said, [format!("docs/architecture.md:{line}: `base/src/a.rs` defines no `it`")], "{text}");
    }
    Ok(())
}

#[test]
fn a_table_that_cannot_be_right_is_an_error() {
    let said = |text: &str| {
        read(&Tree::planted([("docs/architecture.md", text)])).map_err(|error| error.to_string()).unwrap_err()
    };
    let file = "docs/architecture.md";
    assert!(said("# A\n").starts_with(&format!("{file}:1: the heading `## Where is ...?`")));
    assert!(
        said("## Where is ...?\n\nNothing.\n").starts_with(&format!("{file}:1: a table with the columns"))
    );
    assert!(said(&document("")).starts_with(&format!("{file}:9: {} rows, fewer than", ROWS_MIN - 1)));
    assert!(said(&document("| q | `a` |\n")).ends_with("2 cells instead of 3"));
    assert!(read(&Tree::default()).is_err(), "there is no document");
}
