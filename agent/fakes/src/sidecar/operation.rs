//! Flushes and restores under way: the same checkpoint id is the same operation.

use engines::contract::Operation;
use std::collections::VecDeque;

/// How many ended operations are remembered.
const REMEMBERED: usize = 64;

/// The operations, oldest first.
#[derive(Debug, Default)]
pub(super) struct Operations {
    known: VecDeque<(String, Operation)>,
}

impl Operations {
    /// The operation of this id.
    pub(super) fn get(&self, id: &str) -> Option<&Operation> {
        self.known.iter().find(|(known, _)| known == id).map(|(_, operation)| operation)
    }

    /// Begins the operation unless it is known and did not fail. True if it is to be done.
    pub(super) fn begin(&mut self, id: &str) -> bool {
        match self.get(id) {
            Some(Operation::Running { .. } | Operation::Done(_)) => return false,
            Some(Operation::Failed { .. }) | None => {}
        }
        self.known.retain(|(known, _)| known != id);
        while self.known.len() >= REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back((id.to_owned(), Operation::Running { bytes_done: 0, bytes_total: None }));
        true
    }

    /// Sets how it stands. One that was forgotten (by a restart) stays forgotten.
    pub(super) fn set(&mut self, id: &str, operation: Operation) {
        if let Some((_, known)) = self.known.iter_mut().find(|(known, _)| known == id) {
            *known = operation;
        }
    }
}
