//! How the table becomes what counts: a family of prometheus-client for each metric, in a registry of their own.

use super::labels::LabelValue;
use super::table::Series;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

/// Upper bounds in seconds. A notice leaves 120 s, and a cordon takes some 10 ms.
const BUCKETS: [f64; 15] =
    [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 300.0];

/// So many series of one counter are there before they have counted anything.
const SMALL: usize = 24;

/// A counter with labels.
pub(crate) type Counters<L> = Family<L, Counter>;
/// A gauge with labels. Each of its series is there only once it is set.
pub(crate) type Gauges<L> = Family<L, gauge::Gauge<f64, AtomicU64>>;
/// A gauge without labels: a family all the same, since it too is there only once it is set.
pub(crate) type Gauge = Gauges<[(&'static str, &'static str); 0]>;
/// A histogram with labels.
pub(crate) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The labels of one metric, by name.
pub(crate) trait LabelSet: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Every combination of their values.
    fn every() -> Vec<Self>;
}

/// A metric with those of its series that are there from the start.
///
/// A series that appears only when it first counts loses that count to `rate()`: small counters are there from the
/// start. Of histograms, each of which is many series, those by outcome: saves and commits are few, and the first that
/// fails is the one that matters.
pub(super) trait Begin: Metric + Clone {
    fn begin() -> Self;
}

impl Begin for Counter {
    fn begin() -> Self {
        Self::default()
    }
}

impl Begin for Histogram {
    fn begin() -> Self {
        Self::new(BUCKETS)
    }
}

impl<L: LabelSet> Begin for Counters<L> {
    fn begin() -> Self {
        begin_with(Self::default(), L::every().len() <= SMALL)
    }
}

impl<L> Begin for Gauges<L>
where
    L: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static,
{
    fn begin() -> Self {
        Self::default()
    }
}

impl<L: LabelSet> Begin for Histograms<L> {
    fn begin() -> Self {
        begin_with(Self::new_with_constructor(Histogram::begin), L::NAMES == ["outcome"])
    }
}

fn begin_with<L: LabelSet, M, C: MetricConstructor<M>>(
    family: Family<L, M, C>,
    every: bool,
) -> Family<L, M, C> {
    if every {
        for labels in L::every() {
            drop(family.get_or_create(&labels));
        }
    }
    family
}

/// A metric's name without its unit, and the unit.
pub(super) fn without_unit(name: &str) -> (&str, Option<Unit>) {
    let of = |suffix, unit| name.strip_suffix(suffix).map(|stem| (stem, Some(unit)));
    of("_seconds", Unit::Seconds).or_else(|| of("_bytes", Unit::Bytes)).unwrap_or((name, None))
}

pub(super) fn register<M: Begin>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::begin();
    match without_unit(name) {
        (stem, Some(unit)) => registry.register_with_unit(stem, help, unit, metric.clone()),
        (name, None) => registry.register(name, help, metric.clone()),
    }
    metric
}

impl Series {
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; an encoder's own error would leave the text cut short,
        // which Prometheus sees by the missing `# EOF`.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics were not encoded");
        }
        // A family without labels writes empty braces: allowed, and no other exporter does it.
        text.replace("{} ", " ")
    }
}

/// Counts through all combinations: the value at `place`, which is then one digit shorter.
pub(super) fn digit<V: LabelValue>(place: &mut usize) -> V {
    let mut every = V::every();
    let (digit, rest) = (*place % every.len(), *place / every.len());
    *place = rest;
    every.swap_remove(digit)
}

/// Makes the table: the struct of all families, the labels of each, and what the documentation says of them.
macro_rules! table {
    ($(
        $(#[doc = $help:literal])+
        $metric:ident: $family:ident $(<$set:ident { $($label:ident: $value:ty),+ }>)?,
    )+) => {
        /// Every metric, at its name.
        #[derive(Debug)]
        pub(crate) struct Series {
            $($(#[doc = $help])+ pub(crate) $metric: $family $(<$set>)?,)+
            pub(super) registry: Registry,
        }

        impl Series {
            pub(super) fn new() -> Self {
                let mut registry = Registry::with_prefix("lifeboat");
                Self {
                    $($metric: register(&mut registry, stringify!($metric), concat!($($help),+).trim_start()),)+
                    registry,
                }
            }
        }

        /// Every metric, in the order of the documentation.
        pub fn rows() -> Vec<Row> {
            vec![$(Row {
                name: stringify!($metric),
                kind: <$family $(<$set>)? as TypedMetric>::TYPE,
                labels: vec![$($(Label::of::<$value>(stringify!($label))),+)?],
                help: concat!($($help),+).trim_start(),
            }),+]
        }

        $($(
            #[doc = concat!("The labels of `", stringify!($metric), "`.")]
            #[derive(Clone, Debug, PartialEq, Eq, Hash)]
            pub(crate) struct $set {
                $(pub(crate) $label: $value),+
            }

            impl LabelSet for $set {
                const NAMES: &'static [&'static str] = &[$(stringify!($label)),+];

                fn every() -> Vec<Self> {
                    let count = [$(<$value>::every().len()),+].iter().product();
                    (0..count).map(|mut place: usize| Self { $($label: digit(&mut place)),+ }).collect()
                }
            }

            impl EncodeLabelSet for $set {
                fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
                    $((stringify!($label), self.$label.text()).encode(encoder.encode_label())?;)+
                    Ok(())
                }
            }
        )?)+
    };
}
pub(super) use table;

#[cfg(test)]
mod tests {
    use super::super::labels::EffectOutcome;
    use super::*;

    #[test]
    fn the_first_save_that_fails_is_an_increase_and_not_a_birth() {
        let text = Series::new().render();
        for name in ["save_seconds", "commit_seconds"] {
            for outcome in EffectOutcome::every() {
                let line = format!("lifeboat_{name}_count{{outcome=\"{}\"}} 0", outcome.text());
                assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
            }
        }
        assert!(!text.contains("lifeboat_effect_seconds_count{"), "30 actions of 17 series each:\n{text}");
    }
}
