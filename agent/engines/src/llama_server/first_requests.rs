//! The proof after the fact: how much of a restored slot its first real request found in the cache, in the server's own
//! words (`n_prompt_tokens_cache` in `GET /slots`; `api.rs` has the fields that are used).
//!
//! It is seen when the agent looks, every 30 seconds: of two requests in between it is the later one's figure.

use super::api::Slot;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Restored slots whose first request has not been seen yet, with the last task that was ours.
#[derive(Debug, Default)]
pub(super) struct FirstRequests(Mutex<BTreeMap<u64, i64>>);

impl FirstRequests {
    /// These slots were restored; what they have run so far was asked by us.
    pub(super) fn await_in(&self, restored: impl Iterator<Item = u64>, slots: &[Slot]) {
        let last = |id| slots.iter().find(|slot| slot.id == id).and_then(|slot| slot.id_task);
        let awaited = restored.map(|id| (id, last(id).unwrap_or(-1))).collect();
        *self.0.lock() = awaited;
    }

    /// Tokens that first requests have found since the last call.
    pub(super) fn answered(&self, slots: &[Slot]) -> u64 {
        let mut awaited = self.0.lock();
        let mut found = 0_u64;
        for slot in slots {
            let ours = awaited.get(&slot.id);
            let is_theirs = ours.is_some_and(|ours| slot.id_task.is_some_and(|task| task > *ours));
            if let (true, false, Some(cached)) = (is_theirs, slot.is_processing, slot.n_prompt_tokens_cache) {
                awaited.remove(&slot.id);
                found = found.saturating_add(cached);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slots(tasks: [(i64, bool, Option<u64>); 2]) -> Vec<Slot> {
        let slot = |(id, (task, busy, cached)): (usize, &(i64, bool, Option<u64>))| {
            let cached = cached.map_or(json!({}), |cached| json!({"n_prompt_tokens_cache": cached}));
            let mut slot = json!({"id": id, "is_processing": busy, "id_task": task});
            if let (Some(slot), Some(cached)) = (slot.as_object_mut(), cached.as_object()) {
                slot.extend(cached.clone());
            }
            serde_json::from_value(slot).unwrap()
        };
        tasks.iter().enumerate().map(slot).collect()
    }

    #[test]
    fn the_first_request_of_each_restored_slot_counts_once_and_ours_never() {
        let first = FirstRequests::default();
        first.await_in([0, 1].into_iter(), &slots([(4, false, Some(900)), (5, false, Some(800))]));
        assert_eq!(first.answered(&slots([(4, false, Some(900)), (5, false, Some(800))])), 0, "ours");
        assert_eq!(first.answered(&slots([(6, true, Some(700)), (5, false, Some(800))])), 0, "still at it");
        assert_eq!(first.answered(&slots([(6, false, Some(700)), (7, false, Some(650))])), 1350);
        assert_eq!(first.answered(&slots([(8, false, Some(3)), (9, false, Some(3))])), 0, "not the first");
    }

    #[test]
    fn a_server_that_was_not_restored_or_does_not_tell_counts_nothing() {
        let first = FirstRequests::default();
        assert_eq!(first.answered(&slots([(6, false, Some(700)), (7, false, None)])), 0);
        first.await_in([1].into_iter(), &[]);
        assert_eq!(first.answered(&slots([(6, false, Some(700)), (7, false, None)])), 0);
    }
}
