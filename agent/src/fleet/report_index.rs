//! Which reports have been counted, and which nodes are missing: the one document that the replicas of the fleet role share.
//!
//! Decides, and does nothing. It lies in the store, and is only ever replaced in the version that was read. So of two
//! replicas that both think they lead, one goes on; and what it says is counted was counted by whom it names, once:
//!
//! ```text
//!   replica             store                         Prometheus
//!   read reports
//!   PUT ledger ───────► "A counts these"  (if unchanged)
//!   count ◄──────────── acknowledged
//!   /metrics ◄───────────────────────────────────────  scrape
//!   told to end: what no scrape has seen is taken out again, and the next leader counts it
//! ```
//!
//! A counter lives in one process. So whoever is named counts, and nobody else does, whatever becomes of it.

use super::reports::ReportId;
use crate::runtime::metrics::kinds::Went;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the document.
const FORMAT: u32 = 1;

/// The largest ledger, bytes: some 100,000 reports in [`HORIZON`].
pub const LEDGER_MAX: u64 = 16 << 20;

/// A report that was last written longer ago is not counted any more, seconds. That bounds the ledger.
pub const HORIZON: i64 = 7 * 86_400;

/// How long an entry stays, seconds: longer than [`HORIZON`], so that nothing is forgotten that could be counted.
const REMEMBERED: i64 = HORIZON + 86_400;

/// A Node object's uid.
pub type NodeUid = String;

/// Who counts something, and when it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The process that counts it: a replica's name and what tells its lives apart.
    pub by: String,
    /// Unix time by the store's clock, seconds.
    pub at: i64,
}

/// A node of which nothing is heard any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub node: String,
    /// When the Node object was created, Unix time, seconds. Reports that are older are of another node of that name.
    pub created: i64,
    /// Its agent had seen a notice, and marked the node.
    pub noticed: bool,
}

impl Went {
    /// How this node went, if a report of it is there or not.
    pub const fn of(missing: &Missing, reported: bool) -> Self {
        match (reported, missing.noticed) {
            (true, _) => Went::WithReport,
            (false, true) => Went::WithoutReport,
            (false, false) => Went::WithoutNotice,
        }
    }
}

/// A node that is gone, and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The node.
    pub missing: Missing,
    /// How.
    pub went: Went,
    /// Who counts it.
    pub counted: Counted,
}

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportIndex {
    format: u32,
    /// Differs with every write: a writer whose answer was lost finds its own bytes, or another's.
    nonce: u64,
    reports: BTreeMap<ReportId, Counted>,
    missing: BTreeMap<NodeUid, Missing>,
    gone: BTreeMap<NodeUid, Gone>,
}

impl Default for ReportIndex {
    fn default() -> Self {
        Self {
            format: FORMAT,
            nonce: 0,
            reports: BTreeMap::new(),
            missing: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }
}

/// A ledger that cannot be gone by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportIndexError {
    /// A newer fleet role wrote it.
    #[error("its format {0} is not known to this lifeboat (knows {FORMAT}): upgrade the fleet role")]
    Newer(u32),
    /// It is none.
    #[error("it cannot be read ({0}): remove it, and the reports of the last seven days are counted again")]
    Malformed(String),
}

#[derive(Deserialize)]
struct IndexHead {
    format: u32,
}

