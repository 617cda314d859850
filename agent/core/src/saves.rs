//! All saves of the node side by side: whose bytes move first, and what is dropped.
//!
//! Decides the place of each save: its rank on the link, its turn at the flush slots. A state that will not be whole by
//! its cut-off stands behind all that will: it takes nothing from them, and still gets what would be idle. It must not
//! know how a single save is made, nor who is evicted when.

use crate::effect::FIRST_DROPPED_RANK;
use crate::forecast::{Fit, Forecaster, Load, Resources};
use crate::moment::Moment;
use crate::open_effects::Context;
use crate::pod_save::{SaveContext, SaveStep};
use crate::pods::{Pods, TrackedPod};
use crate::uplink::Uplink;
use crate::{budget, order};
use std::cmp::Reverse;

/// What all saves of the node share: its uplink, and how it is divided.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saves {
    pub(crate) uplink: Uplink,
    forecaster: Forecaster,
    loads: Vec<Load>,
}

impl Saves {
    /// The next steps of all saves, in saving order: whoever is first gets the flush slots first.
    pub(crate) fn advance(&mut self, pods: &mut Pods, ctx: &mut Context<'_>) {
        let disk = slowest_flush(pods);
        let now = ctx.now;
        let turn = |pod| Turn { load: None, rank: 0, fit: Fit::Unknown, bytes_before_and_own: 0, pod };
        let mut turns: Vec<Turn<'_>> = Vec::with_capacity(pods.len());
        turns.extend(pods.values_mut().filter(|pod| pod.saves_something()).map(turn));
        if turns.is_empty() {
            return;
        }
        turns.sort_unstable_by(|a, b| order::saving(a.pod.saving(), b.pod.saving()));
        let slots = ctx.policy.flush_slots;
        let flushing = turns.iter().filter(|turn| turn.pod.takes_a_flush_slot(ctx)).count();
        let mut flush_slots = slots.saturating_sub(flushing);

        let resources = Resources { now, link: self.uplink.rate, flush_slots: slots };
        self.loads.clear();
        for turn in &mut turns {
            if let Some(load) = turn.pod.load(disk, now) {
                turn.load = Some(self.loads.len());
                self.loads.push(load);
            }
        }
        let fits = self.forecaster.forecast(resources, &self.loads);
        let mut bytes = 0u64;
        for (place, turn) in (0u64..).zip(&mut turns) {
            turn.fit = turn.load.and_then(|load| fits.get(load)).copied().unwrap_or(Fit::Unknown);
            let own = turn.pod.to_send();
            let dropped = turn.fit.is_dropped();
            if !dropped {
                bytes = bytes.saturating_add(own);
            }
            turn.bytes_before_and_own = if dropped { own } else { bytes };
            turn.rank = if dropped { FIRST_DROPPED_RANK + place } else { place };
        }
        // Engines take their turns by tier, too, but within one the quickest flush goes first: the link has something to
        // send the sooner (Johnson, "Optimal two- and three-stage production schedules with setup times included", 1954).
        turns.sort_unstable_by_key(|turn| {
            let facts = &turn.pod.facts;
            (
                turn.fit.is_dropped(),
                turn.pod.inspection.doubt.is_some(),
                Reverse(facts.priority),
                facts.serves_to_the_end(),
                facts.role,
                turn.pod.inspection.state_bytes(),
                turn.rank,
            )
        });
        // What counts most and has not flushed yet: the order is by doubt and value first.
        let mut unflushed: Option<(bool, i32)> = None;
        for Turn { rank, fit, bytes_before_and_own, pod, .. } in turns {
            let dropped = fit.is_dropped();
            let own = (pod.inspection.doubt.is_none(), pod.facts.priority);
            let outranked = unflushed.is_some_and(|most| dropped || most > own);
            let mut around = SaveContext {
                rank,
                bytes_before_and_own,
                bytes_per_second: self.uplink.rate,
                flush: budget::flush(pod.inspection.state_bytes(), pod.inspection.flush_rate.or(disk)),
                flush_slots: &mut flush_slots,
                fit,
                outranked,
            };
            pod.advance_save(&mut around, ctx);
            if pod.departure.as_ref().is_some_and(|departure| departure.save.is_before_its_save()) {
                unflushed = unflushed.max(Some(own));
            }
        }
    }

    /// What the link has carried since the last event were bytes of the saves that were open, the first first.
    ///
    /// Before the event is absorbed: it may be the answer to one of them.
    pub(crate) fn settle(&mut self, pods: &mut Pods, now: Moment) {
        let mut carried = self.uplink.carried(now);
        let saving = pods
            .values_mut()
            .filter_map(|pod| pod.departure.as_mut())
            .filter(|departure| departure.save.step == SaveStep::Save)
            .filter_map(|departure| Some((departure.save.rank, departure.save.unsent.as_mut()?)));
        let mut open: Vec<_> = saving.collect();
        open.sort_by_key(|(rank, _)| *rank);
        for (_, unsent) in open {
            let moved = carried.min(*unsent);
            *unsent -= moved;
            carried -= moved;
        }
    }
}

/// One save's turn.
struct Turn<'a> {
    /// The place of its load in the forecast, if there is something left to save.
    load: Option<usize>,
    rank: u64,
    fit: Fit,
    bytes_before_and_own: u64,
    pod: &'a mut TrackedPod,
}

/// The slowest flush that was measured on this node: what is expected of an engine whose own was not.
pub(crate) fn slowest_flush(pods: &Pods) -> Option<u64> {
    pods.values().filter_map(|pod| pod.inspection.flush_rate).min()
}
