//! What happened and what was decided, line by line, on the node's own disk.
//!
//! One JSON object a line. A life of the agent begins with what makes it replayable, then come all its events, each with
//! the effects it led to:
//!
//! ```text
//! {"at": <boot clock ms>, "life": {"format": 2, "agent": "0.1.0", "policy": {…}}}
//! {"at": …, "event": …}
//! {"at": …, "effect": …}
//! ```
//! Each line is handed to the kernel before the effects it leads to begin, so that a killed agent has told what it was
//! doing. It is not synced to the disk: it survives the agent, and the report survives the node.
//!
//! A journal that grows too long is set aside (`journal.jsonl.old`, in place of the one before) and goes on in the middle of
//! a life: both files together are read as one. Of a life that is longer than both, the beginning is gone, and [`lives`] says so.

use evacuation::effect::Effect;
use evacuation::event::Event;
use evacuation::moment::Moment;
use evacuation::policy::Policy;
use serde::{Deserialize, Serialize};

/// The file in the state folder.
pub const NAME: &str = "journal.jsonl";

/// Where it is set aside.
pub const OLD_NAME: &str = "journal.jsonl.old";

/// The format that this version writes.
pub const FORMAT: u32 = 2;

/// The version of lifeboat that this is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// When, on the boot clock.
    pub at: Moment,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a line tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An agent began to live.
    Life(Box<Head>),
    /// The core was told this.
    Event(Event),
    /// The core asked for this.
    Effect(Effect),
}

/// What the events of one life mean: the first line of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The format of the lines up to the next life.
    pub format: u32,
    /// The version of lifeboat that wrote them.
    pub agent: String,
    /// The policy of its core.
    pub policy: Policy,
}

impl Head {
    /// That of a life of this version under this policy.
    pub fn new(policy: &Policy) -> Self {
        Self { format: FORMAT, agent: VERSION.to_owned(), policy: policy.clone() }
    }
}
