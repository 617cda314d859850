//! Layers and circles: of this tree, and of planted ones in which each forbidden form must be found.

use std::collections::BTreeSet;
use structure::layers::{LAYERS, Layers, Verdict, check};
use structure::source::Sources;
use structure::tree::Tree;
use structure::{StructureError, circles};

type Result<T = ()> = std::result::Result<T, StructureError>;

#[test]
fn every_import_leads_to_a_lower_layer() -> Result {
    let verdict = check(&Sources::read(&Tree::of_checkout()?)?, LAYERS);
    println!("{} imports between parts, {} upwards in tests only:", verdict.judged, verdict.in_tests.len());
    verdict.in_tests.iter().for_each(|breach| println!("  {breach}"));
    let wrong = lines(&verdict);
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
    assert!(verdict.judged > 0, "no import was seen: the table or the tree is wrong");
    Ok(())
}

#[test]
fn no_modules_of_a_root_import_each_other_in_a_circle() -> Result {
    let sources = Sources::read(&Tree::of_checkout()?)?;
    let reports: Vec<String> = sources
        .crates
        .iter()
        .filter_map(|source| circles::report(&sources.member(source).folder, source))
        .collect();
    assert!(reports.is_empty(), "\n{}", reports.join("\n"));
    Ok(())
}

fn lines(verdict: &Verdict) -> Vec<String> {
    verdict.table.iter().cloned().chain(verdict.breaches.iter().map(ToString::to_string)).collect()
}

// ---- planted -------------------------------------------------------------------------------------------------------

const PLANTED: Layers<'static> = &[&["app/src/top", "app/src/beside"], &["app/src/low"], &["base"]];

const MANIFESTS: [(&str, &str); 3] = [
    (
        "Cargo.toml",
        "[workspace]\nmembers = ['app', 'base', 'tests']\n[workspace.dependencies]\nours-base = { path = 'base' }\n",
    ),
    ("base/Cargo.toml", "[package]\nname = 'ours-base'\n"),
    ("tests/Cargo.toml", "[package]\nname = 'checks'\n"),
];

/// A workspace with two crates; `low` and `base` are the given ones.
fn planted(low: &str, base: &str, dependencies: &str) -> Result<Sources> {
    let app = format!("[package]\nname = 'app'\n[dependencies]\n{dependencies}\n");
    let [root, base_manifest, tests] = MANIFESTS;
    Sources::read(&Tree::planted([
        root,
        base_manifest,
        tests,
        ("app/Cargo.toml", &app),
        (
            "app/src/lib.rs",
            "pub mod beside;\npub mod low;\npub mod top;\npub use top::Shown;\npub struct Root;\n",
        ),
        ("app/src/top.rs", "use crate::low;\npub struct Shown;\npub fn perform() {}\n"),
        ("app/src/beside.rs", "pub struct Other;\n"),
        ("app/src/low.rs", "pub mod deep;\n"),
        ("app/src/low/deep.rs", low),
        ("base/src/lib.rs", base),
        ("tests/lib.rs", ""),
    ]))
}

fn found(low: &str) -> Result<Vec<String>> {
    Ok(lines(&check(&planted(low, "pub struct Thing;", "ours-base.workspace = true")?, PLANTED)))
}

#[test]
fn an_import_upwards_is_found_in_each_form() -> Result {
    for (form, text, said) in [
        ("use", "use crate::top::Shown;", "`crate::top::Shown`"),
        ("group of use", "use crate::{\n    Root,\n    top::{self, Shown},\n};", "`crate::top`"),
        ("glob", "use crate::top::*;", "`crate::top::*`"),
        ("public use", "pub(crate) use crate::top as upper;", "`crate::top`"),
        ("through the root", "use crate::Shown;", "`crate::Shown`"),
        ("expression", "fn f() {\n    crate::top::perform();\n}", "`crate::top::perform`"),
        ("type", "fn f(_: Option<&crate::top::Shown>) {}", "`crate::top::Shown`"),
        ("super", "fn f() { super::super::top::perform() }", "`super::super::top::perform`"),
        ("self", "use self::super::super::top;", "`self::super::super::top`"),
        ("inline module", "mod a { mod b { use super::super::super::super::top; } }", "super::top`"),
        ("attribute", "#[arg(value_parser = crate::top::perform)]\nstruct A;", "`crate::top::perform`"),
        (
            "string of an attribute",
            "#[serde(default = \"crate::top::perform\")]\nstruct A;",
            "`crate::top::perform`",
        ),
        (
            "macro call",
            "fn f() {\n    println!(\"{}\", [crate::top::perform()]);\n}",
            "`crate::top::perform`",
        ),
        ("macro body", "macro_rules! m { () => { $crate::top::perform() }; }", "`crate::top::perform`"),
        ("build without tests", "#[cfg(not(test))]\nuse crate::top;", "`crate::top`"),
    ] {
        let found = found(text)?;
        let line =
            1 + text.lines().position(|line| line.contains("top") || line.contains("Shown")).unwrap_or(0);
        let place = format!("app/src/low/deep.rs:{line}: ");
        let is_it = |line: &String| {
            line.starts_with(&place) && line.contains(said) && line.ends_with("is above app/src/low")
        };
        assert!(found.iter().any(is_it), "{form}: not found in {text}: {found:?}");
    }
    Ok(())
}

