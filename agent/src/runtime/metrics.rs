//! What this node's agent counts and measures.
//!
//! [`table`] is the one place where a metric is named; its family, its registration, `docs/metrics.md` and the check that
//! no label grows without bound all come from it. Labels are closed sets: each is a type of its own ([`labels`]), and no
//! pod, node or object name ever is a label.

pub mod kinds;
pub(crate) mod labels;
mod reference;
mod scrapes;
mod series;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use crate::runtime::claims::{ClaimsPlace, Reason};
use crate::runtime::metrics::kinds::FaultKind;
use engines::EngineKind;
use evacuation::effect::RestoreOutcome;
use evacuation::event::{Event, FailureKind, Outcome};
use evacuation::moment::Span;
use evacuation::notice::NoticeKind;
use evacuation::plan::{Fate, Plan};
use evacuation::report::{DepartureOutcome, StateOutcome};
use labels::{
    ActionName, Completeness, FetchedWhen, PodKind, RequestCode, RequestVerb, StateFate, TokenStage,
    WatchedResource,
};
pub use scrapes::CountedAt;
use scrapes::Scrapes;
use series::LabelSet;
use std::sync::Arc;
use table::{
    AnnouncementLabels, BuildLabels, ClaimsLabels, CommitLabels, DepartureLabels, DisruptedLabels,
    DrillLabels, EffectLabels, EffectTimeLabels, EngineErrorLabels, EvacuationLabels, EventLabels,
    EvictionLabels, FetchedLabels, ImdsErrorLabels, NoticeLabels, PlanStateLabels, PodLabels, RequestLabels,
    RequestTimeLabels, RestoreLabels, SaveLabels, Series, StateLabels, TokenLabels, WatchRestartLabels,
};

