//! The table's metrics in a registry of their own.

use super::table::{Id, Label, MetricKind, OUTCOME, Row, TABLE, Unit};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{self, Registry};
use std::borrow::Cow;
use std::sync::atomic::AtomicU64;

/// Upper bounds in seconds. A notice leaves 120 s, and a cordon takes some 10 ms.
const BUCKETS: [f64; 15] =
    [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 300.0];

/// So many series of one counter are there before they have counted anything.
const SMALL: usize = 20;

type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// One metric, whatever its type.
#[derive(Clone, Debug)]
enum One {
    Counter(Family<Labels, Counter>),
    Gauge(Family<Labels, Gauge<f64, AtomicU64>>),
    Histogram(Family<Labels, Histogram, fn() -> Histogram>),
}

/// Every metric, at its row's place.
#[derive(Debug)]
pub(crate) struct Series {
    registry: Registry,
    all: Vec<One>,
}

impl Series {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("lifeboat");
        let all = TABLE.iter().map(|row| register(&mut registry, row)).collect();
        Self { registry, all }
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; an encoder's own error would leave the text cut short,
        // which Prometheus sees by the missing `# EOF`.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics were not encoded");
        }
        // A family without labels writes empty braces: allowed, and no other exporter does it.
        text.replace("{} ", " ")
    }

    pub(crate) fn count(&self, id: Id, values: &[&str], by: u64) {
        if let Some(One::Counter(family)) = self.all.get(id as usize) {
            family.get_or_create(&labels(id, values)).inc_by(by);
        }
    }

    pub(crate) fn set(&self, id: Id, values: &[&str], to: f64) {
        if let Some(One::Gauge(family)) = self.all.get(id as usize) {
            family.get_or_create(&labels(id, values)).set(to);
        }
    }

    /// Takes every series of a gauge away.
    pub(crate) fn clear(&self, id: Id) {
        if let Some(One::Gauge(family)) = self.all.get(id as usize) {
            family.clear();
        }
    }

    pub(crate) fn observe(&self, id: Id, values: &[&str], seconds: f64) {
        if let Some(One::Histogram(family)) = self.all.get(id as usize) {
            family.get_or_create(&labels(id, values)).observe(seconds);
        }
    }
}

/// The labels of one series: what is not in a label's closed set is `other`.
fn labels(id: Id, values: &[&str]) -> Labels {
    let row = &TABLE[id as usize];
    let told = |(index, label): (usize, &Label)| {
        let value = values.get(index).copied().unwrap_or_default();
        if label.is_open() {
            return (label.name, Cow::Owned(value.to_owned()));
        }
        let known = label.values.iter().copied().find(|known| *known == value);
        (label.name, Cow::Borrowed(known.unwrap_or("other")))
    };
    row.labels.iter().enumerate().map(told).collect()
}

fn register(registry: &mut Registry, row: &Row) -> One {
    let one = match row.kind {
        MetricKind::Counter => One::Counter(Family::default()),
        MetricKind::Gauge => One::Gauge(Family::default()),
        MetricKind::Histogram => One::Histogram(Family::new_with_constructor(|| Histogram::new(BUCKETS))),
        // OpenMetrics renders an info as a gauge of the same name with `_info`.
        MetricKind::Info => One::Gauge(Family::default()),
    };
    let unit = match row.unit {
        Unit::Seconds => Some(registry::Unit::Seconds),
        Unit::Bytes => Some(registry::Unit::Bytes),
        Unit::None => None,
    };
    let name = if row.kind == MetricKind::Info { format!("{}_info", row.name) } else { row.name.to_owned() };
    match (&one, unit) {
        (One::Counter(family), Some(unit)) => {
            registry.register_with_unit(name, row.help, unit, family.clone())
        }
        (One::Counter(family), None) => registry.register(name, row.help, family.clone()),
        (One::Gauge(family), Some(unit)) => registry.register_with_unit(name, row.help, unit, family.clone()),
        (One::Gauge(family), None) => registry.register(name, row.help, family.clone()),
        (One::Histogram(family), Some(unit)) => {
            registry.register_with_unit(name, row.help, unit, family.clone())
        }
        (One::Histogram(family), None) => registry.register(name, row.help, family.clone()),
    }
    begin_at_zero(&one, row);
    one
}

/// A series that appears only when it first counts loses that count to `rate()`: those with at most one label, and the
/// small ones with two, are there from the start. Of histograms, each of which is many series, those by outcome: saves
/// and commits are few, and the first that fails is the one that matters.
fn begin_at_zero(one: &One, row: &Row) {
    let pair = |label: &Label, value: &&'static str| (label.name, Cow::Borrowed(*value));
    let sets: Vec<Labels> = match row.labels {
        [] => vec![Vec::new()],
        [label] => label.values.iter().map(|value| vec![pair(label, value)]).collect(),
        [first, second] if first.values.len() * second.values.len() <= SMALL => {
            let with_second =
                |one| second.values.iter().map(move |two| vec![pair(first, one), pair(second, two)]);
            first.values.iter().flat_map(with_second).collect()
        }
        _ => Vec::new(),
    };
    for set in sets {
        match one {
            One::Counter(family) => drop(family.get_or_create(&set)),
            One::Gauge(family) if row.kind == MetricKind::Info => {
                family.get_or_create(&set).set(1.0);
            }
            One::Histogram(family) if row.labels.iter().all(|label| label.name == OUTCOME.name) => {
                drop(family.get_or_create(&set));
            }
            One::Gauge(_) | One::Histogram(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_stands_at_its_own_place() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.id as usize, place, "{}", row.name);
        }
    }

    #[test]
    fn the_first_save_that_fails_is_an_increase_and_not_a_birth() {
        let text = Series::new().render();
        for name in ["save_seconds", "commit_seconds"] {
            for outcome in OUTCOME.values {
                let line = format!("lifeboat_{name}_count{{outcome=\"{outcome}\"}} 0");
                assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
            }
        }
        assert!(!text.contains("lifeboat_effect_seconds_count{"), "30 actions of 17 series each:\n{text}");
    }

    #[test]
    fn each_row_is_exposed_under_its_documented_name() {
        let series = Series::new();
        for row in &TABLE {
            let values: Vec<&str> =
                row.labels.iter().map(|label| *label.values.first().unwrap_or(&"any")).collect();
            match row.kind {
                MetricKind::Counter => series.count(row.id, &values, 1),
                MetricKind::Gauge | MetricKind::Info => series.set(row.id, &values, 1.0),
                MetricKind::Histogram => series.observe(row.id, &values, 1.0),
            }
        }
        let text = series.render();
        for row in &TABLE {
            let name = row.full_name();
            let name = if row.kind == MetricKind::Histogram { format!("{name}_bucket") } else { name };
            let shown = text.lines().any(|line| {
                line.strip_prefix(&name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            });
            assert!(shown, "{name} is not in\n{text}");
        }
    }
}
