//! Adopts reports: reads what nobody has counted, puts into the ledger that this process counts it, and counts it.
//!
//! It is a task of its own for the whole life of the process, and acts only while the replica leads: what was promised
//! in the ledger in one term may have to be counted in the next. Opening gates does not wait for it.

use super::reports::{self, REPORT_MAX, Reading, ReportId};
use super::settings::StorePlace;
use crate::fleet::lost_nodes::{LostNodes, Sightings};
use crate::fleet::report_index::{NodeUid, ReportIndex, ReportIndexError};
use crate::runtime::metrics::kinds::Went;
use crate::runtime::metrics::{CountedAt, Metrics};
use bytes::Bytes;
use checkpoint::store::{Condition, Store, StoreError, Version};
use checkpoint::{key, retry};
use evacuation::moment::Moment;
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use host::clock;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How long one round may take, with its retries.
const ROUND: Duration = Duration::from_secs(60);

/// The same for giving back what nobody has seen, when the process ends: the pod has 15 s.
const FAREWELL: Duration = Duration::from_secs(5);

/// Reports in one write of the ledger.
const BATCH: usize = 64;

/// A round asks for no more reports once the store has refused this many.
const REFUSED_MAX: usize = 512;

/// What a round keeps for the nodes, however many reports wait.
const FOR_NODES: Duration = Duration::from_secs(20);

/// Reports that are read at the same time, each of up to [`REPORT_MAX`].
const AT_ONCE: usize = 4;

/// The newest reports of a node that are asked for a notice.
const OF_A_NODE: usize = 8;

/// The nodes as the loop of the fleet role sees them; `None` while it does not lead.
pub(super) type SharedNodes = Arc<Mutex<Option<LostNodes>>>;

/// Why a round ended early. The next one tries again.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the ledger {key}: {error}")]
    Index { key: String, error: ReportIndexError },
    /// All others are counted.
    #[error("{refused} reports cannot be read, the first is {id}: {error}")]
    Refused { refused: usize, id: ReportId, error: StoreError },
    #[error(
        "the ledger is full, with the reports and nodes of eight days: {waiting} reports are not counted before others are old enough to \
         be forgotten; who writes so many?"
    )]
    Full { waiting: usize },
}

/// What came of reading a report.
enum Got {
    Reading(Reading),
    /// It was there when it was listed.
    Gone,
    /// The store will not give this one.
    Refused(StoreError),
}

/// Adopts reports for as long as the process lives.
pub(super) struct ReportCounter {
    place: StorePlace,
    settle: Duration,
    metrics: Metrics,
    nodes: SharedNodes,
    /// Until when this replica leads.
    lead: watch::Receiver<Option<Moment>>,
    /// This process, as the ledger names it.
    me: String,
    prefix: String,
    ledger_key: String,
    store: Option<Store>,
    /// What the ledger may say that this process counts, and was not counted yet.
    promised: BTreeMap<ReportId, Reading>,
    /// What this process has counted, and when.
    reports: BTreeMap<ReportId, CountedAt>,
    gone: BTreeMap<NodeUid, CountedAt>,
    /// Nodes of which it is known that they are gone, and since when this process knows it.
    gone_since: BTreeMap<NodeUid, Instant>,
    /// Reports that wait for a newer fleet role.
    newer: BTreeSet<ReportId>,
    /// Objects that are larger than any report.
    too_large: BTreeSet<ReportId>,
    /// It may have written to the ledger.
    wrote: bool,
    /// What was last said to be wrong.
    said: String,
}

impl ReportCounter {
    /// Nothing is done yet.
    ///
    /// # Errors
    /// The cluster's name cannot be part of a key.
    pub(super) fn new(
        place: StorePlace,
        settle: Duration,
        metrics: Metrics,
        nodes: SharedNodes,
        lead: watch::Receiver<Option<Moment>>,
        identity: &str,
    ) -> Result<Self, key::KeyError> {
        Ok(Self {
            prefix: key::reports(&place.cluster)?,
            ledger_key: key::ledger(&place.cluster)?,
            // A container that is started anew has the same pod's name, and other counters.
            me: format!("{identity}/{:016x}", fastrand::u64(..)),
            place,
            settle,
            metrics,
            nodes,
            lead,
            store: None,
            promised: BTreeMap::new(),
            reports: BTreeMap::new(),
            gone: BTreeMap::new(),
            gone_since: BTreeMap::new(),
            newer: BTreeSet::new(),
            too_large: BTreeSet::new(),
            wrote: false,
            said: String::new(),
        })
    }

