//! Types of one name.

use structure::StructureError;
use structure::source::Sources;
use structure::tree::Tree;
use structure::types::{ALLOWED, Allowed, Names, check};

#[test]
fn few_types_share_a_name_within_their_crate() -> Result<(), StructureError> {
    let sources = Sources::read(&Tree::of_checkout()?)?;
    for source in &sources.crates {
        println!("{}", Names::of(&sources.member(source).folder, source).table());
    }
    let wrong = check(&sources, ALLOWED);
    assert!(wrong.is_empty(), "{} findings (--nocapture shows where):\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

// ---- planted -------------------------------------------------------------------------------------------------------

const SHARED: Allowed = Allowed { folder: "base", name: "Step", reason: "planted" };

fn found(text: &str, allowed: &[Allowed]) -> Result<Vec<String>, StructureError> {
    let sources = Sources::read(&Tree::planted([
        ("Cargo.toml", "[workspace]\nmembers = ['base']\n"),
        ("base/Cargo.toml", "[package]\nname = 'base'\n"),
        ("base/src/lib.rs", "mod a;\nstruct Step;"),
        ("base/src/a.rs", text),
    ]))?;
    Ok(check(&sources, allowed))
}

#[test]
fn each_kind_of_type_is_counted() -> Result<(), StructureError> {
    for text in [
        "pub(crate) enum Step {}",
        "trait Step {}",
        "type Step = u8;",
        "union Step { a: u8 }",
        "struct Step<T>(T);",
        "mod b { pub struct Step; }",
        "fn f() { struct Step; }",
        "made! { pub struct Step {} }",
    ] {
        let expected = ["base: 2 types are called Step", "base: 2 of 2 types share a name, more than 5 %"];
        assert_eq!(found(text, &[])?, expected, "{text}");
    }
    Ok(())
}

#[test]
fn what_is_no_type_of_the_crate_is_not_counted() -> Result<(), StructureError> {
    for text in [
        "impl A for B { type Step = u8; }",
        "trait A { type Step; }",
        "fn step() { let union = Step; }",
        "use other::Step;",
        "#[cfg(test)]\nmod tests { struct Step; }",
        "#[cfg(test)]\nstruct Step;",
        "// struct Step;\nconst A: &str = \"struct Step;\";",
    ] {
        assert_eq!(found(text, &[])?, [""; 0], "{text}");
    }
    Ok(())
}

#[test]
fn a_shared_name_needs_a_reason_and_a_crate_with_many_others() -> Result<(), StructureError> {
    let many: String = (0..38).map(|number| format!("struct A{number};\n")).collect();
    assert_eq!(found(&format!("{many}struct Step;"), &[SHARED])?, [""; 0]);
    let few = many.replace("struct A0;", "");
    let said = found(&format!("{few}struct Step;"), &[SHARED])?;
    assert_eq!(said, ["base: 2 of 39 types share a name, more than 5 %"]);
    Ok(())
}

#[test]
fn an_allowance_that_nothing_needs_is_found() -> Result<(), StructureError> {
    assert_eq!(found("", &[SHARED])?, ["base: Step is allowed and not shared: take it off the list"]);
    let groundless = Allowed { reason: "", ..SHARED };
    let said = found("struct Step;", &[groundless])?;
    assert!(said.contains(&"base: Step is allowed for no reason".to_owned()), "{said:?}");
    Ok(())
}
