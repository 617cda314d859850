//! What comes before it can mean anything: a life hears of pods, notices, IMDS and the end of its first list in any order.
//!
//! Decides how long each waits, and whether the notice that an earlier life left on the node still stands. It must not
//! know what a notice begins.
//!
//! - Pods wait for the node: its annotation says whether one that terminates does so because of us.
//! - Notices wait for the node, and [`LIST_PATIENCE`] for the end of the first list: an evacuation of pods that nobody has
//!   seen would be over at once. The list is not waited for without end, since the cordon needs none.
//! - The notice on the node is confirmed by IMDS, or given up once IMDS has answered for [`CONFIRMED_WITHIN`] without it.

use crate::moment::{Moment, Span};
use crate::notice::{ActiveNotice, Notice};
use crate::open_effects::Context;
use crate::pod::{PodFacts, PodUid};
use std::collections::BTreeMap;
use std::mem::{discriminant, take};

/// How long a notice waits for the list of the node's pods, from the moment at which it was seen.
const LIST_PATIENCE: Span = Span::from_secs(3);

/// How long IMDS must answer without showing a notice that stands on the node before it counts as withdrawn: longer than
/// the slowest of its documents is asked for (maintenance, every 5 s).
const CONFIRMED_WITHIN: Span = Span::from_secs(8);

/// What waits, in one life of the agent.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// The node was read at this moment.
    node_read: Option<Moment>,
    pods: BTreeMap<PodUid, PodFacts>,
    listed: bool,
    notices: Vec<Notice>,
    imds_answers_since: Option<Moment>,
    /// The notice found on the node, until IMDS shows it or another of its kind.
    unconfirmed: Option<ActiveNotice>,
}

impl Intake {
    /// Every pod of the node was seen.
    pub(crate) const fn is_listed(&self) -> bool {
        self.listed
    }

    /// The end of the first list.
    pub(crate) fn pods_listed(&mut self) {
        self.listed = true;
    }

    /// Gives the pod back if it need not wait.
    pub(crate) fn pod_updated(&mut self, facts: PodFacts) -> Option<PodFacts> {
        if self.node_read.is_some() {
            return Some(facts);
        }
        self.pods.insert(facts.uid.clone(), facts);
        None
    }

    /// A pod that waited need not be seen any more.
    pub(crate) fn pod_removed(&mut self, uid: &PodUid) {
        self.pods.remove(uid);
    }

    /// The node was read; `standing` is the notice of this boot that is on it. Gives back the pods that waited.
    pub(crate) fn node_read(
        &mut self,
        standing: Option<&ActiveNotice>,
        now: Moment,
    ) -> impl Iterator<Item = PodFacts> + use<> {
        self.node_read.get_or_insert(now);
        let shown = |active_notice: &&ActiveNotice| self.notices.iter().any(|it| confirms(it, active_notice));
        self.unconfirmed = standing.filter(|active_notice| !shown(active_notice)).cloned();
        take(&mut self.pods).into_values()
    }

    /// IMDS shows a notice.
    pub(crate) fn notice_received(&mut self, notice: Notice) {
        self.unconfirmed.take_if(|active_notice| confirms(&notice, active_notice));
        self.notices.push(notice);
    }

    /// IMDS shows it no more: it need not wait any longer.
    pub(crate) fn notice_withdrawn(&mut self, id: &str) {
        self.notices.retain(|notice| notice.id != id);
    }

    /// IMDS answers, or does not.
    pub(crate) fn imds_reachable(&mut self, reachable: bool, now: Moment) {
        self.imds_answers_since = reachable.then(|| self.imds_answers_since.unwrap_or(now));
    }

    /// The instance was frozen until now: no answer of IMDS came meanwhile.
    pub(crate) fn resumed(&mut self, now: Moment) {
        self.imds_answers_since = self.imds_answers_since.map(|_| now);
    }

    /// The notices that have waited for long enough, in the order in which they came.
    pub(crate) fn due_notices(&mut self, ctx: &mut Context<'_>) -> Vec<Notice> {
        let Some(first) = self.notices.first().filter(|_| self.node_read.is_some()) else {
            return Vec::new();
        };
        if self.listed || ctx.reached_or_wake(first.seen + LIST_PATIENCE) {
            return take(&mut self.notices);
        }
        Vec::new()
    }

    /// The id of the notice that was found on the node and that IMDS does not show. It was withdrawn while no agent lived:
    /// IMDS reports only what changes while it is watched.
    pub(crate) fn given_up(&mut self, ctx: &mut Context<'_>) -> Option<String> {
        self.unconfirmed.as_ref()?;
        if !self.has_heard_imds(ctx) {
            return None;
        }
        self.unconfirmed.take().map(|active_notice| active_notice.notice)
    }

    /// IMDS has answered for long enough to have shown all that it shows.
    pub(crate) fn has_heard_imds(&self, ctx: &mut Context<'_>) -> bool {
        let (Some(answers), Some(read)) = (self.imds_answers_since, self.node_read) else { return false };
        ctx.reached_or_wake(answers.max(read) + CONFIRMED_WITHIN)
    }
}

/// IMDS shows the notice that stands on the node, or another of its kind in its place. One of another kind says nothing
/// of it: a rebalance recommendation stays when an interruption is withdrawn.
fn confirms(notice: &Notice, active_notice: &ActiveNotice) -> bool {
    notice.id == active_notice.notice || discriminant(&notice.kind) == discriminant(&active_notice.kind)
}
