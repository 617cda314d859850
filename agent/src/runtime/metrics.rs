//! What this node's agent counts and measures.
//!
//! [`table`] is the one place where a metric is named; registration, `docs/metrics.md` and the check
//! that no label grows without bound all come from it. Labels are closed sets: a value that is not
//! in its set is counted as `other`, and no pod, node or object name ever is a label.

mod reference;
mod scrapes;
mod series;
pub(crate) mod table;

use evacuation::effect::RestoreOutcome;
use evacuation::event::{Event, FailureKind, Outcome};
use evacuation::moment::Span;
use evacuation::notice::NoticeKind;
use evacuation::plan::{Fate, Plan};
use evacuation::report::{DepartureOutcome, StateOutcome};
pub use scrapes::CountedAt;
use scrapes::Scrapes;
use series::Series;
use std::sync::Arc;
use table::Id;

pub use reference::markdown;
pub use table::{Label, MetricKind, Row, TABLE};

/// A handle to all metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) series: Arc<Series>,
    pub(crate) scrapes: Arc<Scrapes>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric of the table in a registry of its own.
    pub fn new() -> Self {
        Self { series: Arc::new(Series::new()), scrapes: Arc::default() }
    }

    /// The OpenMetrics text, for whoever asks over the network; `None` once they are [closed](Self::close).
    pub fn scrape(&self) -> Option<String> {
        self.scrapes.scrape(|| self.render())
    }

    /// The OpenMetrics text.
    pub fn render(&self) -> String {
        self.series.render()
    }

    /// One poll of IMDS, whatever came of it.
    pub fn imds_poll(&self) {
        self.series.count(Id::ImdsPolls, &[], 1);
    }

    /// A poll that failed, by kind (see the table for the kinds).
    pub fn imds_error(&self, kind: &'static str) {
        self.series.count(Id::ImdsErrors, &[kind], 1);
    }

    /// The last poll was answered, or not.
    pub fn imds_reachable(&self, reachable: bool) {
        self.series.set(Id::ImdsReachable, &[], f64::from(u8::from(reachable)));
    }

    /// A notice was seen for the first time. `left` is the time to the moment it names; `age` is how
    /// long it may have stood unseen, where that is known.
    pub fn notice(&self, kind: NoticeKind, left: Option<Span>, age: Option<Span>) {
        self.series.count(Id::Notices, &[kind.as_str()], 1);
        if let Some(left) = left {
            self.series.observe(Id::NoticeLeft, &[], seconds(left));
        }
        if let Some(age) = age {
            self.series.observe(Id::NoticeAge, &[], seconds(age));
        }
    }

    /// The cordon was acknowledged this long after the notice was seen.
    pub fn cordoned(&self, after: Span) {
        self.series.observe(Id::NoticeToCordon, &[], seconds(after));
    }

    /// An evacuation is going on, or not.
    pub fn evacuating(&self, evacuating: bool) {
        self.series.set(Id::Evacuating, &[], f64::from(u8::from(evacuating)));
    }

    /// This pod leaves with the node, by a notice of this kind.
    pub fn disrupted(&self, namespace: &str, pod: &str, kind: NoticeKind) {
        self.series.set(Id::PodDisrupted, &[namespace, pod, kind.as_str()], 1.0);
    }

    /// No pod leaves with the node any more.
    pub fn undisrupted(&self) {
        self.series.clear(Id::PodDisrupted);
    }

    /// An evacuation has ended; `complete` if everything that was to happen has.
    pub fn evacuated(&self, complete: bool, took: Span) {
        let outcome = if complete { "complete" } else { "incomplete" };
        self.series.count(Id::Evacuations, &[outcome], 1);
        self.series.observe(Id::EvacuationSeconds, &[], seconds(took));
    }

    /// One attempt to evict.
    pub fn eviction(&self, outcome: &Outcome) {
        self.series.count(Id::Evictions, &[outcome_label(outcome)], 1);
    }

    /// What became of a pod, once it is decided.
    pub fn departure(&self, outcome: DepartureOutcome) {
        self.series.count(Id::Departures, &[departure_label(outcome)], 1);
    }

    /// What became of a pod's state, once it is decided.
    pub fn state(&self, outcome: StateOutcome) {
        self.series.count(Id::States, &[state_label(outcome)], 1);
    }

    /// A save ended after `took`: `bytes` of state are in the store, of which `sent` were sent now.
    pub fn save(&self, outcome: &Outcome, took: Span, bytes: u64, sent: u64) {
        self.series.observe(Id::SaveSeconds, &[outcome_label(outcome)], seconds(took));
        self.series.count(Id::SavedBytes, &[], bytes);
        self.series.count(Id::SentBytes, &[], sent);
    }

    /// A commit ended.
    pub fn commit(&self, outcome: &Outcome, took: Span) {
        self.series.observe(Id::CommitSeconds, &[outcome_label(outcome)], seconds(took));
    }

    /// Any effect ended after `took`.
    pub fn effect(&self, action: &'static str, outcome: &Outcome, took: Span) {
        self.series.count(Id::Effects, &[action, outcome_label(outcome)], 1);
        self.series.observe(Id::EffectSeconds, &[action], seconds(took));
    }

    /// An answer came for an effect that had been answered.
    pub fn late_answer(&self) {
        self.series.count(Id::LateAnswers, &[], 1);
    }

    /// Something that should not happen did.
    pub fn anomaly(&self) {
        self.series.count(Id::Anomalies, &[], 1);
    }

    /// An event was handed to the core.
    pub fn event(&self, event: &Event) {
        self.series.count(Id::Events, &[event.name()], 1);
    }

    /// A restore was decided after `took`.
    pub fn restore(&self, outcome: RestoreOutcome, took: Span, bytes: u64) {
        self.series.count(Id::Restores, &[outcome.as_str()], 1);
        self.series.observe(Id::RestoreSeconds, &[], seconds(took));
        self.series.count(Id::RestoredBytes, &[], bytes);
    }

    /// An evacuation was rehearsed.
    pub fn rehearsed(&self, complete: bool) {
        let outcome = if complete { "complete" } else { "incomplete" };
        self.series.count(Id::Drills, &[outcome], 1);
    }

    /// Tokens in a committed checkpoint.
    pub fn tokens_saved(&self, tokens: u64) {
        self.series.count(Id::Tokens, &["saved"], tokens);
    }

    /// Tokens that an engine took from a checkpoint.
    pub fn tokens_restored(&self, tokens: u64) {
        self.series.count(Id::Tokens, &["restored"], tokens);
    }

    /// Tokens that an engine showed it uses.
    pub fn tokens_verified(&self, tokens: u64) {
        self.series.count(Id::Tokens, &["verified"], tokens);
    }

    /// Tokens that the first requests after a restore found in the engine's cache.
    pub fn tokens_found(&self, tokens: u64) {
        self.series.count(Id::Tokens, &["found"], tokens);
    }

    /// Bytes of state that came from the store: while the checkpoint was still announced, or after its commit.
    pub fn fetched(&self, announced: bool, bytes: u64) {
        let when = if announced { "announced" } else { "committed" };
        self.series.count(Id::FetchedBytes, &[when], bytes);
    }

    /// The uplink as last measured.
    pub fn link(&self, bytes_per_second: u64) {
        self.series.set(Id::Link, &[], bytes_per_second as f64);
    }

    /// By how much everything would be in the store before it has to be, if a notice came now. Nothing to save, or a
    /// link that was never measured, is no figure.
    pub fn headroom(&self, headroom_ms: Option<i64>) {
        self.series.set(Id::Headroom, &[], headroom_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0));
    }

    /// What would become of this node's state if a notice came now, in bytes.
    pub fn plan_state(&self, plan: &Plan) {
        for (fate, label) in [(Fate::Safe, "safe"), (Fate::AtRisk, "at_risk"), (Fate::Unknown, "unknown")] {
            let of_fate = plan.pods.iter().filter(|pod| pod.state == fate);
            let bytes = of_fate.filter_map(|pod| pod.bytes).fold(0, u64::saturating_add);
            self.series.set(Id::PlanState, &[label], bytes as f64);
        }
    }

    /// The store has proven what it must be able to do, or not (yet).
    pub fn store_usable(&self, usable: bool) {
        self.series.set(Id::StoreUsable, &[], f64::from(u8::from(usable)));
    }

    /// How fast the last state was read.
    pub fn read_rate(&self, bytes_per_second: f64) {
        self.series.set(Id::Read, &[], bytes_per_second);
    }

    /// A watch of `nodes` or `pods` had to be started again.
    pub fn watch_restart(&self, resource: &'static str) {
        self.series.count(Id::WatchRestarts, &[resource], 1);
    }

    /// One request to the API server: `verb` as RBAC names it, the HTTP status, or `timeout` or
    /// `transport` where there was none.
    pub fn kube_request(&self, verb: &'static str, code: &str, took: Span) {
        self.series.count(Id::KubeRequests, &[verb, code], 1);
        self.series.observe(Id::KubeSeconds, &[verb], seconds(took));
    }

    /// An engine failed to answer as it should.
    pub fn engine_error(&self, engine: &'static str, kind: FailureKind) {
        self.series.count(Id::EngineErrors, &[engine, kind.as_str()], 1);
    }

    /// A pod has annotations that cannot be followed.
    pub fn annotation_error(&self) {
        self.series.count(Id::AnnotationErrors, &[], 1);
    }

    /// Where claims are kept, and why there.
    pub fn claims(&self, place: &'static str, reason: &'static str) {
        self.series.set(Id::Claims, &[place, reason], 1.0);
    }

    /// Pods of this node that are opted in, and all others.
    pub fn pods(&self, stateful: usize, stateless: usize) {
        self.series.set(Id::Pods, &["stateful"], stateful as f64);
        self.series.set(Id::Pods, &["stateless"], stateless as f64);
    }
}

