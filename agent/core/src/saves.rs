//! All saves of the node side by side: whose bytes move first, and what is dropped.
//!
//! Decides the place of each save: its rank on the link, its turn at the flush slots. A state that will not be whole by
//! its cut-off stands behind all that will: it takes nothing from them, and still gets what would be idle. It must not
//! know how a single save is made, nor who is evicted when.

use crate::budget;
use crate::departure::Pod;
use crate::evacuation::Pods;
use crate::forecast::{Fit, Load, Resources, forecast};
use crate::keep::{Step, Surroundings};
use crate::ledger::Context;
use crate::moment::{Moment, Span};
use crate::order;
use crate::uplink::Uplink;

/// Ranks from here on are of what does not fit: behind all that does, in the same order.
const DROPPED: u64 = 1 << 32;

/// The next steps of all saves, in saving order: whoever is first gets the flush slots first.
pub(crate) fn advance(pods: &mut Pods, uplink: &mut Uplink, ctx: &mut Context<'_>) {
    let carried = uplink.carried(ctx.now);
    let disk = slowest_flush(pods);
    let mut saving: Vec<&mut Pod> = pods.values_mut().filter(|pod| pod.saves_something()).collect();
    if saving.is_empty() {
        return;
    }
    saving.sort_by(|a, b| order::saving(a.saving(), b.saving()));
    let slots = ctx.policy.flush_slots;
    let flushing = saving.iter().filter(|pod| pod.takes_a_flush_slot(ctx)).count();
    let mut flush_slots = slots.saturating_sub(flushing);

    progress(&mut saving, carried);
    let resources = Resources { now: ctx.now, link: uplink.rate, flush_slots: slots };
    let loads: Vec<(usize, Load)> =
        (0..).zip(&saving).filter_map(|(place, pod)| Some((place, pod.load(disk, ctx.now)?))).collect();
    let only: Vec<Load> = loads.iter().map(|(_, load)| *load).collect();
    let mut fits = vec![Fit::Unknown; saving.len()];
    for ((place, _), fit) in loads.iter().zip(forecast(resources, &only, true)) {
        if let Some(slot) = fits.get_mut(*place) {
            *slot = fit;
        }
    }

    let mut places: Vec<(u64, Fit, &mut Pod)> =
        (0u64..).zip(saving).zip(fits).map(|((place, pod), fit)| (place, fit, pod)).collect();
    // Stable: among what fits, and among what does not, the saving order stands.
    places.sort_by_key(|(_, fit, _)| fit.is_dropped());
    let mut bytes = 0u64;
    // The highest value of which a pod has not flushed yet: the order is by value first.
    let mut unflushed: Option<i32> = None;
    for (place, fit, pod) in places {
        let dropped = fit.is_dropped();
        let own = pod.to_send();
        if !dropped {
            bytes = bytes.saturating_add(own);
        }
        let outranked = unflushed.is_some_and(|value| dropped || value > pod.facts.priority);
        let mut around = Surroundings {
            rank: if dropped { DROPPED + place } else { place },
            bytes_before_and_own: if dropped { own } else { bytes },
            bytes_per_second: uplink.rate,
            flush: budget::flush(pod.look.state_bytes(), pod.look.flush_rate.or(disk)),
            flush_slots: &mut flush_slots,
            fit,
            outranked,
        };
        pod.advance_keep(&mut around, ctx);
        if pod.departure.as_ref().is_some_and(|departure| departure.keep.is_before_its_save()) {
            unflushed = Some(unflushed.unwrap_or(pod.facts.priority).max(pod.facts.priority));
        }
    }
}

/// The slowest flush that was measured on this node: what is expected of an engine whose own was not.
pub(crate) fn slowest_flush(pods: &Pods) -> Option<u64> {
    pods.values().filter_map(|pod| pod.look.flush_rate).min()
}

/// The bytes that the link has carried were those of the open saves, the first first.
fn progress(saving: &mut [&mut Pod], mut carried: u64) {
    let mut open: Vec<_> = saving
        .iter_mut()
        .filter_map(|pod| pod.departure.as_mut())
        .filter(|departure| departure.keep.step == Step::Save)
        .filter_map(|departure| Some((departure.keep.rank, departure.keep.unsent.as_mut()?)))
        .collect();
    open.sort_by_key(|(rank, _)| *rank);
    for (_, unsent) in open {
        let moved = carried.min(*unsent);
        *unsent -= moved;
        carried -= moved;
    }
}

/// What a flush that began at `began`, if it did, has yet to take of the `expected`: one that takes longer than
/// expected is expected to take as long again, so that one that hangs keeps no time of the link from those behind it.
pub(crate) fn flush_left(expected: Span, began: Option<Moment>, now: Moment) -> Span {
    let Some(began) = began else { return expected };
    let took = now.since(began);
    if took < expected { expected.less(took) } else { took }
}
