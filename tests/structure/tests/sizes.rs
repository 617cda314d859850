//! The length of files.

use structure::StructureError;
use structure::sizes::{LINES_MAX, lines, median, too_long};
use structure::source::Sources;
use structure::tree::Tree;

#[test]
fn no_file_is_too_long() -> Result<(), StructureError> {
    let tree = Tree::of_checkout()?;
    let lines = lines(&tree, &Sources::read(&tree)?);
    let longest: Vec<_> = lines.iter().rev().take(5).collect();
    println!("{} files, median {} lines, the longest: {longest:?}", lines.len(), median(&lines));
    let too_long = too_long(&lines);
    assert!(too_long.is_empty(), "more than {LINES_MAX} lines: {too_long:?}");
    Ok(())
}

#[test]
fn a_long_file_of_a_shipped_crate_is_found() -> Result<(), StructureError> {
    let (long, most) = ("\n".repeat(LINES_MAX + 1), "\n".repeat(LINES_MAX));
    let tree = Tree::planted([
        ("Cargo.toml", "[workspace]\nmembers = ['base', 'tests']\n"),
        ("base/Cargo.toml", "[package]\nname = 'base'\n"),
        ("base/src/lib.rs", "struct A;"),
        ("base/src/most.rs", &most),
        ("base/tests/long.rs", &long),
        ("base/long.svg", &long),
        ("tests/Cargo.toml", "[package]\nname = 'checks'\n"),
        ("tests/long.rs", &long),
    ]);
    let lines = lines(&tree, &Sources::read(&tree)?);
    assert_eq!(too_long(&lines), [(LINES_MAX + 1, "base/tests/long.rs")]);
    assert_eq!(median(&lines), LINES_MAX);
    Ok(())
}