/// How an effect ended, as a label.
pub fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) => "done",
        Outcome::Failed { kind, .. } => kind.as_str(),
        Outcome::TimedOut => "timed_out",
        Outcome::Panicked => "panicked",
    }
}

pub(crate) const fn departure_label(outcome: DepartureOutcome) -> &'static str {
    match outcome {
        DepartureOutcome::Stays => "stays",
        DepartureOutcome::Pending => "pending",
        DepartureOutcome::Leaving => "leaving",
        DepartureOutcome::DeletedAtCutOff => "deleted_at_cut_off",
        DepartureOutcome::Gone => "gone",
        DepartureOutcome::Abandoned => "abandoned",
    }
}

pub(crate) const fn state_label(outcome: StateOutcome) -> &'static str {
    match outcome {
        StateOutcome::None => "none",
        StateOutcome::Pending => "pending",
        StateOutcome::Saved => "saved",
        StateOutcome::Partial => "partial",
        StateOutcome::Earlier => "earlier",
        StateOutcome::Lost => "lost",
    }
}

pub(crate) fn seconds(span: Span) -> f64 {
    span.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::event::Done;

    #[test]
    fn what_is_counted_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.imds_error("timeout");
        metrics.effect(
            "evict",
            &Outcome::Failed { kind: FailureKind::Refused, why: String::new() },
            Span::from_secs(1),
        );
        metrics.save(&Outcome::Done(Done::Nothing), Span::from_secs(2), 100, 40);
        metrics.kube_request("create", "429", Span::from_millis(3));
        metrics.cordoned(Span::from_millis(30));
        let text = metrics.render();
        for line in [
            "lifeboat_imds_errors_total{kind=\"timeout\"} 1",
            "lifeboat_effects_total{action=\"evict\",outcome=\"refused\"} 1",
            "lifeboat_state_saved_bytes_total 100",
            "lifeboat_state_sent_bytes_total 40",
            "lifeboat_kube_requests_total{verb=\"create\",code=\"429\"} 1",
            "lifeboat_notice_to_cordon_seconds_count 1",
            concat!("lifeboat_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1.0"),
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_label_outside_its_set_is_counted_as_other() {
        let metrics = Metrics::new();
        metrics.kube_request("create", "418", Span::ZERO);
        metrics.kube_request("create", "599", Span::ZERO);
        assert!(metrics.render().contains("lifeboat_kube_requests_total{verb=\"create\",code=\"other\"} 2"));
    }

    #[test]
    fn a_pod_that_leaves_with_its_node_is_named_only_as_long_as_that_is_so() {
        let metrics = Metrics::new();
        let terminate = NoticeKind::Interruption(evacuation::notice::InstanceAction::Terminate);
        assert!(!metrics.render().contains("target_pod"), "{}", metrics.render());
        metrics.disrupted("chat", "llama-0", terminate);
        let line =
            "lifeboat_pod_disrupted{target_namespace=\"chat\",target_pod=\"llama-0\",reason=\"terminate\"} 1";
        let text = metrics.render();
        assert!(text.contains(line), "{text}");
        metrics.undisrupted();
        assert!(!metrics.render().contains("target_pod"), "{}", metrics.render());
    }

    #[test]
    fn a_label_of_any_value_is_on_what_is_taken_away_again_and_nowhere_else() {
        let open: Vec<&str> = TABLE
            .iter()
            .filter(|row| row.labels.iter().any(|label| label.is_open()))
            .map(|row| row.name)
            .collect();
        assert_eq!(open, ["pod_disrupted"]);
    }

    #[test]
    fn every_outcome_and_kind_of_the_core_is_in_its_set() {
        let has = |id: Id, label: usize, value: &str| {
            let row = &TABLE[id as usize];
            assert!(
                row.labels[label].values.contains(&value),
                "{value} is not among the {} of {}",
                row.labels[label].name,
                row.name
            );
        };
        for &kind in FailureKind::ALL {
            let outcome = Outcome::Failed { kind, why: String::new() };
            for (id, label) in [
                (Id::Effects, 1),
                (Id::Evictions, 0),
                (Id::SaveSeconds, 0),
                (Id::CommitSeconds, 0),
                (Id::EngineErrors, 1),
            ] {
                has(id, label, outcome_label(&outcome));
            }
        }
        for outcome in [Outcome::Done(Done::Nothing), Outcome::TimedOut, Outcome::Panicked] {
            has(Id::Effects, 1, outcome_label(&outcome));
        }
        use evacuation::notice::InstanceAction::{Hibernate, Stop, Terminate};
        for kind in [
            NoticeKind::Interruption(Terminate),
            NoticeKind::Interruption(Stop),
            NoticeKind::Interruption(Hibernate),
            NoticeKind::Rebalance,
            NoticeKind::Maintenance,
            NoticeKind::Drill,
        ] {
            has(Id::Notices, 0, kind.as_str());
            has(Id::PodDisrupted, 2, kind.as_str());
        }
        for &outcome in RestoreOutcome::ALL {
            has(Id::Restores, 0, outcome.as_str());
        }
        for &outcome in DepartureOutcome::ALL {
            has(Id::Departures, 0, departure_label(outcome));
        }
        for &outcome in StateOutcome::ALL {
            has(Id::States, 0, state_label(outcome));
        }
        for &outcome in DepartureOutcome::ALL {
            has(Id::FleetDepartures, 0, departure_label(outcome));
        }
        for &outcome in StateOutcome::ALL {
            has(Id::FleetStates, 0, state_label(outcome));
        }
    }

    #[test]
    fn every_engine_is_in_its_set() {
        let check = |id: Id, names: Vec<&str>| {
            assert!(names.len() > 1, "{names:?}");
            for name in names {
                assert!(
                    TABLE[id as usize].labels[0].values.contains(&name),
                    "{name} is not in {}",
                    TABLE[id as usize].name
                );
            }
        };
        check(Id::EngineErrors, engines::EngineKind::ALL.iter().map(|kind| kind.as_str()).collect());
    }
}
