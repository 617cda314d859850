//! Who goes when: two questions, two functions (design §5).
//!
//! Decides orders only. It must not know the time, the link or what has been done so far.

use crate::pod::PodFacts;
use crate::policy::{EvictOrder, Policy};
use std::cmp::Reverse;

/// Shed at the notice, with nothing saved.
pub fn is_shed(policy: &Policy, pod: &PodFacts) -> bool {
    pod.role.is_shed() || pod.priority < policy.shed_below
}

/// Whose bytes move first: the highest PriorityClass value; within one value the role, then the
/// smaller state (the more value per byte). Only pods whose state is to be saved are in the answer;
/// the position is the pod's rank.
pub fn saving<'a>(policy: &Policy, pods: impl IntoIterator<Item = (&'a PodFacts, u64)>) -> Vec<&'a PodFacts> {
    let mut order: Vec<_> =
        pods.into_iter().filter(|(pod, _)| pod.engine.is_some() && !is_shed(policy, pod)).collect();
    order.sort_by_key(|(pod, bytes)| {
        (Reverse(pod.priority), pod.role, *bytes, &pod.namespace, &pod.name, &pod.uid)
    });
    order.into_iter().map(|(pod, _)| pod).collect()
}

/// Who is evicted first among those that are ready to go: what is shed, then by priority as the
/// policy says, then by role. Pods that stay are not in the answer.
pub fn evicting<'a>(policy: &Policy, pods: impl IntoIterator<Item = &'a PodFacts>) -> Vec<&'a PodFacts> {
    let mut order: Vec<_> = pods.into_iter().filter(|pod| pod.stays().is_none()).collect();
    order.sort_by_key(|pod| {
        let priority = i64::from(pod.priority);
        let tier = match policy.evict_order {
            EvictOrder::HighestFirst => -priority,
            EvictOrder::LowestFirst => priority,
        };
        (!is_shed(policy, pod), tier, pod.role, &pod.namespace, &pod.name, &pod.uid)
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Span;
    use crate::pod::{EngineFacts, EvictWhen, OnDelete, Owner, PodUid, RestoreMode, Role};

    fn pod(name: &str, priority: i32, role: Role, owner: Owner, engine: bool) -> PodFacts {
        PodFacts {
            uid: PodUid(name.into()),
            namespace: "ns".into(),
            name: name.into(),
            priority,
            role,
            owner,
            grace: Span::from_secs(30),
            terminating: None,
            running: true,
            engine: engine.then(|| EngineFacts {
                holds: false,
                evict: EvictWhen::Auto,
                flush_timeout: Span::from_secs(30),
                interval: None,
                on_delete: OnDelete::Save,
                restore: RestoreMode::Gate,
            }),
            restore_decided: true,
        }
    }

    fn names(order: &[&PodFacts]) -> Vec<String> {
        order.iter().map(|pod| pod.name.clone()).collect()
    }

    #[test]
    fn bytes_of_the_highest_priority_move_first_and_the_smaller_state_within_it() {
        let pods = [
            (pod("low", 10, Role::Active, Owner::Replicated, true), 1),
            (pod("high-big", 100, Role::Active, Owner::Replicated, true), 9),
            (pod("high-small", 100, Role::Active, Owner::Replicated, true), 2),
            (pod("high-canary", 100, Role::Canary, Owner::Replicated, true), 1),
            (pod("stateless", 500, Role::Active, Owner::Replicated, false), 0),
            (pod("shadow", 900, Role::Shadow, Owner::Replicated, true), 1),
        ];
        let order = saving(&Policy::default(), pods.iter().map(|(pod, bytes)| (pod, *bytes)));
        assert_eq!(names(&order), ["high-small", "high-big", "high-canary", "low"]);
    }

    #[test]
    fn what_is_shed_goes_first_and_then_the_highest_or_the_lowest_priority() {
        let pods = [
            pod("ten", 10, Role::Active, Owner::Replicated, false),
            pod("thousand", 1000, Role::Active, Owner::Named, true),
            pod("negative", -5, Role::Active, Owner::Replicated, true),
            pod("batch", 50, Role::Batch, Owner::Replicated, false),
            pod("static", 2000, Role::Active, Owner::Static, false),
        ];
        let mut policy = Policy::default();
        assert_eq!(names(&evicting(&policy, &pods)), ["batch", "negative", "thousand", "ten"]);
        policy.evict_order = EvictOrder::LowestFirst;
        assert_eq!(names(&evicting(&policy, &pods)), ["negative", "batch", "ten", "thousand"]);
    }
}