impl ReportIndex {
    /// Reads the document.
    ///
    /// # Errors
    /// [`ReportIndexError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ReportIndexError> {
        let malformed = |error: serde_json::Error| ReportIndexError::Malformed(error.to_string());
        match serde_json::from_slice::<IndexHead>(bytes).map_err(malformed)?.format {
            FORMAT => serde_json::from_slice(bytes).map_err(malformed),
            other => Err(ReportIndexError::Newer(other)),
        }
    }

    /// The document as it is written, unlike every other.
    pub fn bytes(&mut self, nonce: u64) -> Vec<u8> {
        self.nonce = nonce;
        // Maps with keys that are text, numbers and text: there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The reports to count now, oldest first: nobody has, nobody has written to them for `settle` seconds, and they are
    /// not older than the horizon. `listed` has the time of each one's last write, by the store's clock as `now` is.
    pub fn due(&self, listed: &[(ReportId, i64)], now: i64, settle: i64) -> Vec<(ReportId, i64)> {
        let is_due = |(id, at): &&(ReportId, i64)| {
            let age = now.saturating_sub(*at);
            (settle..=HORIZON).contains(&age) && !self.reports.contains_key(id)
        };
        let mut due: Vec<(ReportId, i64)> = listed.iter().filter(is_due).cloned().collect();
        due.sort_by(|(a, at), (b, bt)| (at, a).cmp(&(bt, b)));
        due
    }

    /// The reports that are not counted and will be, once nobody writes to them any more.
    pub fn waiting(&self, listed: &[(ReportId, i64)], now: i64) -> usize {
        let waits = |(id, at): &&(ReportId, i64)| {
            now.saturating_sub(*at) <= HORIZON && !self.reports.contains_key(id)
        };
        listed.iter().filter(waits).count()
    }

    /// `by` counts this report.
    pub fn count_report(&mut self, id: ReportId, at: i64, by: &str) {
        self.reports.insert(id, Counted { by: by.to_owned(), at });
    }

    /// `by` counts this node.
    pub fn count_node(&mut self, uid: &NodeUid, went: Went, at: i64, by: &str) {
        if let Some(missing) = self.missing.remove(uid) {
            let counted = Counted { by: by.to_owned(), at };
            self.gone.insert(uid.clone(), Gone { missing, went, counted });
        }
    }

    /// The reports that `by` counts.
    pub fn reports_of<'a>(&'a self, by: &'a str) -> impl Iterator<Item = &'a ReportId> {
        self.reports.iter().filter(move |(_, counted)| counted.by == by).map(|(id, _)| id)
    }

    /// The nodes that `by` counts.
    pub fn nodes_of<'a>(&'a self, by: &'a str) -> impl Iterator<Item = (&'a NodeUid, Went)> {
        self.gone.iter().filter(move |(_, gone)| gone.counted.by == by).map(|(uid, gone)| (uid, gone.went))
    }

    /// Nobody counts this report: whoever was to has ended.
    pub fn release_report(&mut self, id: &ReportId) {
        self.reports.remove(id);
    }

    /// Nobody counts this node: it is missing again.
    pub fn release_node(&mut self, uid: &NodeUid) {
        if let Some(gone) = self.gone.remove(uid) {
            self.missing.insert(uid.clone(), gone.missing);
        }
    }

    /// Somebody counts this report.
    pub fn has_report(&self, id: &ReportId) -> bool {
        self.reports.contains_key(id)
    }

    /// Somebody counts this node.
    pub fn has_node(&self, uid: &NodeUid) -> bool {
        self.gone.contains_key(uid)
    }

    /// The nodes of which nothing is heard.
    pub const fn missing(&self) -> &BTreeMap<NodeUid, Missing> {
        &self.missing
    }

    /// Takes in what the cluster shows: nodes that are there and well are not missing, `suspects` are. One that is
    /// neither vanished while nobody looked; it stays.
    pub fn look(&mut self, well: impl Fn(&NodeUid) -> bool, suspects: &BTreeMap<NodeUid, Missing>) {
        self.missing.retain(|uid, _| !well(uid));
        for (uid, missing) in suspects {
            if !self.gone.contains_key(uid) {
                self.missing.insert(uid.clone(), missing.clone());
            }
        }
    }

    /// So many bytes of reports that there must be no more: what is left is for nodes. A ledger that is larger than
    /// [`LEDGER_MAX`] could never be read again.
    pub fn is_full(&self) -> bool {
        const AROUND: usize = 48; // {"by":"","at":…}, quotes and commas
        let all = self.reports.iter().map(|(id, counted)| id.bytes() + counted.by.len() + AROUND);
        all.sum::<usize>() as u64 > LEDGER_MAX / 4 * 3
    }

    /// Forgets what can no longer be counted. `listed` has the time of each report's last write: one that is written again
    /// after it was counted is remembered from then on.
    pub fn prune(&mut self, listed: &[(ReportId, i64)], now: i64) {
        for (id, at) in listed {
            if let Some(counted) = self.reports.get_mut(id) {
                counted.at = counted.at.max(*at);
            }
        }
        let fresh = |counted: &Counted| now.saturating_sub(counted.at) <= REMEMBERED;
        self.reports.retain(|_, counted| fresh(counted));
        self.gone.retain(|_, gone| fresh(&gone.counted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn id(name: &str) -> ReportId {
        ReportId::parse("", &format!("node-a/{name}.json")).unwrap()
    }

    fn names(due: Vec<(ReportId, i64)>) -> Vec<String> {
        due.into_iter().map(|(id, _)| id.to_string()).collect()
    }

    fn missing(noticed: bool) -> Missing {
        Missing { node: "node-a".into(), created: 5, noticed }
    }

    #[test]
    fn a_report_is_due_once_it_has_settled_and_until_somebody_counts_it() {
        let mut ledger = ReportIndex::default();
        let listed = [
            (id("young"), NOW - 119),
            (id("second"), NOW - 120),
            (id("first"), NOW - HORIZON),
            (id("old"), NOW - HORIZON - 1),
        ];
        assert_eq!(names(ledger.due(&listed, NOW, 120)), ["node-a/first", "node-a/second"]);
        assert_eq!(ledger.waiting(&listed, NOW), 3);
        ledger.count_report(id("first"), NOW - HORIZON, "fleet-1");
        assert_eq!(names(ledger.due(&listed, NOW, 120)), ["node-a/second"]);
        // One that ended before anybody saw it gives it back.
        ledger.release_report(&id("first"));
        assert_eq!(names(ledger.due(&listed, NOW, 120)), ["node-a/first", "node-a/second"]);
    }

    #[test]
    fn nothing_is_forgotten_that_could_be_counted_again() {
        let mut ledger = ReportIndex::default();
        ledger.count_report(id("a"), NOW, "fleet-1");
        for later in [0, HORIZON, REMEMBERED, REMEMBERED + 1] {
            let listed = [(id("a"), NOW)];
            ledger.prune(&listed, NOW + later);
            assert_eq!(ledger.due(&listed, NOW + later, 0), [], "{later}");
        }
        assert_eq!(ledger.reports.len(), 0, "it grows without bound");
    }

    #[test]
    fn a_report_that_is_written_again_long_after_it_was_counted_is_not_counted_again() {
        let mut ledger = ReportIndex::default();
        ledger.count_report(id("a"), NOW, "fleet-1");
        let again = NOW + HORIZON / 2;
        for later in [again, NOW + REMEMBERED + 1, again + HORIZON, again + REMEMBERED + 1] {
            let listed = [(id("a"), again)];
            ledger.prune(&listed, later);
            assert_eq!(ledger.due(&listed, later, 0), [], "{later}");
        }
        assert_eq!(ledger.reports.len(), 0, "it grows without bound");
    }

    #[test]
    fn a_ledger_that_takes_no_more_reports_can_still_be_read() {
        let mut ledger = ReportIndex::default();
        let long = "n".repeat(900);
        let mut number = 0;
        while !ledger.is_full() {
            let id = ReportId::parse("", &format!("node-a/{number}-{long}.json")).unwrap();
            ledger.count_report(id, i64::MAX, "fleet-1/0123456789abcdef");
            number += 1;
        }
        let bytes = ledger.bytes(1).len() as u64;
        assert!((LEDGER_MAX / 3 * 2..LEDGER_MAX / 8 * 7).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_is_written_is_read_and_another_format_is_refused_by_name() {
        let mut ledger = ReportIndex::default();
        ledger.count_report(id("a"), NOW, "fleet-1");
        ledger.look(|_| false, &BTreeMap::from([("uid".to_owned(), missing(true))]));
        let bytes = ledger.bytes(7);
        assert_eq!(ReportIndex::read(&bytes), Ok(ledger.clone()));
        assert_ne!(ledger.bytes(8), bytes);
        assert_eq!(ReportIndex::read(b"{\"format\": 2, \"new\": []}"), Err(ReportIndexError::Newer(2)));
        assert!(matches!(ReportIndex::read(b"[]"), Err(ReportIndexError::Malformed(_))));
    }

    #[test]
    fn a_node_is_missing_until_it_is_well_or_counted_and_not_again_after_that() {
        let uid = "uid".to_owned();
        let suspects = BTreeMap::from([(uid.clone(), missing(false))]);
        let mut ledger = ReportIndex::default();
        ledger.look(|_| false, &suspects);
        // The next leader has never seen it: it is gone all the same.
        ledger.look(|_| false, &BTreeMap::new());
        assert_eq!(ledger.missing().len(), 1);
        ledger.count_node(&uid, Went::WithoutNotice, NOW, "fleet-1");
        assert_eq!(ledger.nodes_of("fleet-1").collect::<Vec<_>>(), [(&uid, Went::WithoutNotice)]);
        ledger.look(|_| false, &suspects);
        assert_eq!(ledger.missing().len(), 0);
        ledger.release_node(&uid);
        assert_eq!(ledger.missing().len(), 1);
        ledger.look(|known| *known == uid, &BTreeMap::new());
        assert_eq!(ledger.missing().len(), 0);
    }

    #[test]
    fn a_node_went_with_a_report_without_one_or_without_a_notice() {
        assert_eq!(Went::of(&missing(true), true), Went::WithReport);
        assert_eq!(Went::of(&missing(false), true), Went::WithReport);
        assert_eq!(Went::of(&missing(true), false), Went::WithoutReport);
        assert_eq!(Went::of(&missing(false), false), Went::WithoutNotice);
    }
}
