//! Who goes when: two questions, two functions, [`saving`] and [`evicting`].
//!
//! Decides orders only. It must not know the time, the link or what has been done so far.

use crate::moment::Moment;
use crate::pod::PodFacts;
use crate::policy::{EvictOrder, Policy};
use std::cmp::{Ordering, Reverse};

/// Shed at the notice, with nothing saved.
pub fn is_shed(policy: &Policy, pod: &PodFacts) -> bool {
    pod.role.is_shed() || pod.priority < policy.shed_below
}

/// A state that is to be saved, as far as its place in the order goes.
#[derive(Clone, Copy, Debug)]
pub struct Saving<'a> {
    /// Its pod.
    pub pod: &'a PodFacts,
    /// Engines that took such a state did not use it.
    pub doubted: bool,
    /// When it must be in the store.
    pub cutoff: Moment,
    /// Its bytes.
    pub bytes: u64,
}

/// Whose bytes move first: what is not doubted; of that the highest PriorityClass value; within one value pods that have a successor before those that
/// serve to the end; then the role; within one role the earlier cut-off, and of those that are equal the smaller state,
/// which is whole sooner. What cannot be whole at all is another question: [`crate::forecast`].
pub fn saving(a: Saving<'_>, b: Saving<'_>) -> Ordering {
    let key = |it: Saving<'_>| {
        let Saving { pod, doubted, cutoff, bytes } = it;
        (doubted, Reverse(pod.priority), pod.serves_to_the_end(), pod.role, cutoff, bytes)
    };
    key(a).cmp(&key(b)).then_with(|| by_name(a.pod, b.pod))
}

/// Who is evicted first among those that are ready to go: what is shed, then by priority as the
/// policy says, then by role.
pub fn evicting(policy: &Policy, a: &PodFacts, b: &PodFacts) -> Ordering {
    let key = |pod: &PodFacts| {
        let priority = i64::from(pod.priority);
        let tier = match policy.evict_order {
            EvictOrder::HighestFirst => -priority,
            EvictOrder::LowestFirst => priority,
        };
        (!is_shed(policy, pod), tier, pod.role)
    };
    key(a).cmp(&key(b)).then_with(|| by_name(a, b))
}

fn by_name(a: &PodFacts, b: &PodFacts) -> Ordering {
    (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid))
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
            restarts: 0,
        }
    }

    fn names(order: &[&PodFacts]) -> Vec<String> {
        order.iter().map(|pod| pod.name.clone()).collect()
    }

    #[test]
    fn bytes_of_the_highest_priority_move_first_and_within_it_the_earlier_cut_off_and_the_smaller_state() {
        let at = Moment::from_millis;
        let pods = [
            (pod("doubted", 1000, Role::Active, Owner::Replicated, true), at(1), 1),
            (pod("low", 10, Role::Active, Owner::Replicated, true), at(1), 1),
            (pod("high-big", 100, Role::Active, Owner::Replicated, true), at(5), 9),
            (pod("high-small", 100, Role::Active, Owner::Replicated, true), at(5), 2),
            (pod("high-soon", 100, Role::Active, Owner::Named, true), at(4), 50),
            (pod("high-canary", 100, Role::Canary, Owner::Replicated, true), at(1), 1),
        ];
        let mut order = Vec::new();
        for (pod, cutoff, bytes) in &pods {
            order.push(Saving { pod, doubted: pod.name == "doubted", cutoff: *cutoff, bytes: *bytes });
        }
        order.sort_by(|a, b| saving(*a, *b));
        let order: Vec<&PodFacts> = order.into_iter().map(|it| it.pod).collect();
        assert_eq!(names(&order), ["high-soon", "high-small", "high-big", "high-canary", "low", "doubted"]);
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
        let order = |policy: &Policy| {
            let mut order: Vec<&PodFacts> = pods.iter().collect();
            order.sort_by(|a, b| evicting(policy, a, b));
            names(&order)
        };
        let mut policy = Policy::default();
        assert_eq!(order(&policy), ["batch", "negative", "static", "thousand", "ten"]);
        policy.evict_order = EvictOrder::LowestFirst;
        assert_eq!(order(&policy), ["negative", "batch", "ten", "thousand", "static"]);
    }
}
