//! What a flush of llama-server leaves for the restore.

use crate::EngineError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const SLOTS: &str = "slots";

/// One saved slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SlotFacts {
    pub(super) id: u64,
    pub(super) tokens: u64,
    pub(super) bytes: u64,
    pub(super) file: String,
}

/// The file of a slot, in the root of the state volume: the server takes plain names only.
pub(super) fn file_of(slot: u64) -> String {
    format!("lifeboat-slot-{slot}.bin")
}

/// The facts of these slots, the one that was used longest ago first.
pub(super) fn write(slots: &[SlotFacts]) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("engine".to_owned(), "llama-server".into());
    map.insert(SLOTS.to_owned(), serde_json::to_value(slots).unwrap_or_default());
    map
}

/// Reads them. A name that is not the slot's own is refused: it would be passed on to the server.
pub(super) fn read(map: &Map<String, Value>, at: &str) -> Result<Vec<SlotFacts>, EngineError> {
    let mismatch = |why: &str| EngineError::Mismatch { at: at.to_owned(), why: why.to_owned() };
    let value = map.get(SLOTS).ok_or_else(|| mismatch("the checkpoint was not written by a llama-server"))?;
    let slots: Vec<SlotFacts> =
        Deserialize::deserialize(value).map_err(|_| mismatch("the checkpoint's list of slots is not one"))?;
    if slots.iter().any(|slot| slot.file != file_of(slot.id)) {
        return Err(mismatch("the checkpoint names a file that is no slot's"));
    }
    Ok(slots)
}
