//! Which workloads have anything in the store, also those of which only remains are left.

use std::collections::BTreeSet;

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::{
    key::Workload,
    retry,
    store::{ObjectStore, StoreError},
};

/// Listings at the same time.
const LISTINGS: usize = 8;

/// Every workload of `cluster`, or of one namespace of it, that has any object: one LIST per shard.
///
/// # Errors
/// Store errors.
pub async fn find(
    store: &dyn ObjectStore,
    cluster: &str,
    namespace: Option<&str>,
    deadline: Instant,
) -> Result<BTreeSet<Workload>, StoreError> {
    // A shard is the hash of the workload's name, so which ones a namespace has is not known before.
    // Boxed: the compiler cannot see that a stream of futures that borrow may go to another thread.
    let shards: Vec<_> =
        (0..=u8::MAX).map(|shard| in_shard(store, cluster, shard, namespace, deadline).boxed()).collect();
    let all = stream::iter(shards).buffer_unordered(LISTINGS);
    all.try_fold(BTreeSet::new(), |mut all, some| async {
        all.extend(some);
        Ok(all)
    })
    .await
}

async fn in_shard(
    store: &dyn ObjectStore,
    cluster: &str,
    shard: u8,
    namespace: Option<&str>,
    deadline: Instant,
) -> Result<BTreeSet<Workload>, StoreError> {
    let shard = format!("v1/{cluster}/{shard:02x}/");
    let prefix = namespace.map_or_else(|| shard.clone(), |namespace| format!("{shard}{namespace}/"));
    let listed = retry::list(store, &prefix, deadline).await?;
    let workload = |key: &str| {
        let mut parts = key.strip_prefix(&shard)?.split('/');
        let workload = Workload::new(cluster, parts.next()?, parts.next()?).ok()?;
        // What lies where no workload of this name would is nobody's.
        key.starts_with(&workload.prefix()).then_some(workload)
    };
    Ok(listed.iter().filter_map(|object| workload(&object.key)).collect())
}
