//! What people do without lifeboat, each at its best: a preStop hook on every pod that copies its state, with a grace as
//! long as the notice, and a drain that evicts all at once; and the kubelet's graceful shutdown by priority, with the same
//! hooks. Nobody is told of a deadline, and all that copy at once share the link equally.

use crate::draw::Draw;
use std::collections::BTreeSet;

/// Every pod flushes and copies at once.
pub fn all_at_once(draw: &Draw) -> Vec<bool> {
    let over = shared(draw, &(0..draw.pods.len()).collect::<Vec<_>>(), 0, draw.window);
    over.iter().map(Option::is_some).collect()
}

/// The lowest tier first, each with an equal share of the window, and what those before it did not need.
/// <https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#pod-priority-graceful-node-shutdown>
pub fn kubelet_tiers(draw: &Draw) -> Vec<bool> {
    let tiers: BTreeSet<i32> = draw.pods.iter().map(|pod| pod.priority).collect();
    let mut whole = vec![false; draw.pods.len()];
    let mut now = 0;
    for (position, tier) in (1u64..).zip(&tiers) {
        let of_tier: Vec<usize> =
            (0..).zip(&draw.pods).filter(|(_, pod)| pod.priority == *tier).map(|(index, _)| index).collect();
        let end = draw.window * position / tiers.len() as u64;
        let over = shared(draw, &of_tier, now, end);
        for (index, over) in of_tier.iter().zip(&over) {
            if let Some(slot) = whole.get_mut(*index) {
                *slot = over.is_some();
            }
        }
        now = if over.iter().all(Option::is_some) {
            over.iter().flatten().copied().max().unwrap_or(now)
        } else {
            end
        };
    }
    whole
}

/// Pods that flush from `from` on and share the link equally; when each is over, if that is by `end`.
fn shared(draw: &Draw, pods: &[usize], from: u64, end: u64) -> Vec<Option<u64>> {
    let drawn = |index: &usize| draw.pods.get(*index);
    let mut left: Vec<f64> = pods.iter().filter_map(drawn).map(|pod| draw.needs(pod) as f64).collect();
    let releases: Vec<f64> = pods.iter().filter_map(drawn).map(|pod| (from + pod.flush) as f64).collect();
    let mut over = vec![None; pods.len()];
    let mut now = from as f64;
    while now <= end as f64 {
        let open: Vec<usize> = (0..left.len()).filter(|at| over[*at].is_none()).collect();
        let active: Vec<usize> = open.iter().copied().filter(|at| releases[*at] <= now).collect();
        let next = open.iter().map(|at| releases[*at]).filter(|at| *at > now).fold(f64::INFINITY, f64::min);
        if active.is_empty() {
            if next.is_infinite() {
                break;
            }
            now = next;
            continue;
        }
        let least = active.iter().map(|at| left[*at]).fold(f64::INFINITY, f64::min);
        let span = (least * active.len() as f64).min(next - now);
        now += span;
        let share = span / active.len() as f64;
        for at in active {
            left[at] -= share;
            if left[at] <= 1e-6 && now <= end as f64 {
                over[at] = Some(now as u64);
            }
        }
    }
    over
}
