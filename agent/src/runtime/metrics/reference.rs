//! `docs/metrics.md`, written from the table.

use super::table::{Row, rows};
use prometheus_client::registry::Unit;

/// The whole document.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Generated from `agent/src/runtime/metrics/table.rs`; `UPDATE_DOCS=1 cargo test -p lifeboat metrics` writes it anew.\n\n\
         Every agent serves these at `/metrics` of its admin address, as OpenMetrics text; `lifeboat fleet` serves those\n\
         that begin with `lifeboat_fleet_`, `lifeboat_kube_`, `lifeboat_watch_` and `lifeboat_build_` (the others are there, at zero). No label carries a\n\
         pod's, a node's or an object's name, but those of `lifeboat_pod_disrupted`, which is there only while the node\n\
         is being evacuated; a label's value that is not listed here appears as `other`.\n\n\
         | name | type | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for row in rows() {
        let unit = row.unit();
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {}. |\n",
            row.full_name(),
            row.kind.as_str(),
            unit.as_ref().map_or("–", Unit::as_str),
            labels(&row),
            row.help,
        ));
    }
    text
}

fn labels(row: &Row) -> String {
    if row.labels.is_empty() {
        return "–".to_owned();
    }
    let described = row.labels.iter().map(|label| {
        // The document should not change with every version.
        if row.is_info() || label.is_open() {
            return format!("`{}`", label.name);
        }
        let values: Vec<String> = label.values.iter().map(|value| format!("`{value}`")).collect();
        format!("`{}`: {}", label.name, values.join(", "))
    });
    described.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let wanted = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).expect("docs/metrics.md can be written");
        }
        let found = std::fs::read_to_string(path).expect("docs/metrics.md is there");
        assert_eq!(found, wanted, "run UPDATE_DOCS=1 cargo test -p lifeboat metrics");
    }
}
