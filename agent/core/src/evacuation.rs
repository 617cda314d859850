//! One node under a notice: from the first sight of it to the report.
//!
//! Decides when pods begin to depart, in which order they go, and when the report is written. How a
//! single pod is saved and evicted is in [`crate::pod_save`] and [`crate::pod_eviction`]; it must not know their steps.

use crate::effect::{Action, KubeEvent, NodeAction};
use crate::event::Outcome;
use crate::moment::{Moment, Span};
use crate::node_mark::NodeMark;
use crate::notice::{ActiveNotice, InstanceAction, NoticeKind};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::order;
use crate::pods::{Pods, TrackedPod};
use crate::policy::{EvictOrder, Policy};
use crate::report::{Report, StateOutcome};
use crate::saves::Saves;
use std::collections::BTreeSet;

/// What a hibernating pod's report says.
const HIBERNATES: &str = "hibernate: the pod comes back with the memory of its instance";

/// One evacuation.
#[derive(Clone, Debug)]
pub(crate) struct Evacuation {
    pub(crate) active_notice: ActiveNotice,
    pub(crate) short: bool,
    pub(crate) withdrawn: Option<Moment>,
    /// IMDS says that what it announced is completed or canceled: nothing is waited for before it is undone.
    pub(crate) is_over: bool,
    /// The id that IMDS showed last: a notice whose time moves has a new one with every poll.
    pub(crate) latest: String,
    /// It was found on the node: an earlier life may have done a part of it.
    resumed: bool,
    /// Every pod of the node was seen.
    listed: bool,
    cordon_is_decided: bool,
    cordoned: Option<Moment>,
    report: Attempts,
    written: Option<Report>,
    writing: Option<Report>,
}

impl Evacuation {
    pub(crate) fn new(active_notice: ActiveNotice, short: bool) -> Self {
        Self {
            latest: active_notice.notice.clone(),
            active_notice,
            short,
            withdrawn: None,
            is_over: false,
            resumed: false,
            listed: false,
            cordon_is_decided: false,
            cordoned: None,
            report: Attempts::default(),
            written: None,
            writing: None,
        }
    }

    /// The evacuation that an agent finds on its node when it starts: its pods come one by one.
    pub(crate) fn resume(active_notice: ActiveNotice) -> Self {
        Self { resumed: true, ..Self::new(active_notice, false) }
    }

    /// Every pod of the node is to leave, as far as it can.
    pub(crate) fn takes_all(&self) -> bool {
        self.withdrawn.is_none() && !self.hibernates()
    }

    /// The instance freezes with its memory: nothing is evicted.
    pub(crate) fn hibernates(&self) -> bool {
        self.active_notice.kind == NoticeKind::Interruption(InstanceAction::Hibernate)
    }

    /// It is rehearsed: the node stays, and is what it was as soon as this is over.
    pub(crate) fn is_rehearsed(&self) -> bool {
        self.active_notice.kind == NoticeKind::Drill
    }

    /// Lets every pod that has not begun to leave begin.
    pub(crate) fn depart(&self, pods: &mut Pods, ctx: &mut Context<'_>) {
        if !self.takes_all() {
            return;
        }
        for pod in pods.values_mut().filter(|pod| pod.present && pod.departure.is_none()) {
            pod.depart(&self.active_notice, self.resumed, ctx);
        }
    }

    /// The notice is gone: what has begun goes on, nothing else begins.
    pub(crate) fn withdraw(&mut self, now: Moment) {
        self.withdrawn.get_or_insert(now);
    }

