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
    /// Every notice that stands, what ends first in front.
    #[serde(default)]
    pub announcements: Vec<AnnouncedNotice>,
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

/// One notice that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnouncedNotice {
    /// Its kind.
    pub kind: NoticeKind,
    /// Its id.
    pub id: String,
    /// How long ago it was first seen.
    #[serde(default)]
    pub since: Span,
    /// Time left until the time in it; of a recommendation, which has none, nothing.
    #[serde(default)]
    pub left: Option<Span>,
}

/// What is announced for a node, in the order in which it ends, for people: `maintenance in 14 d, rebalance 3 min ago`.
pub fn announced(facts: &Facts) -> String {
    let one = |notice: &AnnouncedNotice| match notice.left {
        Some(left) => format!("{} in {}", notice.kind.as_str(), roughly(left)),
        None => format!("{} {} ago", notice.kind.as_str(), roughly(notice.since)),
    };
    let all: Vec<_> = facts.announcements.iter().map(one).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// In the largest unit of which there are two at least.
fn roughly(span: Span) -> String {
    let seconds = span.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let fits = units.into_iter().find(|(_, unit)| seconds >= 2 * unit);
    fits.map_or(format!("{seconds} s"), |(name, unit)| format!("{} {name}", seconds / unit))
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
    /// Why engines that take its state will probably not use it, if they did not before.
    #[serde(default)]
    pub doubt: Option<String>,
    /// What has become of its state already, in the evacuation that is under way.
    #[serde(default)]
    pub outcome: Option<StateOutcome>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_told_in_units_that_people_read() {
        let units = [(1_209_600, "14 d"), (86_400, "24 h"), (7_200, "2 h"), (125, "2 min"), (119, "119 s")];
        for (seconds, told) in units {
            assert_eq!(roughly(Span::from_secs(seconds)), told);
        }
        let text = r#"{"node": "n", "pods": [], "announcements": [
            {"kind": "maintenance", "id": "m", "left": 1209600000}, {"kind": "rebalance", "id": "r", "since": 180000}]}"#;
        let facts: Facts = serde_json::from_str(text).unwrap();
        assert_eq!(announced(&facts), "maintenance in 14 d, rebalance 3 min ago");
        let quiet: Facts = serde_json::from_str(r#"{"node": "n", "pods": []}"#).unwrap();
        assert_eq!(announced(&quiet), "nothing");
    }
}
