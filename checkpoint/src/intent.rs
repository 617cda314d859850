//! The announcement that a checkpoint is coming.
//!
//! A source that is about to leave says so before it is evicted. A replacement that sees it fetches what is already
//! acknowledged, keeps its gate closed, and takes the commit when it appears. An intent is advice: nothing is
//! restored because of it, so it is written without conditions and the last word counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    bounded, document,
    generation::ReadError,
    hash::{self, ContentHash},
    key::{GenerationNumber, LineageId, Workload},
    manifest::Source,
    retry,
    store::{Condition, ObjectStore, StoreError, Version},
};

/// The version that this lifeboat writes and knows.
pub const FORMAT: u64 = 1;
/// The largest intent document, in bytes.
pub const BYTES_MAX: u64 = 4 * crate::MIB;
/// The most packs one intent names.
pub const PACKS_MAX: usize = 50_000;
const KIND: &str = "intent";

/// A checkpoint is coming, or is not any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// [`FORMAT`]; the first field of the document.
    pub format: u64,
    /// The lineage it belongs to.
    pub lineage: LineageId,
    /// The pod that is leaving.
    pub source: Source,
    /// Who wrote it, as in the commit that is to follow.
    pub writer: String,
    /// Unlike in any other intent.
    pub nonce: String,
    /// The notice, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_id: Option<String>,
    /// Milliseconds until the source's deadline, when this was written. With the object's age by the store's clock this
    /// says when waiting is pointless; no other clock is needed.
    pub time_left_ms: u64,
    /// Digest of the distilled pod template, as in the manifest.
    pub spec_key: String,
    /// Packs that are acknowledged already and worth fetching.
    #[serde(deserialize_with = "bounded::list::<_, _, PACKS_MAX>")]
    pub packs: Vec<ContentHash>,
    /// How it stands.
    pub state: IntentState,
}

/// How an announced checkpoint stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum IntentState {
    /// It is being saved.
    Coming,
    /// It will not come.
    Abandoned {
        /// Why, for people.
        reason: String,
    },
    /// It is there.
    Committed {
        /// Where.
        number: GenerationNumber,
    },
}

/// An intent as it was found.
#[derive(Debug, Clone)]
pub struct FoundIntent {
    /// The document.
    pub intent: Intent,
    /// How long ago it was written, by the store's clock.
    pub age: Duration,
}

impl FoundIntent {
    /// The time that the source had left when this was read; `None` once its deadline has passed.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        Duration::from_millis(self.intent.time_left_ms).checked_sub(self.age).filter(|left| !left.is_zero())
    }
}

impl Intent {
    /// Writes it, in place of an earlier one. The nonce is made anew.
    ///
    /// # Errors
    /// Store errors; [`ReadError::Document`] if it is too large.
    pub async fn put(
        &mut self,
        store: &dyn ObjectStore,
        workload: &Workload,
        deadline: Instant,
    ) -> Result<Version, ReadError> {
        self.nonce = hash::nonce();
        self.packs.truncate(PACKS_MAX);
        let body = document::encode(KIND, BYTES_MAX, self)?;
        Ok(retry::put(store, &workload.intent(&self.lineage), body, Condition::Always, deadline).await?)
    }

    /// Reads the intent of a lineage; `None` if there never was one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        store: &dyn ObjectStore,
        workload: &Workload,
        lineage: &LineageId,
        deadline: Instant,
    ) -> Result<Option<FoundIntent>, ReadError> {
        let key = workload.intent(lineage);
        let object = match retry::get(store, &key, BYTES_MAX, deadline).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let intent: Self = document::parse(KIND, FORMAT, &object.bytes)?;
        if intent.lineage != *lineage {
            return Err(ReadError::Misplaced { key, says: format!("of lineage {}", intent.lineage) });
        }
        Ok(Some(FoundIntent { intent, age: object.age() }))
    }
}