    /// The next steps of all that leave.
    pub(crate) fn advance(
        &mut self,
        node: &str,
        listed: bool,
        pods: &mut Pods,
        mark: &NodeMark,
        saves: &mut Saves,
        ctx: &mut Context<'_>,
    ) {
        self.listed = listed;
        if mark.is_cordoned() && self.cordoned.is_none() {
            self.cordoned = Some(ctx.now);
        }
        self.cordon_is_decided = self.cordoned.is_some() || mark.forbidden;
        self.depart(pods, ctx);
        if self.withdrawn.is_some() {
            for pod in pods.values_mut() {
                pod.stand_down(ctx);
            }
        }
        saves.advance(pods, ctx);
        for pod in pods.values_mut() {
            pod.give_up_hold(ctx);
            pod.advance_hold(ctx);
        }
        self.advance_evictions(pods, mark, ctx);
        self.advance_report(node, pods, ctx);
    }

    fn advance_evictions(&self, pods: &mut Pods, mark: &NodeMark, ctx: &mut Context<'_>) {
        if self.hibernates() {
            return;
        }
        let asking =
            pods.values().filter_map(|pod| pod.departure.as_ref()).filter(|d| d.eviction.is_asking()).count();
        let mut slots = ctx.policy.eviction_slots.saturating_sub(asking);
        let open_tier = self.open_tier(pods, ctx);
        let mut order: Vec<&mut TrackedPod> = Vec::with_capacity(pods.len());
        order.extend(pods.values_mut().filter(|pod| pod.departure.is_some()));
        order.sort_unstable_by(|a, b| order::evicting(ctx.policy, &a.facts, &b.facts));
        for pod in order {
            let ready = pod.is_ready(ctx);
            let Some(departure) = &mut pod.departure else { continue };
            // A replacement must not land on this node again: the cordon comes first. It is not
            // waited for beyond the cut-off, since the node dies in any case.
            let cordoned = mark.is_cordoned() || mark.forbidden;
            let tier = open_tier.is_none_or(|open| pod.facts.priority <= open)
                || order::is_shed(ctx.policy, &pod.facts);
            let ready = ready && tier && cordoned;
            if slots == 0 && !ctx.reached_or_wake(departure.times.cutoff) {
                continue;
            }
            if departure.eviction.advance(&pod.facts, departure.times, ready, ctx) {
                slots = slots.saturating_sub(1);
            }
        }
    }

    /// With `lowest-first`: the highest priority that may go now. A tier waits for all lower ones,
    /// up to its share of the window (as the kubelet's graceful shutdown does).
    fn open_tier(&self, pods: &Pods, ctx: &mut Context<'_>) -> Option<i32> {
        if ctx.policy.evict_order == EvictOrder::HighestFirst {
            return None;
        }
        let leaving = || pods.values().filter(|pod| pod.facts.stays().is_none() && !pod.facts.is_late());
        let tiers: BTreeSet<i32> = leaving().map(|pod| pod.facts.priority).collect();
        let count = tiers.len() as u64;
        let window = self.active_notice.deadline.since(self.active_notice.began);
        let mut open = None;
        for (position, tier) in (1u64..).zip(&tiers) {
            open = Some(*tier);
            let done = leaving()
                .filter(|pod| pod.facts.priority <= *tier)
                .all(|pod| pod.departure.as_ref().is_none_or(|departure| departure.eviction.is_over()));
            let share = Span::from_millis(window.as_millis() * position / count.max(1));
            if !done && !ctx.reached_or_wake(self.active_notice.began + share) {
                break;
            }
        }
        open
    }

    /// Everything that was to happen has happened.
    fn is_complete(&self, pods: &Pods) -> bool {
        let departures = || pods.values().filter_map(|pod| pod.departure.as_ref());
        self.listed
            && self.cordon_is_decided
            && departures().all(|departure| departure.save.is_over() && departure.eviction.is_over())
    }

