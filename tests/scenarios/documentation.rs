//! The documents say what is there.

use anyhow::{Context, Result, ensure};
use lifeboat_tests::lifeboat;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) fn root() -> Result<PathBuf> {
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

/// Every Markdown file of the repository, by its path from the root.
fn documents() -> Result<BTreeMap<PathBuf, String>> {
    let root = root()?;
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().display().to_string();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.insert(path.strip_prefix(&root)?.to_owned(), std::fs::read_to_string(&path)?);
            }
        }
    }
    ensure!(found.len() > 10, "only {} documents were found", found.len());
    Ok(found)
}

/// The anchors of a document's headings, as GitHub makes them.
pub(crate) fn headings(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !fenced && title.len() < line.len() && title.starts_with(' ') {
            let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    found
}

/// The fenced blocks of shell, each with the paragraph in front of it.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((front, after)) = rest.split_once("\n```sh\n") {
        let Some((block, end)) = after.split_once("\n```") else { break };
        found.push((&front[front.trim_end().rfind("\n\n").unwrap_or(0)..], block));
        rest = end;
    }
    found
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
        word.len() >= 20
            && word.matches('_').count() >= 3
            && !word.starts_with("lifeboat_")
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let documents = documents()?;
    for (document, text) in &documents {
        let named: Vec<&str> = text.split('`').filter(is_test).collect();
        let missing: Vec<&&str> =
            named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{} names tests that are not there: {missing:?}", document.display());
    }
    for (document, at_least) in [("docs/guarantees.md", 30), ("docs/store.md", 30), ("SECURITY.md", 10)] {
        let text = &documents[Path::new(document)];
        let named = text.split('`').filter(is_test).count();
        assert!(named > at_least, "{document}: only {named} tests are named");
    }
    Ok(())
}

#[test]
fn every_link_between_documents_leads_somewhere() -> Result<()> {
    let root = root()?;
    let documents = documents()?;
    let mut followed = 0;
    for (document, text) in &documents {
        let folder = document.parent().unwrap_or(Path::new(""));
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
        {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let place = if path.is_empty() { root.join(document) } else { root.join(folder).join(path) };
            assert!(place.exists(), "{}: {target} leads nowhere", document.display());
            if !anchor.is_empty() && place.is_file() {
                let there = headings(&std::fs::read_to_string(&place)?);
                assert!(there.contains(anchor), "{}: {target}: no such heading", document.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "only {followed} links were found");
    Ok(())
}

/// The words of `lifeboat ...` in a line of shell, whoever runs it; quotes are taken off.
fn command(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next()?.trim();
    let ours = match line.split_once(" -- lifeboat ") {
        Some((_, rest)) => rest,
        None => line.strip_prefix("lifeboat ")?,
    };
    let ours = ours.split(['|', '>', ';', '&']).next()?;
    Some(ours.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect())
}

#[test]
fn every_lifeboat_command_in_a_document_is_one_that_the_binary_knows() -> Result<()> {
    let binary = lifeboat()?;
    let mut known = 0;
    for (document, text) in documents()? {
        for (_, block) in blocks(&text) {
            for words in block.replace("\\\n", " ").lines().filter_map(command) {
                // Everything in front of it is parsed first: an unknown flag or a wrong value is said instead.
                let asked = Command::new(&binary)
                    .args(&words)
                    .arg("--help")
                    .env_clear()
                    .stdin(Stdio::null())
                    .output()?;
                let said = String::from_utf8_lossy(&asked.stderr);
                assert!(
                    asked.status.success(),
                    "{}: lifeboat {}\n{said}",
                    document.display(),
                    words.join(" ")
                );
                known += 1;
            }
        }
    }
    assert!(known > 15, "only {known} commands were found");
    Ok(())
}

#[test]
fn what_needs_aws_is_marked_as_not_run_here() -> Result<()> {
    let mut marked = 0;
    for (document, text) in documents()? {
        for (before, block) in blocks(&text) {
            let needs = block
                .lines()
                .any(|line| ["aws ", "eksctl "].iter().any(|program| line.trim_start().starts_with(program)));
            if needs {
                let document = document.display();
                assert!(before.contains("needs AWS, not run here"), "{document}: say so before\n{block}");
                marked += 1;
            }
        }
    }
    assert!(marked > 2, "only {marked} blocks need AWS");
    Ok(())
}
