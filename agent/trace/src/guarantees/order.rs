//! Who goes before whom, by facts alone: evictions as the policy says, bytes by PriorityClass value (guarantees 3
//! and 10).
//!
//! Compares only what is certain: pods that were ready, slots that were free. Ties are nobody's business.

use super::Checker;
use super::notices::ExpectedEvacuation;
use super::pod::JudgedPod;
use evacuation::effect::{Action, FlushKind, PodAction};
use evacuation::pod::PodUid;
use evacuation::policy::EvictOrder;
use std::cmp::Reverse;

impl Checker {
    /// Shed first, then the tiers, then the role.
    fn leaving_key(&self, pod: &JudgedPod) -> (bool, i64, evacuation::pod::Role) {
        let priority = i64::from(pod.facts.priority);
        let tier = match self.policy.evict_order {
            EvictOrder::HighestFirst => -priority,
            EvictOrder::LowestFirst => priority,
        };
        (!pod.is_shed(&self.policy), tier, pod.facts.role)
    }

    /// A pod that goes before this one, is ready to go, and was not asked: `then` overtakes it.
    pub(super) fn overtaken(&self, then: &PodUid, evacuation: &ExpectedEvacuation) -> Option<String> {
        if evacuation.hibernates || evacuation.withdrawn.is_some() {
            return None;
        }
        let key = self.leaving_key(self.pods.get(then)?);
        let first = self
            .pods
            .iter()
            .find(|(uid, pod)| *uid != then && self.leaving_key(pod) < key && self.is_ready(pod, evacuation));
        first.map(|(_, pod)| pod.name())
    }

    /// Open saves of which every byte goes before those of this pod: of a higher PriorityClass value, or of the same one
    /// and either with a successor, where this one has none, or of a role that counts more. One that may not fit before its cut-off may stand behind.
    pub(super) fn bytes_before(&self, then: &JudgedPod, evacuation: &ExpectedEvacuation) -> u64 {
        let tier =
            |pod: &JudgedPod| (pod.doubted, Reverse(pod.facts.priority), pod.runs_on(), pod.facts.role);
        let open = self.open.values().filter_map(|open| match &open.action {
            Action::Pod { uid: pod, action: PodAction::Save { kind: FlushKind::Final, .. } } => {
                self.pods.get(pod)
            }
            _ => None,
        });
        let before = open
            .filter(|pod| tier(pod) < tier(then) && pod.is_unsaved() && self.certainly_fits(pod, evacuation));
        before.count() as u64
    }

    /// Nothing keeps the pod from being evicted now, for certain.
    fn is_ready(&self, pod: &JudgedPod, evacuation: &ExpectedEvacuation) -> bool {
        let stays = pod.gone || pod.stayed || pod.facts.terminating.is_some();
        if stays || pod.ever_asked {
            return false;
        }
        let deadline = evacuation.deadline;
        let lead = self.policy.late_lead.as_millis().min(deadline.saturating_sub(evacuation.began) / 4);
        if pod.facts.is_late() && self.now + lead < deadline {
            return false;
        }
        let stateless = pod.facts.engine.is_none() || pod.is_shed(&self.policy);
        let held = pod.can_be_held()
            && pod.intent_written
            && pod.restored
            && !pod.hold_failed
            && pod.held_until >= deadline;
        stateless || (pod.announced && (pod.committed || pod.given_up || held))
    }
}