    /// The report as it would be written now, without its `written`.
    pub(crate) fn report(&self, node: &str, pods: &Pods, ctx: &Context<'_>) -> Report {
        let (mut order, staying): (Vec<&TrackedPod>, Vec<&TrackedPod>) =
            pods.values().partition(|pod| pod.facts.stays().is_none());
        order.sort_by(|a, b| order::evicting(ctx.policy, &a.facts, &b.facts));
        Report {
            format: 1,
            node: node.to_owned(),
            boot: self.active_notice.boot.clone(),
            notice: self.active_notice.notice.clone(),
            kind: self.active_notice.kind,
            short: self.short,
            withdrawn: self.withdrawn.is_some(),
            noticed: self.active_notice.began,
            deadline: self.active_notice.deadline,
            cordoned: self.cordoned,
            written: ctx.now,
            complete: self.is_complete(pods),
            pods: order
                .into_iter()
                .chain(staying)
                .map(|pod| {
                    let mut entry = pod.report(ctx.now);
                    if self.hibernates() {
                        entry.reason = Some(HIBERNATES.into());
                        if let Some((generation, bytes)) = &pod.precopy.committed {
                            entry.state = StateOutcome::Earlier;
                            entry.generation = Some(generation.clone());
                            entry.bytes = *bytes;
                        }
                    }
                    entry
                })
                .collect(),
        }
    }

    /// Written when it is complete; shortly before the deadline, whatever happened; and once more at
    /// the deadline if it says more then.
    fn advance_report(&mut self, node: &str, pods: &Pods, ctx: &mut Context<'_>) {
        if self.report.open.is_some() {
            return;
        }
        let deadline = self.active_notice.deadline;
        let complete = self.is_complete(pods);
        let early = ctx.reached_or_wake(deadline - ctx.policy.report_lead);
        let last = ctx.reached_or_wake(deadline);
        let due = match &self.written {
            None => complete || early,
            Some(report) => complete || (last && report.written < deadline && !report.complete),
        };
        if !due || !self.report.may_start(ctx) {
            return;
        }
        let report = self.report(node, pods, ctx);
        // What was given up may be gone in the end, and new pods may have come and left.
        if self.written.as_ref().is_some_and(|written| written.complete && written.pods == report.pods) {
            return;
        }
        self.writing = Some(report.clone());
        let attempt = self.report.next();
        let span = ctx.policy.call_timeout;
        // The one before the deadline must not be in the way of the one at it.
        let by = if last { ctx.now + span } else { deadline };
        let action = Action::Node(NodeAction::WriteReport(Box::new(report)));
        self.report.open = Some(ctx.ask(span, by, attempt, Purpose::Report, action));
    }

    /// Takes the answer to a report.
    pub(crate) fn reported(&mut self, outcome: &Outcome, ctx: &mut Context<'_>) {
        if let Outcome::Done(_) = outcome {
            self.written = self.writing.take();
            self.report = Attempts::default();
        } else {
            self.report.failed(ctx.now, Span::from_secs(1));
        }
    }

    /// A complete report is written.
    pub(crate) fn is_reported(&self) -> bool {
        self.written.as_ref().is_some_and(|report| report.complete)
    }

    /// The Event that says that it has begun.
    pub(crate) fn announce(&self, ctx: &mut Context<'_>) {
        let left = self.active_notice.deadline.left(ctx.now);
        let short = if self.short { ", the minimum window: its time has passed or is too near" } else { "" };
        let note = format!(
            "{} notice {}: {left} left{short}",
            self.active_notice.kind.as_str(),
            self.active_notice.notice
        );
        ctx.fire(Action::Node(NodeAction::Publish(KubeEvent::warning("EvacuationStarted", note))));
    }
}

/// The deadline of an evacuation whose instance is gone at `ends`, and whether it is that of the minimum window.
pub(crate) fn deadline(ends: Moment, policy: &Policy, now: Moment) -> (Moment, bool) {
    window(ends - policy.margin, policy, now)
}

/// The same of one whose deadline should be `by`.
pub(crate) fn window(by: Moment, policy: &Policy, now: Moment) -> (Moment, bool) {
    // Nearer than this nothing of use fits; the instance often lives longer than it was told.
    if by.left(now) < policy.minimum_window.div(6) {
        return (now + policy.minimum_window, true);
    }
    (by, false)
}
