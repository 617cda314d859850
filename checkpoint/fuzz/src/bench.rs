//! A store in a folder, into which the objects are put behind its back.

use std::{fs, future::Future, sync::Arc, time::Duration};

use checkpoint::{
    key::{LineageId, Workload},
    store::{Store, directory::DirectoryStore},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::Instant};

/// A store, the names in it, and a runtime to ask it in.
pub struct Bench {
    /// Everything is beneath it: the store is in `store/`.
    pub root: TempDir,
    /// The store.
    pub store: Store,
    /// Whose state.
    pub workload: Workload,
    /// Of which replica.
    pub lineage: LineageId,
    runtime: Runtime,
}

impl Default for Bench {
    fn default() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let place = root.path().join("store");
        fs::create_dir(&place).expect("a folder for the store");
        Self {
            store: Arc::new(DirectoryStore::open(place).expect("a store")),
            workload: Workload::new("c", "ns", "w").expect("a workload"),
            lineage: LineageId::new("w-0").expect("a lineage"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
            root,
        }
    }
}

impl Bench {
    /// Puts an object into the store as somebody who may write to the bucket would.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.root.path().join("store/objects").join(key);
        fs::create_dir_all(path.parent().expect("a key has components")).expect("folders");
        fs::write(path, bytes).expect("an object");
    }

    /// Removes every object.
    pub fn clear(&self) {
        let objects = self.root.path().join("store/objects");
        fs::remove_dir_all(&objects).and_then(|()| fs::create_dir(&objects)).expect("an empty store");
    }

    /// Runs to the end.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// Longer than anything here takes: what goes on until then, libFuzzer reports as a hang.
#[must_use]
pub fn never() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
