//! Uploads in parts. lifeboat makes none; its peers do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A part, or a whole object that came in one.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) size: u64,
    pub(super) bytes: Option<Arc<Vec<u8>>>,
}

/// Parts by upload and number.
#[derive(Debug, Default)]
pub(super) struct Multipart(Mutex<HashMap<String, BTreeMap<u32, Part>>>);

impl Multipart {
    pub(super) fn create(&self, id: &str) {
        self.uploads().insert(id.to_owned(), BTreeMap::new());
    }

    /// `false` if there is no such upload.
    pub(super) fn add(&self, id: &str, number: u32, part: Part) -> bool {
        self.uploads().get_mut(id).map(|parts| parts.insert(number, part)).is_some()
    }

    /// Ends an upload and gives its parts in order.
    pub(super) fn close(&self, id: &str) -> Option<Vec<Part>> {
        self.uploads().remove(id).map(|parts| parts.into_values().collect())
    }

    fn uploads(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<u32, Part>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