#[test]
fn what_only_looks_like_an_import_is_none() -> Result {
    for text in [
        "// crate::top::perform\n/* crate::top */\n/// crate::top, [`crate::top`]\nstruct A;",
        "const A: &str = \"crate::top::perform\";",
        "#[doc = \"crate::top\"]\nstruct A;",
        "pub(in crate::low) struct A;\npub(crate) struct B;\nstruct C(pub(super) u8);",
        "use crate::low::deep;\nuse super::deep::A;\nuse crate::Root;",
        "use std::top;\nfn f() { other::crate_top::top(); top.top::<u8>(); }",
    ] {
        assert_eq!(found(text)?, [""; 0], "{text}");
    }
    Ok(())
}

#[test]
fn another_crate_is_seen_by_the_name_that_it_has_in_code() -> Result {
    let upwards = |base: &str| -> Result<Vec<String>> {
        let [_, _, tests] = MANIFESTS;
        let sources = Sources::read(&Tree::planted([
            ("Cargo.toml", "[workspace]\nmembers = ['high', 'base', 'tests']\n"),
            ("high/Cargo.toml", "[package]\nname = 'ours-high'\n"),
            ("high/src/lib.rs", "pub struct Thing;"),
            ("base/Cargo.toml", "[package]\nname = 'base'\n[dependencies]\nours-high.path = '../high'\n"),
            ("base/src/lib.rs", base),
            tests,
        ]))?;
        Ok(lines(&check(&sources, &[&["high"], &["base"]])))
    };
    let manifest = "base/Cargo.toml:4: base depends on high, which is not below it".to_owned();
    for text in [
        "use ours_high::Thing;",
        "fn f() { ours_high::f() }",
        "use ours_high;",
        "fn f(_: ::ours_high::Thing) {}",
    ] {
        let found = upwards(text)?;
        assert_eq!(found.len(), 2, "{text}: {found:?}");
        assert_eq!(found[0], manifest);
        assert!(
            found[1].starts_with("base/src/lib.rs:1: ") && found[1].ends_with("high is above base"),
            "{found:?}"
        );
    }
    assert_eq!(upwards("struct A;")?, [manifest.as_str()], "a dependency counts that no code names");
    for text in [
        "mod ours_high { pub fn f() {} }\nfn f() { ours_high::f() }",
        "use std::fmt as ours_high;\nfn f() { ours_high::f() }",
        "fn f() { <A as B>::ours_high::f(); a::ours_high::f(); a.ours_high() }",
    ] {
        assert_eq!(upwards(text)?, [manifest.as_str()], "{text}");
    }
    let said = upwards("mod ours_high { pub fn f() {} }\nfn f() { ::ours_high::f() }")?;
    assert_eq!(said.len(), 2, "`::` begins at the crates: {said:?}");
    Ok(())
}

#[test]
fn two_parts_of_a_layer_do_not_import_each_other() -> Result {
    let [root, base, tests] = MANIFESTS;
    let sources = Sources::read(&Tree::planted([
        root,
        base,
        tests,
        ("app/Cargo.toml", "[package]\nname = 'app'\n"),
        ("app/src/lib.rs", "mod beside; mod low; mod top;"),
        ("app/src/top.rs", "use crate::beside::Other;"),
        ("app/src/beside.rs", "pub struct Other;"),
        ("app/src/low.rs", "struct A;"),
        ("base/src/lib.rs", "struct A;"),
    ]))?;
    let found = lines(&check(&sources, PLANTED));
    assert_eq!(found, ["app/src/top.rs:1: `crate::beside::Other`: app/src/beside stands beside app/src/top"]);
    Ok(())
}

#[test]
fn what_hides_an_import_is_refused() -> Result {
    for text in [
        "use crate as top;",
        "use crate::{self as top};",
        "use super::super as top;",
        "use super::super::*;",
        "use crate::*;",
        "use ours_base as base;",
        "extern crate ours_base;",
        "#[path = \"../top.rs\"]\nmod top;",
        "#[cfg_attr(unix, path = \"../top.rs\")]\nmod top;",
        "include!(\"../top.rs\");",
    ] {
        let found = found(text)?;
        assert!(found.iter().any(|line| line.starts_with("app/src/low/deep.rs:1: ")), "{text}: {found:?}");
    }
    Ok(())
}

