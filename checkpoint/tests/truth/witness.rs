//! A store that remembers what was written to it, and whose clock can be moved.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use checkpoint::store::{Body, ByteStream, Condition, Listed, Object, ObjectStore, Store, StoreError, Version};

#[derive(Debug)]
pub struct Witness {
    inner: Store,
    written: Mutex<Vec<String>>,
    later_ms: AtomicU64,
}

impl Witness {
    pub fn new(inner: Store) -> Arc<Self> {
        Arc::new(Self { inner, written: Mutex::default(), later_ms: AtomicU64::new(0) })
    }

    /// The keys of all puts that were tried since the last call.
    pub fn written(&self) -> Vec<String> {
        std::mem::take(&mut self.written.lock().unwrap())
    }

    /// The store's clock is later than its files say, from now on.
    pub fn set_later(&self, by: Duration) {
        self.later_ms.store(u64::try_from(by.as_millis()).unwrap(), Relaxed);
    }
}

#[async_trait::async_trait]
impl ObjectStore for Witness {
    async fn put(&self, key: &str, body: Body, condition: Condition) -> Result<Version, StoreError> {
        self.written.lock().unwrap().push(key.to_owned());
        self.inner.put(key, body, condition).await
    }

    async fn get(&self, key: &str, at_most: u64) -> Result<Object, StoreError> {
        let object = self.inner.get(key, at_most).await?;
        let store_now = object.store_now + Duration::from_millis(self.later_ms.load(Relaxed));
        Ok(Object { store_now, ..object })
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
