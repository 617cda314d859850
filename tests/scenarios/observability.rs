//! Rules, alerts and dashboard go by what is there. That they can be evaluated, and on what they fire, is shown by
//! promtool and a real Prometheus: `tests/run observability`.

use crate::documentation::{headings, root};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: &str = "manifests/observability";

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root()?.join(path)).with_context(|| path.to_owned())
}

/// Every word that looks like a metric of ours.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("lifeboat_") && !word.contains(':')).collect()
}

/// The texts of one folder, by name.
fn folder(path: &str) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root()?.join(path))? {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().display().to_string();
            all.push((name, std::fs::read_to_string(&path)?));
        }
    }
    ensure!(!all.is_empty(), "{path} is empty");
    Ok(all)
}

/// The values of a YAML key that stands alone on its line.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim).collect()
}

#[test]
fn every_metric_of_a_rule_a_panel_or_a_test_is_documented() -> Result<()> {
    let reference = read("docs/metrics.md")?;
    let documented = |name: &str| reference.contains(&format!("| `{name}` |"));
    let mut seen = 0;
    for place in [FOLDER, "manifests/observability/tests", "manifests/observability/canary"] {
        for (file, text) in folder(place)? {
            for name in metrics(&text) {
                seen += 1;
                let ends = ["_bucket", "_sum", "_count"];
                let bare = ends.iter().find_map(|end| name.strip_suffix(end));
                assert!(
                    documented(name) || bare.is_some_and(documented),
                    "{place}/{file}: {name} is not there"
                );
            }
        }
    }
    assert!(seen > 60, "only {seen} names were found");
    Ok(())
}

#[test]
fn every_alert_fires_in_a_test_and_has_its_section_in_the_runbook() -> Result<()> {
    let rules = read("manifests/observability/rules.yaml")?;
    let tests: String = folder("manifests/observability/tests")?
        .into_iter()
        .map(|(_, text)| text)
        .collect::<Vec<_>>()
        .concat();
    let runbook = headings(&read("docs/operations.md")?);
    let alerts = values(&rules, "alert");
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} fires in no test");
        assert!(runbook.contains(&alert.to_lowercase()), "docs/operations.md has no section {alert}");
    }
    let told: Vec<String> =
        alerts.iter().map(|alert| format!("docs/operations.md#{}", alert.to_lowercase())).collect();
    assert_eq!(values(&rules, "runbook"), told, "the annotation `runbook` of each alert, in their order");
    // And the runbook has no section of an alert that is no more.
    let sections: Vec<&String> = runbook.iter().filter(|heading| heading.starts_with("lifeboat")).collect();
    let gone = |section: &&&String| !alerts.iter().any(|alert| alert.to_lowercase() == ***section);
    assert_eq!(sections.iter().filter(gone).count(), 0, "{sections:?}");
    Ok(())
}

/// The text of the block scalar `query: |`, without its indentation.
fn query(text: &str) -> Result<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| line.trim() != "query: |");
    let key = lines.next().context("there is no `query: |`")?;
    let depth = key.len() - key.trim_start().len();
    let inside = lines.take_while(|line| line.len() - line.trim_start().len() > depth);
    Ok(inside.map(|line| line.trim().to_owned()).collect())
}

#[test]
fn the_queries_for_canaries_are_the_ones_that_promtool_tested() -> Result<()> {
    let tested: Vec<String> = read("manifests/observability/tests/canary.yaml")?
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    let values = [("{{args.hash}}", "h1"), ("{{ namespace }}", "m"), ("{{ target }}", "chat")];
    for (file, text) in folder("manifests/observability/canary")? {
        let query: Vec<String> = query(&text)?
            .into_iter()
            .map(|line| values.iter().fold(line, |line, (name, value)| line.replace(name, value)))
            .collect();
        assert!(query.len() > 3, "{file}: {query:?}");
        assert!(tested.windows(query.len()).any(|lines| lines == query), "{file}: no test has\n{query:#?}");
    }
    Ok(())
}

#[test]
fn the_operator_s_object_holds_the_rules_word_for_word() -> Result<()> {
    let rules = read("manifests/observability/rules.yaml")?;
    let object = read("manifests/observability/prometheusrule.yaml")?;
    let (_, spec) = object.split_once("\nspec:\n").context("the object has no spec")?;
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let unindented: Vec<String> =
        lines(spec).iter().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect();
    assert_eq!(unindented, lines(&rules), "run manifests/observability/generate");
    assert!(Path::new(&root()?.join("manifests/observability/generate")).exists());
    Ok(())
}
