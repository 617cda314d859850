//! The notices that EC2 gives of this instance.
//!
//! Decides nothing: words only; what each begins is in `machine/notices.rs`. It must not know pods.

use crate::moment::{Moment, Span};
use serde::{Deserialize, Serialize};

/// `spot/instance-action`'s `action`.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceAction {
    /// The instance and its disks go.
    Terminate,
    /// The instance stops and may come back under another boot id.
    Stop,
    /// The instance freezes at once: there are no two minutes.
    Hibernate,
}

/// The kinds of notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A Spot interruption.
    Interruption(InstanceAction),
    /// A rebalance recommendation: the risk is elevated, nothing is certain.
    Rebalance,
    /// A scheduled maintenance event that ends or interrupts the instance at its `NotBefore`.
    Maintenance,
    /// Somebody rehearses it (`lifeboat drill --node`): an evacuation like any other, of a node that stays.
    Drill,
}

impl NoticeKind {
    /// Every kind.
    pub const ALL: [NoticeKind; 6] = [
        NoticeKind::Interruption(InstanceAction::Terminate),
        NoticeKind::Interruption(InstanceAction::Stop),
        NoticeKind::Interruption(InstanceAction::Hibernate),
        NoticeKind::Rebalance,
        NoticeKind::Maintenance,
        NoticeKind::Drill,
    ];

    /// A metric label and an Event reason's stem.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoticeKind::Interruption(InstanceAction::Terminate) => "terminate",
            NoticeKind::Interruption(InstanceAction::Stop) => "stop",
            NoticeKind::Interruption(InstanceAction::Hibernate) => "hibernate",
            NoticeKind::Rebalance => "rebalance",
            NoticeKind::Maintenance => "maintenance",
            NoticeKind::Drill => "drill",
        }
    }
}

/// One notice as the shell read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What is going to happen.
    pub kind: NoticeKind,
    /// The same for every poll that shows the same notice (a digest of its body).
    pub id: String,
    /// When IMDS gave the answer that shows it.
    pub seen: Moment,
    /// Milliseconds from then to the time in the notice: the notice's `time` minus the `Date`
    /// of the same answer. Negative for a time that has passed; of a rebalance recommendation, which has no
    /// end, it is the time at which it was given.
    pub left_ms: i64,
    /// What else is known of a scheduled event.
    #[serde(default)]
    pub event: Option<ScheduledEvent>,
}

/// What is known of a scheduled event beside its beginning.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instances-status-check_sched.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledEvent {
    /// Any restart of the instance completes it, whoever made it: a reboot of the instance, or a stop or retirement, after
    /// which it runs on other hardware.
    pub restart_completes: bool,
    /// So does a hibernation from which the instance wakes, which is no new boot: a reboot of the instance.
    #[serde(default)]
    pub resume_completes: bool,
    /// Milliseconds from `seen` to its `NotAfter`, if it has one.
    pub window_left_ms: Option<i64>,
}

impl Notice {
    /// The time in it lies before this moment; the boot is at zero.
    pub fn is_before(&self, moment: Moment) -> bool {
        let signed = |at: Moment| i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        signed(self.seen).saturating_add(self.left_ms) <= signed(moment)
    }

    /// Its window has passed at `now`.
    pub fn is_past_window(&self, now: Moment) -> bool {
        let Some(left) = self.event.and_then(|event| event.window_left_ms) else { return false };
        let span = Span::from_millis(left.unsigned_abs());
        now >= if left < 0 { self.seen - span } else { self.seen + span }
    }

    /// The time in the notice, on the node's boot clock.
    pub fn ends(&self) -> Moment {
        self.after(Span::ZERO)
    }

    /// So long after the time in the notice, which may lie before the boot.
    pub fn after(&self, span: Span) -> Moment {
        let left = Span::from_millis(self.left_ms.unsigned_abs());
        let later = self.seen + span;
        if self.left_ms < 0 { later - left } else { later + left }
    }
}

/// What stands on the node object while a notice does: written in the same PATCH as the cordon, so
/// that an agent started after a crash goes on with the original deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveNotice {
    /// The notice's id.
    pub notice: String,
    /// Its kind.
    pub kind: NoticeKind,
    /// The boot in which `deadline` counts. Another boot is another life.
    pub boot: String,
    /// When the notice was first seen.
    pub began: Moment,
    /// The deadline of the evacuation (hard), or the end of the soft taint (rebalance).
    pub deadline: Moment,
    /// Cordoned and evacuating, as opposed to the soft taint of a rebalance or of a maintenance
    /// event that is still far away.
    pub hard: bool,
    /// The node was schedulable before we cordoned it: only then is it uncordoned by us.
    pub was_schedulable: bool,
}

impl ActiveNotice {
    /// See [`ActiveNotice::hard`].
    pub const fn is_hard(&self) -> bool {
        self.hard
    }
}
