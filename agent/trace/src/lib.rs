//! What happened to one core, as its journal has it: told to people, judged, and replayed.
//!
//! | module | what |
//! |---|---|
//! | [`journal`], [`lives`] | the form of a journal's lines; the lives in it, read strictly |
//! | [`timeline`] | one life in words, and as a chart |
//! | [`guarantees`] | the judge: rules of its own for what must always hold |
//! | [`replay`] | a life's events, handled by a fresh core: the same effects, byte for byte |
//!
//! Decides nothing about an evacuation, and does no I/O. The simulation and the golden timelines are tests of this crate,
//! since the judge must see them.

pub mod guarantees;
pub mod journal;
pub mod lives;
pub mod replay;
pub mod timeline;

use evacuation::effect::Effect;
use evacuation::event::Event;
use evacuation::moment::Moment;
use serde::{Deserialize, Serialize};

/// One event and its effects. The same policy and the same events give the same steps, which is what a replay compares
/// and what the judge judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When the core handled the event.
    pub at: Moment,
    /// What happened.
    pub event: Event,
    /// What the core asked for in answer.
    pub effects: Vec<Effect>,
}
