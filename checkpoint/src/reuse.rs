//! What a save may build on, so that no commit names what is about to be removed.
//!
//! ```text
//!   list ── tombstones, then packs ──► save ──► last pack acknowledged ──► confirm ──► generation::commit
//!             │                          │                                    │
//!             packs() may be named       a pack whose name is_condemned()     nothing to do while the list is young,
//!             again                      is sent under another one (salt)     else it is made anew
//! ```
//!
//! The order matters. A pack that is there after it bore no tombstone can only be removed by a tombstone that comes
//! later, and that has to stand for [`GRACE_MIN`]. So for [`GOOD_FOR`] after the tombstones were listed whatever was
//! there, and whatever this save sends, stays; a commit within the rest of the grace is seen by whoever looks again.
//!
//! Pack names are content, so an unchanged state that is sent again would bring a condemned name back to life, under the
//! hand of a collector that is just removing it. Hence the [`salt`].

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    hash::{self, ContentHash},
    key::Workload,
    manifest::Manifest,
    retry,
    store::{ObjectStore, StoreError},
    tombstone::{self, Subject},
};

/// No collector removes what has borne its tombstone for less: the longest evacuation, and time for a commit.
pub const GRACE_MIN: Duration = Duration::from_secs(600);
/// For how long a list holds. The commit that relies on it has as long again.
pub const GOOD_FOR: Duration = Duration::from_secs(GRACE_MIN.as_secs() / 2);

/// What is in the store and may be named by a new manifest.
#[derive(Debug)]
pub struct Reusable {
    lifecycle: Option<Duration>,
    packs: HashMap<ContentHash, u64>,
    present: HashSet<ContentHash>,
    condemned: HashSet<Subject>,
    taken: Moment,
}

/// A manifest that must not be committed as it is.
#[derive(Debug, thiserror::Error)]
pub enum NotReusable {
    /// Packs it names are being removed, or are gone.
    #[error("{} packs of this checkpoint are being removed as garbage: save once more, they will be sent anew", .packs.len())]
    Packs {
        /// Which.
        packs: Vec<ContentHash>,
    },
    /// The manifest's own name is being removed: an earlier try of the very same commit was given up long ago.
    #[error("the manifest {0} is being removed as garbage: give it another `created` and commit again")]
    Manifest(ContentHash),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Lists what may be built on. `lifecycle` is the age at which the bucket removes objects by itself: a pack that has
/// reached half of it is not offered, so that its blocks are sent anew in time.
///
/// # Errors
/// Store errors.
pub async fn list(
    store: &dyn ObjectStore,
    workload: &Workload,
    lifecycle: Option<Duration>,
    deadline: Instant,
) -> Result<Reusable, StoreError> {
    let taken = Moment::now();
    // First what is condemned: see the module.
    let clock = async {
        match lifecycle {
            Some(_) => retry::now(store, deadline).await.map(Some),
            None => Ok(None),
        }
    };
    let (now, tombstones) = futures::try_join!(clock, tombstone::list(store, workload, deadline))?;
    let condemned: HashSet<Subject> = tombstones.into_keys().collect();
    let prefix = workload.packs();
    let (mut packs, mut present) = (HashMap::new(), HashSet::new());
    for object in retry::list(store, &prefix, deadline).await? {
        let Some(hash) = object.key.strip_prefix(&prefix).and_then(|name| name.parse().ok()) else {
            continue;
        };
        present.insert(hash);
        let young = now.zip(lifecycle).is_none_or(|(now, lifecycle)| {
            let age: Duration = now.duration_since(object.modified).try_into().unwrap_or_default();
            age < lifecycle / 2
        });
        if young && !condemned.contains(&Subject::Pack(hash)) {
            packs.insert(hash, object.size);
        }
    }
    Ok(Reusable { lifecycle, packs, present, condemned, taken })
}

impl Reusable {
    /// The packs that a new manifest may name, with their sizes in bytes.
    #[must_use]
    pub fn packs(&self) -> &HashMap<ContentHash, u64> {
        &self.packs
    }

    /// Whether a pack that is about to be sent must get another name, see [`salt`].
    #[must_use]
    pub fn is_condemned(&self, pack: ContentHash) -> bool {
        self.condemned.contains(&Subject::Pack(pack))
    }

    /// The packs whose names must not be used, see [`salt`]: for [`crate::save::SaveRequest::condemned`].
    #[must_use]
    pub fn condemned_packs(&self) -> HashSet<ContentHash> {
        let pack = |subject: &Subject| match subject {
            Subject::Pack(hash) => Some(*hash),
            _ => None,
        };
        self.condemned.iter().filter_map(pack).collect()
    }

    /// These packs, with their sizes, were sent since: the next save may build on them.
    pub fn sent(&mut self, packs: &[(ContentHash, u64)]) {
        self.packs.extend(packs.iter().copied());
        self.present.extend(packs.iter().map(|(pack, _)| *pack));
    }

    /// Whether it can still be relied on at the beginning of a save.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.taken.elapsed() < GOOD_FOR / 2
    }

    /// Makes sure that `manifest`, to be stored as `name`, may still be committed. Call it between the last pack and the
    /// commit, and let the commit's deadline be at most [`GOOD_FOR`] ahead. It costs nothing while the list is young.
    ///
    /// After [`NotReusable::Packs`] save once more with this list, which knows them now.
    ///
    /// # Errors
    /// [`NotReusable`].
    pub async fn confirm(
        &mut self,
        store: &dyn ObjectStore,
        manifest: &Manifest,
        name: ContentHash,
        deadline: Instant,
    ) -> Result<(), NotReusable> {
        let elapsed = self.taken.elapsed();
        self.confirm_after(elapsed, store, manifest, name, deadline).await
    }

    pub(crate) async fn confirm_after(
        &mut self,
        elapsed: Duration,
        store: &dyn ObjectStore,
        manifest: &Manifest,
        name: ContentHash,
        deadline: Instant,
    ) -> Result<(), NotReusable> {
        let stale = elapsed >= GOOD_FOR;
        if stale {
            *self = list(store, &manifest.workload, self.lifecycle, deadline).await?;
        }
        let lost = |pack: &ContentHash| self.is_condemned(*pack) || (stale && !self.present.contains(pack));
        let packs: Vec<ContentHash> = manifest.packs().into_iter().filter(lost).collect();
        if !packs.is_empty() {
            return Err(NotReusable::Packs { packs });
        }
        match self.condemned.contains(&Subject::Manifest(name)) {
            true => Err(NotReusable::Manifest(name)),
            false => Ok(()),
        }
    }
}

/// Bytes that nobody reads, to be added at the end of a pack whose name is condemned: with them it has another name.
#[must_use]
pub fn salt() -> String {
    hash::nonce()
}

/// A moment by both clocks: one stands still while the machine sleeps (EC2 hibernates Spot instances), the other may be
/// set back. The longer of both spans counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.steady.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