    /// Adopts until cancelled, and gives back then what no scrape has seen.
    pub(super) async fn run(mut self, every: Duration, cancel: CancellationToken) {
        let mut rounds = interval(every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while cancel.run_until_cancelled(rounds.tick()).await.is_some() {
            if !self.leads() {
                self.metrics.fleet_behind(0, 0);
                continue;
            }
            let Some(ended) = cancel.run_until_cancelled(self.round(Instant::now() + ROUND)).await else {
                break;
            };
            self.say(ended);
        }
        self.farewell(Instant::now() + FAREWELL).await;
    }

    fn leads(&self) -> bool {
        self.lead.borrow().is_some_and(|until| clock::now() < until)
    }

    fn say(&mut self, ended: Result<(), RoundError>) {
        self.metrics.fleet_round(ended.is_ok());
        let why = ended.err().map(|error| error.to_string()).unwrap_or_default();
        if why == self.said {
            return;
        }
        match why.as_str() {
            "" => tracing::info!("reports can be adopted again"),
            why => tracing::error!(
                error = why,
                "reports cannot be adopted; it is tried again, and gates do not wait for it"
            ),
        }
        self.said = why;
    }

    async fn round(&mut self, deadline: Instant) -> Result<(), RoundError> {
        let store = self.open().await?;
        let (mut ledger, mut version) = self.load(&store, deadline).await?;
        let now = retry::now(store.as_ref(), deadline).await?.as_second();
        let objects = retry::list(store.as_ref(), &self.prefix, deadline).await?;
        let (mut listed, mut too_large) = (Vec::with_capacity(objects.len()), BTreeSet::new());
        for object in objects {
            let Some(id) = ReportId::parse(&self.prefix, &object.key) else { continue };
            if object.size > REPORT_MAX {
                too_large.insert(id.clone());
            }
            listed.push((id, object.modified.as_second()));
        }
        self.too_large = too_large;
        // Before anything is compared with it: what is forgotten there is forgotten here, and not promised anew.
        ledger.prune(&listed, now);
        self.reports.retain(|id, _| ledger.has_report(id));
        self.gone.retain(|uid, _| ledger.has_node(uid));
        self.keep_promises(&store, &ledger, deadline).await?;
        let settle = i64::try_from(self.settle.as_secs()).unwrap_or(i64::MAX);
        let (mut gone, mut refused) = (BTreeSet::new(), BTreeMap::new());
        let mut full = false;
        while self.leads() && Instant::now() + FOR_NODES < deadline {
            let mut due = ledger.due(&listed, now, settle);
            due.retain(|(id, _)| !self.newer.contains(id) && !gone.contains(id) && !refused.contains_key(id));
            due.truncate(BATCH);
            full = !due.is_empty() && ledger.is_full();
            if due.is_empty() || full || refused.len() >= REFUSED_MAX {
                break;
            }
            for (id, at, got) in self.read_all(&store, due, deadline).await? {
                match got {
                    Got::Gone => drop(gone.insert(id)),
                    Got::Refused(error) => drop(refused.insert(id, error)),
                    Got::Reading(Reading::Newer(format)) => {
                        tracing::warn!(report = %id, format, "the report is of a newer lifeboat: upgrade the fleet role to count it");
                        self.newer.insert(id);
                    }
                    Got::Reading(reading) => {
                        ledger.count_report(id.clone(), at, &self.me);
                        self.promised.insert(id, reading);
                    }
                }
            }
            if !self.promised.is_empty() {
                version = self.write(&store, &mut ledger, version, deadline).await?;
                self.count();
            }
        }
        let waiting = ledger.waiting(&listed, now);
        self.metrics.fleet_behind(waiting, ledger.missing().len());
        self.look_for_nodes(&store, ledger, version, &listed, now, deadline).await?;
        let count = refused.len();
        match refused.into_iter().next() {
            _ if full => Err(RoundError::Full { waiting }),
            Some((id, error)) => Err(RoundError::Refused { refused: count, id, error }),
            None => Ok(()),
        }
    }

    async fn open(&mut self) -> Result<Store, StoreError> {
        if let Some(store) = &self.store {
            return Ok(Arc::clone(store));
        }
        let store = self.place.open().await?;
        tracing::info!(store = %store.describe(), "reports are adopted from here");
        Ok(Arc::clone(self.store.insert(store)))
    }

    async fn load(
        &self,
        store: &Store,
        deadline: Instant,
    ) -> Result<(ReportIndex, Option<Version>), RoundError> {
        match retry::get(store.as_ref(), &self.ledger_key, crate::fleet::report_index::LEDGER_MAX, deadline)
            .await
        {
            Ok(object) => {
                let ledger = ReportIndex::read(&object.bytes)
                    .map_err(|error| RoundError::Index { key: self.ledger_key.clone(), error })?;
                Ok((ledger, Some(object.version)))
            }
            Err(StoreError::NotFound { .. }) => Ok((ReportIndex::default(), None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the ledger, only if it is still the one that was read.
    async fn write(
        &mut self,
        store: &Store,
        ledger: &mut ReportIndex,
        read: Option<Version>,
        deadline: Instant,
    ) -> Result<Option<Version>, StoreError> {
        let condition = read.map_or(Condition::IfAbsent, Condition::IfMatch);
        let bytes = Bytes::from(ledger.bytes(fastrand::u64(..)));
        self.wrote = true;
        retry::put(store.as_ref(), &self.ledger_key, bytes, condition, deadline).await.map(Some)
    }

    /// Counts what an earlier write promised whose answer was lost. What the ledger does not say is promised no more.
    async fn keep_promises(
        &mut self,
        store: &Store,
        ledger: &ReportIndex,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let mine: BTreeSet<ReportId> =
            ledger.reports_of(&self.me).filter(|id| !self.reports.contains_key(*id)).cloned().collect();
        self.promised.retain(|id, _| mine.contains(id));
        let unknown: Vec<(ReportId, i64)> =
            mine.into_iter().filter(|id| !self.promised.contains_key(id)).map(|id| (id, 0)).collect();
        for (id, _, got) in self.read_all(store, unknown, deadline).await? {
            match got {
                Got::Reading(reading) => drop(self.promised.insert(id, reading)),
                Got::Gone => drop(self.promised.insert(id, Reading::Unreadable("it is gone".to_owned()))),
                // It is still promised: the next round asks again.
                Got::Refused(error) => {
                    tracing::warn!(report = %id, %error, "what was promised to be counted cannot be read");
                }
            }
        }
        self.count();
        let nodes: Vec<(NodeUid, Went)> = ledger
            .nodes_of(&self.me)
            .filter(|(uid, _)| !self.gone.contains_key(*uid))
            .map(|(uid, went)| (uid.clone(), went))
            .collect();
        self.count_nodes(nodes);
        Ok(())
    }

    /// Reads these reports.
    async fn read_all(
        &self,
        store: &Store,
        ids: Vec<(ReportId, i64)>,
        deadline: Instant,
    ) -> Result<Vec<(ReportId, i64, Got)>, StoreError> {
        // Boxed: the compiler cannot see that a stream of futures that borrow may go to another thread.
        let all = ids.into_iter().map(|(id, at)| self.read_one(store, id, at, deadline).boxed());
        stream::iter(all.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
    }

    async fn read_one(
        &self,
        store: &Store,
        id: ReportId,
        at: i64,
        deadline: Instant,
    ) -> Result<(ReportId, i64, Got), StoreError> {
        if self.too_large.contains(&id) {
            let why = format!("it is larger than {REPORT_MAX} bytes");
            return Ok((id, at, Got::Reading(Reading::Unreadable(why))));
        }
        let got = match retry::get(store.as_ref(), &id.key(&self.prefix), REPORT_MAX, deadline).await {
            Ok(object) => Got::Reading(reports::read(&id, &object.bytes)),
            Err(StoreError::NotFound { .. }) => Got::Gone,
            // Of this one object: another key of KMS, or one that the caller would have to bring.
            Err(error @ (StoreError::Denied { .. } | StoreError::Permanent { .. })) => Got::Refused(error),
            Err(error) => return Err(error),
        };
        Ok((id, at, got))
    }

    /// Counts what is promised. Nothing here waits: what is counted and what is noted as counted is the same.
    fn count(&mut self) {
        if self.promised.is_empty() {
            return;
        }
        let promised = std::mem::take(&mut self.promised);
        let seen = self.metrics.fleet_counts(promised.values(), []);
        for (id, reading) in promised {
            match &reading {
                Reading::Evacuation(summary) => tracing::info!(
                    report = %id, kind = summary.kind.as_str(), outcome = summary.end.as_str(), pods = summary.pods.len(),
                    took = %summary.took, "report adopted"
                ),
                Reading::Unreadable(why) => tracing::warn!(report = %id, why, "the report cannot be read"),
                Reading::Drill | Reading::Newer(_) => {}
            }
            self.reports.insert(id, seen);
        }
    }

    fn count_nodes(&mut self, nodes: Vec<(NodeUid, Went)>) {
        let seen = self.metrics.fleet_counts([], nodes.iter().map(|(_, went)| *went));
        self.gone.extend(nodes.into_iter().map(|(uid, _)| (uid, seen)));
    }

    /// Writes down which nodes are missing, so that the next leader knows, and decides of those that are gone how they went.
    async fn look_for_nodes(
        &mut self,
        store: &Store,
        mut ledger: ReportIndex,
        version: Option<Version>,
        listed: &[(ReportId, i64)],
        now: i64,
        deadline: Instant,
    ) -> Result<(), RoundError> {
        let sightings = self.nodes.lock().as_ref().and_then(LostNodes::sightings);
        let Some(Sightings { well, suspects, present }) = sightings else { return Ok(()) };
        if let Some(vanished) = self.nodes.lock().as_mut() {
            // Of a write whose answer was lost, or another replica's: else it is a suspect for as long as this one leads.
            suspects.keys().filter(|uid| ledger.has_node(uid)).for_each(|uid| vanished.decided(uid));
        }
        let before = ledger.missing().clone();
        ledger.look(|uid| well.contains(uid), &suspects);
        let gone: BTreeSet<&NodeUid> =
            ledger.missing().keys().filter(|uid| !present.contains(*uid)).collect();
        self.gone_since.retain(|uid, _| gone.contains(uid));
        let (mut decided, mut ended) = (Vec::new(), Ok(()));
        for uid in gone {
            if decided.len() == BATCH {
                break;
            }
            let since = *self.gone_since.entry(uid.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= self.settle
                && let Some(missing) = ledger.missing().get(uid)
            {
                match self.reported(store, &missing.node, missing.created, listed, deadline).await {
                    Ok(told) => decided.push((uid.clone(), missing.node.clone(), Went::of(missing, told))),
                    // Those before it are decided.
                    Err(error) => {
                        ended = Err(error.into());
                        break;
                    }
                }
            }
        }
        for (uid, _, went) in &decided {
            ledger.count_node(uid, *went, now, &self.me);
        }
        self.metrics.fleet_behind(ledger.waiting(listed, now), ledger.missing().len());
        // One that is decided may never have been written down as missing: the maps are then the same.
        if (decided.is_empty() && before == *ledger.missing()) || !self.leads() {
            return ended;
        }
        self.write(store, &mut ledger, version, deadline).await?;
        for (uid, node, went) in &decided {
            tracing::warn!(node, how = went.as_str(), "a Spot node is gone");
            self.gone_since.remove(uid);
            if let Some(vanished) = self.nodes.lock().as_mut() {
                vanished.decided(uid);
            }
        }
        self.count_nodes(decided.into_iter().map(|(uid, _, went)| (uid, went)).collect());
        ended
    }

    /// A report tells of a notice that this node had.
    async fn reported(
        &self,
        store: &Store,
        node: &str,
        created: i64,
        listed: &[(ReportId, i64)],
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let mut of_it: Vec<(ReportId, i64)> =
            listed.iter().filter(|(id, at)| id.node() == node && *at >= created).cloned().collect();
        of_it.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        of_it.truncate(OF_A_NODE);
        let all = self.read_all(store, of_it, deadline).await?;
        Ok(all.into_iter().any(|(_, _, got)| match got {
            Got::Reading(reading) => reading.tells_of_a_notice(),
            Got::Gone => false,
            // It is there: in doubt the node did not go without a word.
            Got::Refused(_) => true,
        }))
    }

    /// Nobody can see any more what was counted here. What nobody has seen is taken out of the ledger, and the next leader
    /// counts it.
    async fn farewell(self, deadline: Instant) {
        self.metrics.close();
        let Some(store) = self.store.clone().filter(|_| self.wrote) else { return };
        let unseen = |seen: Option<&CountedAt>| !seen.is_some_and(|seen| self.metrics.seen(*seen));
        while Instant::now() < deadline {
            let (mut ledger, version) = match self.load(&store, deadline).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    return tracing::warn!(%error, "what no scrape has seen of the last reports is lost");
                }
            };
            let reports: Vec<ReportId> =
                ledger.reports_of(&self.me).filter(|id| unseen(self.reports.get(*id))).cloned().collect();
            let nodes: Vec<NodeUid> = ledger
                .nodes_of(&self.me)
                .filter(|(uid, _)| unseen(self.gone.get(*uid)))
                .map(|(uid, _)| uid.clone())
                .collect();
            if reports.is_empty() && nodes.is_empty() {
                return;
            }
            reports.iter().for_each(|id| ledger.release_report(id));
            nodes.iter().for_each(|uid| ledger.release_node(uid));
            let condition = version.map_or(Condition::IfAbsent, Condition::IfMatch);
            let bytes = Bytes::from(ledger.bytes(fastrand::u64(..)));
            match retry::put(store.as_ref(), &self.ledger_key, bytes, condition, deadline).await {
                Ok(_) => {
                    return tracing::info!(
                        reports = reports.len(),
                        nodes = nodes.len(),
                        "left to the next leader: no scrape has seen them"
                    );
                }
                // The next leader is at work: look again.
                Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => {
                    return tracing::warn!(%error, "what no scrape has seen of the last reports is lost");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
