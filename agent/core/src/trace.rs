//! What a journal keeps of one life of the core: each event with its moment, and what it was answered with.
//!
//! Decides nothing. The same policy and the same events give the same steps (design §4), which is what a replay
//! compares and what a checker of the guarantees judges.

use crate::effect::Effect;
use crate::event::Event;
use crate::moment::Moment;
use serde::{Deserialize, Serialize};

/// One event and its effects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When the core was told.
    pub at: Moment,
    /// What it was told.
    pub event: Event,
    /// What it asked for in answer.
    pub effects: Vec<Effect>,
}
