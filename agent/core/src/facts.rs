//! What a plan is made from: one node, its pods, and what was measured.
//!
//! Decides nothing. A running agent tells its own ([`crate::Machine::facts`]); a person may write them down, to see what
//! would be. Times are milliseconds, sizes bytes, rates bytes per second.

use crate::moment::Span;
use crate::notice::NoticeKind;
use crate::pod::PodFacts;
use crate::policy::Policy;
use crate::report::StateOutcome;
use serde::{Deserialize, Serialize};

/// What EC2 gives to a Spot instance, less the margin that the policy keeps.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
const TWO_MINUTES: Span = Span::from_secs(120);

/// One node and what is on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Version of this document: 1.
    #[serde(default = "one")]
    pub format: u32,
    /// The node's name.
    pub node: String,
    /// The notice that stands, if one does.
    #[serde(default)]
    pub notice: Option<NoticeKind>,
    /// How long ago it was first seen.
    #[serde(default)]
    pub since: Span,
    /// Time left until the deadline, of the notice that stands or of one that came now; `None`: two minutes less the
    /// margin.
    #[serde(default)]
    pub left: Option<Span>,
    /// The uplink, bytes per second, if it was measured.
    #[serde(default)]
    pub link: Option<u64>,
    /// What the agent is told to do.
    #[serde(default)]
    pub policy: Policy,
    /// The pods.
    pub pods: Vec<PodState>,
}

const fn one() -> u32 {
    1
}

impl Facts {
    /// Time left until the deadline.
    pub fn window(&self) -> Span {
        self.left.unwrap_or(TWO_MINUTES.less(self.policy.margin))
    }
}

/// One pod and its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodState {
    /// The pod.
    pub pod: PodFacts,
    /// Bytes of state in its engine; `None` where nobody has looked.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Bytes that a save has yet to send; all of them where it is not said.
    #[serde(default)]
    pub send: Option<u64>,
    /// How long its flush will take; a second where it was never measured.
    #[serde(default)]
    pub flush: Option<Span>,
    /// A generation of before is in the store: so many bytes of state.
    #[serde(default)]
    pub copied: Option<u64>,
    /// What has become of its state already, in the evacuation that is under way.
    #[serde(default)]
    pub outcome: Option<StateOutcome>,
}