pub use reference::markdown;
pub use table::{Label, Row, rows};

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
        let series = Series::new();
        for labels in BuildLabels::every() {
            series.build_info.get_or_create(&labels).set(1.0);
        }
        Self { series: Arc::new(series), scrapes: Arc::default() }
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
        self.series.imds_polls.inc();
    }

    /// A poll that failed.
    pub fn imds_error(&self, kind: FaultKind) {
        self.series.imds_errors.get_or_create(&ImdsErrorLabels { kind }).inc();
    }

    /// The last poll was answered, or not.
    pub fn imds_reachable(&self, reachable: bool) {
        self.series.imds_reachable.get_or_create(&[]).set(f64::from(reachable));
    }

    /// A notice was seen for the first time. `left` is the time to the moment it names; `age` is how
    /// long it may have stood unseen, where that is known.
    pub fn notice(&self, kind: NoticeKind, left: Option<Span>, age: Option<Span>) {
        self.series.notices.get_or_create(&NoticeLabels { kind }).inc();
        if let Some(left) = left {
            self.series.notice_left_seconds.observe(seconds(left));
        }
        if let Some(age) = age {
            self.series.notice_age_seconds.observe(seconds(age));
        }
    }

    /// The cordon was acknowledged this long after the notice was seen.
    pub fn cordoned(&self, after: Span) {
        self.series.notice_to_cordon_seconds.observe(seconds(after));
    }

    /// So many notices of each kind stand.
    pub fn announcements(&self, kinds: &[NoticeKind]) {
        for kind in NoticeKind::ALL {
            let count = kinds.iter().filter(|standing| **standing == kind).count();
            self.series.announcements.get_or_create(&AnnouncementLabels { kind }).set(count as f64);
        }
    }

    /// An evacuation is going on, or not.
    pub fn evacuating(&self, evacuating: bool) {
        self.series.evacuating.get_or_create(&[]).set(f64::from(evacuating));
    }

    /// This pod leaves with the node, by a notice of this kind.
    pub fn disrupted(&self, namespace: &str, pod: &str, kind: NoticeKind) {
        let (target_namespace, target_pod) = (namespace.to_owned(), pod.to_owned());
        let labels = DisruptedLabels { target_namespace, target_pod, reason: kind };
        self.series.pod_disrupted.get_or_create(&labels).set(1.0);
    }

    /// No pod leaves with the node any more.
    pub fn undisrupted(&self) {
        self.series.pod_disrupted.clear();
    }

    /// An evacuation has ended; `complete` if everything that was to happen has.
    pub fn evacuated(&self, complete: bool, took: Span) {
        let outcome = Completeness::of(complete);
        self.series.evacuations.get_or_create(&EvacuationLabels { outcome }).inc();
        self.series.evacuation_seconds.observe(seconds(took));
    }

    /// One attempt to evict.
    pub fn eviction(&self, outcome: &Outcome) {
        self.series.evictions.get_or_create(&EvictionLabels { outcome: outcome.into() }).inc();
    }

    /// What became of a pod, once it is decided.
    pub fn departure(&self, outcome: DepartureOutcome) {
        self.series.departures.get_or_create(&DepartureLabels { outcome }).inc();
    }

    /// What became of a pod's state, once it is decided.
    pub fn state(&self, outcome: StateOutcome) {
        self.series.states.get_or_create(&StateLabels { outcome }).inc();
    }

    /// A save ended after `took`: `bytes` of state are in the store, of which `sent` were sent now.
    pub fn save(&self, outcome: &Outcome, took: Span, bytes: u64, sent: u64) {
        self.series
            .save_seconds
            .get_or_create(&SaveLabels { outcome: outcome.into() })
            .observe(seconds(took));
        self.series.state_saved_bytes.inc_by(bytes);
        self.series.state_sent_bytes.inc_by(sent);
    }

    /// A commit ended.
    pub fn commit(&self, outcome: &Outcome, took: Span) {
        let labels = CommitLabels { outcome: outcome.into() };
        self.series.commit_seconds.get_or_create(&labels).observe(seconds(took));
    }

    /// Any effect ended after `took`.
    pub fn effect(&self, action: ActionName, outcome: &Outcome, took: Span) {
        self.series.effects.get_or_create(&EffectLabels { action, outcome: outcome.into() }).inc();
        self.series.effect_seconds.get_or_create(&EffectTimeLabels { action }).observe(seconds(took));
    }

    /// An answer came for an effect that had been answered.
    pub fn late_answer(&self) {
        self.series.late_answers.inc();
    }

    /// Something that should not happen did.
    pub fn anomaly(&self) {
        self.series.anomalies.inc();
    }

    /// Every line of the journal is on the disk, or not.
    pub fn journal_written(&self, written: bool) {
        self.series.journal_written.get_or_create(&[]).set(f64::from(written));
    }

    /// So many more lines of the journal are in no file.
    pub fn journal_lines_lost(&self, more: u64) {
        self.series.journal_lines_lost.inc_by(more);
    }

    /// An event was handed to the core.
    pub fn event(&self, event: &Event) {
        self.series.events.get_or_create(&EventLabels { event: event.into() }).inc();
    }

    /// A restore was decided after `took`.
    pub fn restore(&self, outcome: RestoreOutcome, took: Span, bytes: u64) {
        self.series.restores.get_or_create(&RestoreLabels { reason: outcome }).inc();
        self.series.restore_seconds.observe(seconds(took));
        self.series.state_restored_bytes.inc_by(bytes);
    }

    /// An evacuation was rehearsed.
    pub fn rehearsed(&self, complete: bool) {
        self.series.drills.get_or_create(&DrillLabels { outcome: Completeness::of(complete) }).inc();
    }

    /// Tokens that came as far as `stage`.
    pub fn tokens(&self, stage: TokenStage, tokens: u64) {
        self.series.tokens.get_or_create(&TokenLabels { stage }).inc_by(tokens);
    }

    /// Bytes of state that came from the store: while the checkpoint was still announced, or after its commit.
    pub fn fetched(&self, announced: bool, bytes: u64) {
        let when = if announced { FetchedWhen::Announced } else { FetchedWhen::Committed };
        self.series.state_fetched_bytes.get_or_create(&FetchedLabels { when }).inc_by(bytes);
    }

    /// The uplink as last measured.
    pub fn link(&self, bytes_per_second: u64) {
        self.series.link_bytes_per_second.get_or_create(&[]).set(bytes_per_second as f64);
    }

    /// By how much everything would be in the store before it has to be, if a notice came now. Nothing to save, or a
    /// link that was never measured, is no figure.
    pub fn headroom(&self, headroom_ms: Option<i64>) {
        let seconds = headroom_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0);
        self.series.headroom_seconds.get_or_create(&[]).set(seconds);
    }

    /// What would become of this node's state if a notice came now, in bytes.
    pub fn plan_state(&self, plan: &Plan) {
        let fates = [
            (Fate::Safe, StateFate::Safe),
            (Fate::AtRisk, StateFate::AtRisk),
            (Fate::Unknown, StateFate::Unknown),
        ];
        for (planned, fate) in fates {
            let of_fate = plan.pods.iter().filter(|pod| pod.state == planned);
            let bytes = of_fate.filter_map(|pod| pod.bytes).fold(0, u64::saturating_add);
            self.series.plan_state_bytes.get_or_create(&PlanStateLabels { fate }).set(bytes as f64);
        }
    }

    /// The store has proven what it must be able to do, or not (yet).
    pub fn store_usable(&self, usable: bool) {
        self.series.store_usable.get_or_create(&[]).set(f64::from(usable));
    }

    /// How fast the last state was read.
    pub fn read_rate(&self, bytes_per_second: f64) {
        self.series.state_read_bytes_per_second.get_or_create(&[]).set(bytes_per_second);
    }

    /// A watch had to be started again.
    pub fn watch_restart(&self, resource: WatchedResource) {
        self.series.watch_restarts.get_or_create(&WatchRestartLabels { resource }).inc();
    }

    /// One request to the API server.
    pub fn kube_request(&self, verb: RequestVerb, code: RequestCode, took: Span) {
        self.series.kube_requests.get_or_create(&RequestLabels { verb, code }).inc();
        self.series.kube_request_seconds.get_or_create(&RequestTimeLabels { verb }).observe(seconds(took));
    }

    /// An engine failed to answer as it should.
    pub fn engine_error(&self, engine: EngineKind, kind: FailureKind) {
        self.series.engine_errors.get_or_create(&EngineErrorLabels { engine, kind }).inc();
    }

    /// A pod has annotations that cannot be followed.
    pub fn annotation_error(&self) {
        self.series.annotation_errors.inc();
    }

    /// Where claims are kept, and why there.
    pub fn claims(&self, place: ClaimsPlace, reason: Reason) {
        self.series.claims_info.get_or_create(&ClaimsLabels { place, reason }).set(1.0);
    }

    /// Pods of this node that are opted in, and all others.
    pub fn pods(&self, stateful: usize, stateless: usize) {
        for (kind, pods) in [(PodKind::Stateful, stateful), (PodKind::Stateless, stateless)] {
            self.series.pods.get_or_create(&PodLabels { kind }).set(pods as f64);
        }
    }
}

pub(crate) fn seconds(span: Span) -> f64 {
    span.as_millis() as f64 / 1000.0
}
