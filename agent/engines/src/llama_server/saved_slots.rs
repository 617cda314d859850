//! What the flushes of this life of the server have left in the state volume, slot by slot.
//!
//! A slot that cannot be saved now keeps the file of the flush before; and what the last flush has saved can be put back
//! after a probe.

use super::facts::SlotFacts;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The last save of each slot.
#[derive(Debug, Default)]
pub(super) struct SavedSlots(Mutex<BTreeMap<u64, SavedSlot>>);

/// The last save of one slot.
#[derive(Clone, Debug)]
pub(super) struct SavedSlot {
    pub(super) facts: SlotFacts,
    /// The task that the slot had run last: after another one it holds what was not saved.
    pub(super) id_task: Option<i64>,
    by_last_flush: bool,
}

impl SavedSlots {
    /// A flush begins: what others have saved is the flush before.
    pub(super) fn flush_begins(&self) {
        for saved in self.0.lock().values_mut() {
            saved.by_last_flush = false;
        }
    }

    /// The file of this slot is about to change.
    pub(super) fn forget(&self, slot: u64) {
        self.0.lock().remove(&slot);
    }

    /// The flush that is under way has saved this slot.
    pub(super) fn saved(&self, facts: SlotFacts, id_task: Option<i64>) {
        let slot = facts.id;
        self.0.lock().insert(slot, SavedSlot { facts, id_task, by_last_flush: true });
    }

    /// What the last save of this slot left.
    pub(super) fn earlier(&self, slot: u64) -> Option<SlotFacts> {
        self.0.lock().get(&slot).map(|saved| saved.facts.clone())
    }

    /// What the last flush has saved, the smallest first.
    pub(super) fn by_last_flush(&self) -> Vec<SavedSlot> {
        let mut last: Vec<SavedSlot> =
            self.0.lock().values().filter(|saved| saved.by_last_flush).cloned().collect();
        last.sort_by_key(|saved| saved.facts.bytes);
        last
    }
}