#[test]
fn tests_import_upwards_and_are_listed_apart() -> Result {
    for text in [
        "#[cfg(test)]\nuse crate::top;\nstruct A;",
        "#[cfg(test)]\n#[allow(dead_code)]\npub(crate) fn f<A, B>(_: A, _: B) { crate::top::perform() }",
        "#[cfg(all(test, unix))]\nmod tests { use crate::top; }",
        "mod tests { #![cfg(test)] use crate::top; }",
        "#![cfg(test)]\nuse crate::top;",
        "#[cfg(test)]\nconst A: u8 = { 1 } + crate::top::perform();",
        "struct A { #[cfg(test)] a: crate::top::Shown, b: u8 }",
        "#[cfg(doc)]\nuse crate::top;",
    ] {
        let verdict = check(&planted(text, "struct A;", "ours-base.workspace = true")?, PLANTED);
        assert_eq!(lines(&verdict), [""; 0], "{text}");
        assert_eq!(verdict.in_tests.len(), 1, "{text}: {:?}", verdict.in_tests);
    }
    // The test ends where its item ends.
    let found = found("#[cfg(test)]\nconst A: [u8; { 1 }] = [1];\nuse crate::top;")?;
    assert_eq!(found.len(), 1, "{found:?}");
    Ok(())
}

#[test]
fn a_file_of_a_test_module_is_a_test() -> Result {
    let [root, base, tests] = MANIFESTS;
    let sources = Sources::read(&Tree::planted([
        root,
        base,
        tests,
        ("app/Cargo.toml", "[package]\nname = 'app'\n"),
        ("app/src/lib.rs", "mod beside; mod low; mod top;\n#[cfg(test)]\nmod stand_in;"),
        ("app/src/stand_in.rs", "use crate::top;"),
        ("app/src/top.rs", "pub struct Shown;"),
        ("app/src/beside.rs", "struct A;"),
        ("app/src/low.rs", "#[cfg(test)]\nmod tests;"),
        ("app/src/low/tests.rs", "mod more;"),
        ("app/src/low/tests/more.rs", "use crate::top::Shown;"),
        ("base/src/lib.rs", "struct A;"),
    ]))?;
    let verdict = check(&sources, PLANTED);
    assert_eq!(lines(&verdict), [""; 0]);
    assert_eq!(verdict.in_tests.len(), 1, "{:?}", verdict.in_tests);
    Ok(())
}

#[test]
fn the_table_and_the_tree_have_the_same_parts() -> Result {
    let sources = planted("struct A;", "struct A;", "ours-base.workspace = true")?;
    let table: Layers<'_> = &[&["app/src/top", "app/src/beside", "app/src/gone"], &["base", "other"]];
    let said: BTreeSet<String> = check(&sources, table).table.into_iter().collect();
    let expected = [
        "app/src/gone is in the table and not in the tree",
        "app/src/low has no layer",
        "other is in the table and not in the tree",
    ];
    assert_eq!(said, expected.map(str::to_owned).into());
    Ok(())
}

#[test]
fn a_circle_of_three_modules_is_shown_with_its_imports() -> Result {
    let circle = |last: &str| -> Result<Option<String>> {
        let sources = Sources::read(&Tree::planted([
            ("Cargo.toml", "[workspace]\nmembers = ['base']\n"),
            ("base/Cargo.toml", "[package]\nname = 'base'\n"),
            ("base/src/lib.rs", "mod a; mod b; mod c; mod d; pub use a::A;"),
            ("base/src/a.rs", "use crate::b::B;\npub struct A;"),
            ("base/src/b.rs", "pub mod inner;"),
            ("base/src/b/inner.rs", "fn f() {\n    super::super::c::f()\n}"),
            ("base/src/c.rs", last),
            ("base/src/d.rs", "use crate::a;\n#[cfg(test)]\nmod tests { use crate::d; }"),
        ]))?;
        Ok(circles::report("base", &sources.crates[0]))
    };
    let said = circle("fn f() {}\n#[arg(of = crate::a::f)]\nstruct A;")?.unwrap_or_default();
    let expected = "base: 3 modules are in circles: a, b, c\n  a circle of 3:\n    \
        a → b    `crate::b::B`, base/src/a.rs:1\n    \
        b → c    `super::super::c::f`, base/src/b/inner.rs:2\n    \
        c → a    `crate::a::f`, base/src/c.rs:2\n";
    assert_eq!(said, expected);
    assert!(circle("use crate::A;")?.is_some(), "a name of the root leads to the module it is of");
    assert_eq!(circle("#[cfg(test)]\nuse crate::a;\nstruct C;")?, None);
    assert_eq!(circle("fn f() {}")?, None);
    Ok(())
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_line() {
    let error = planted("fn f() {\n  ]\n", "struct A;", "").unwrap_err().to_string();
    assert!(error.starts_with("app/src/low/deep.rs:2: "), "{error}");
}
