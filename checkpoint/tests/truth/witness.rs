//! A store that remembers what was written to it, and that can make an object look old.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use checkpoint::{
    claim, retry,
    store::{
        Body, ByteStream, Condition, Listed, Object, ObjectStore, Store, StoreError, Version,
        faulty::{FaultPlan, FaultyStore},
    },
};

use crate::replica::soon;

#[derive(Debug)]
pub struct Witness {
    inner: Store,
    written: Mutex<Vec<String>>,
    /// By key: the version that is old, and by how much.
    old: Mutex<HashMap<String, (Version, Duration)>>,
    /// The same store with faults around it, while there are any.
    trouble: Mutex<Option<Store>>,
}

impl Witness {
    pub fn new(inner: Store) -> Arc<Self> {
        Arc::new(Self { inner, written: Mutex::default(), old: Mutex::default(), trouble: Mutex::default() })
    }

    /// The keys of all puts that were tried since the last call.
    pub fn written(&self) -> Vec<String> {
        std::mem::take(&mut self.written.lock().unwrap())
    }

    /// What goes wrong from now on.
    pub fn trouble(&self, plan: &str) {
        let plan = (!plan.is_empty()).then(|| FaultPlan::parse(plan).unwrap());
        let faulty = plan.map(|plan| Arc::new(FaultyStore::new(self.inner.clone(), plan)) as Store);
        *self.trouble.lock().unwrap() = faulty;
    }

    fn now_in_use(&self) -> Store {
        self.trouble.lock().unwrap().clone().unwrap_or_else(|| self.inner.clone())
    }

    /// Lets time pass for the object at `key` as it is now; what is written there later is new again.
    pub async fn age(&self, key: &str, by: Duration) {
        let version = retry::get(self.inner.as_ref(), key, claim::BYTES_MAX, soon()).await.unwrap().version;
        self.old.lock().unwrap().insert(key.to_owned(), (version, by));
    }
}

#[async_trait::async_trait]
impl ObjectStore for Witness {
    async fn put(&self, key: &str, body: Body, condition: Condition) -> Result<Version, StoreError> {
        self.written.lock().unwrap().push(key.to_owned());
        self.now_in_use().put(key, body, condition).await
    }

    async fn get(&self, key: &str, at_most: u64) -> Result<Object, StoreError> {
        let mut object = self.now_in_use().get(key, at_most).await?;
        if let Some((version, by)) = self.old.lock().unwrap().get(key)
            && object.version == *version
        {
            object.store_now += *by;
        }
        Ok(object)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn now(&self) -> Result<jiff::Timestamp, StoreError> {
        self.inner.now().await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
