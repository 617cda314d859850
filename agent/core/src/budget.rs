//! How the time of one departure is cut up.
//!
//! Pure arithmetic on moments. It must not know pods' progress or effects.
//!
//! Every reserve is also bounded by a share of the window, so that a drill of thirty seconds, or a
//! notice that came late, still leaves most of its time to the state.

use crate::moment::{Moment, Span};
use crate::pod::{Owner, PodFacts};
use crate::policy::Policy;

/// The kubelet notices the hold within its 0.2 s of sleep, ends the engine and reports it.
const AFTER_RELEASE: Span = Span::from_millis(1000);

/// What is assumed of a flush that was never measured.
const UNKNOWN_FLUSH: Span = Span::from_millis(1000);

/// The moment at which the pod's save must be done, whatever it has come to: from then on it is
/// committed as it is and evicted or deleted.
///
/// `held`: the pod waits inside its own eviction and ends within a second of its release, so it
/// needs no grace of its own after the save. Otherwise its grace (15 s at most) comes after.
/// A StatefulSet's pod must be gone early enough for its replacement to be created on another node.
pub fn cutoff(policy: &Policy, pod: &PodFacts, began: Moment, deadline: Moment, held: bool) -> Moment {
    let window = deadline.since(began);
    let reserve = commit_reserve(policy, window);
    let after = if held {
        AFTER_RELEASE.min(window.div(10))
    } else {
        pod.grace.min(policy.grace_after_save).min(window.div(4)) + lead(policy, pod, window)
    };
    (deadline - after - reserve).max(began)
}

/// What a commit keeps of a window.
fn commit_reserve(policy: &Policy, window: Span) -> Span {
    policy.commit_reserve.min(window.div(10))
}

/// How long before the deadline the pod itself must be gone: a StatefulSet creates no replacement before.
fn lead(policy: &Policy, pod: &PodFacts, window: Span) -> Span {
    match pod.owner {
        Owner::Named => policy.named_lead.min(window.div(4)),
        Owner::Static | Owner::Finished | Owner::Bare { .. } | Owner::Daemon { .. } | Owner::Replicated => {
            Span::ZERO
        }
    }
}

/// When the pod itself is to be gone.
pub fn gone_by(policy: &Policy, pod: &PodFacts, began: Moment, deadline: Moment) -> Moment {
    deadline - lead(policy, pod, deadline.since(began))
}

/// The cut-off of any pod, of whatever kind and however it leaves: see [`cutoff`].
pub fn end(policy: &Policy, pod: &PodFacts, began: Moment, deadline: Moment, held: bool) -> Moment {
    if pod.serves_to_the_end() {
        // Nothing comes after its save but the commit.
        return deadline - commit_reserve(policy, deadline.since(began));
    }
    if pod.is_late() && pod.terminating.is_none() {
        // It leaves in the last seconds: its cut-off is half of them.
        let late = late(policy, began, deadline);
        return late + deadline.since(late).div(2);
    }
    // What terminates already needs no grace after its save: it has it.
    cutoff(policy, pod, began, deadline, held || pod.terminating.is_some())
}

/// The grace for an eviction or a delete at `now` of a pod that is to be gone by `end`, chosen once: a termination that has begun cannot
/// be shortened (measured with kubelet 1.34.4: a pod evicted with 60 s, then deleted with 2 s, lived 60 s).
/// A held pod gets all that is left, since it ends when it is released; any other gets its own, as far as that fits.
/// Never zero: the API server takes zero as "without the kubelet's word that it has ended".
pub fn grace(pod: &PodFacts, now: Moment, end: Moment, held: bool) -> Span {
    let left = end.left(now);
    let wanted = if held { left } else { pod.grace.min(left) };
    Span::from_secs(wanted.as_secs().max(1))
}

/// How long a flush of `bytes` is expected to take at a measured rate, in bytes per second.
pub fn flush(bytes: u64, rate: Option<u64>) -> Span {
    match rate.filter(|rate| *rate > 0) {
        Some(rate) => Span::from_millis(scaled(bytes, rate)),
        None => UNKNOWN_FLUSH,
    }
}

/// What a flush that began at `began`, if it did, has yet to take of the `expected`: one that takes longer than
/// expected is expected to take as long again, so that one that hangs keeps no time of the link from those behind it.
pub fn flush_left(expected: Span, began: Option<Moment>, now: Moment) -> Span {
    let Some(began) = began else { return expected };
    let took = now.since(began);
    if took < expected { expected.less(took) } else { took }
}

/// How long the link needs for `bytes`, at `rate` bytes per second.
pub fn transfer(bytes: u64, rate: u64) -> Span {
    Span::from_millis(scaled(bytes, rate.max(1)))
}

fn scaled(bytes: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1000 / u128::from(rate)).unwrap_or(u64::MAX)
}

/// The last moment at which the final flush of an evict-first pod may begin: flush, upload of its
/// own bytes and of those before it, and commit still fit before its cut-off.
/// `None` where the link was never measured: then it begins at once.
pub fn last_moment(
    cutoff: Moment,
    bytes_before_and_own: u64,
    bytes_per_second: Option<u64>,
    flush: Span,
) -> Option<Moment> {
    let rate = bytes_per_second.filter(|rate| *rate > 0)?;
    let upload = transfer(bytes_before_and_own, rate);
    // A quarter more than measured: EC2 gives bandwidth above the baseline for a limited time only
    // (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-network-bandwidth.html).
    let upload = upload + upload.div(4);
    Some(cutoff - upload - flush - flush.div(4) - Span::from_secs(1))
}

/// When late DaemonSets leave.
pub fn late(policy: &Policy, began: Moment, deadline: Moment) -> Moment {
    deadline - policy.late_lead.min(deadline.since(began).div(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{PodUid, Role};

    fn pod(owner: Owner, grace: u64) -> PodFacts {
        PodFacts {
            uid: PodUid("u".into()),
            namespace: "ns".into(),
            name: "p".into(),
            priority: 0,
            role: Role::Active,
            owner,
            grace: Span::from_secs(grace),
            terminating: None,
            running: true,
            engine: None,
            restore_decided: true,
            restarts: 0,
        }
    }
    const BEGAN: Moment = Moment::from_millis(1_000_000);

    #[test]
    fn the_cut_off_leaves_the_grace_and_the_commit_and_no_more_than_fifteen_seconds_of_grace() {
        let deadline = BEGAN + Span::from_secs(115);
        let policy = Policy::default();
        let at = |pod: &PodFacts, held| cutoff(&policy, pod, BEGAN, deadline, held).since(BEGAN).as_secs();
        assert_eq!(at(&pod(Owner::Replicated, 5), false), 115 - 5 - 2);
        assert_eq!(at(&pod(Owner::Replicated, 3600), false), 115 - 15 - 2);
        assert_eq!(at(&pod(Owner::Named, 3600), false), 115 - 15 - 15 - 2);
        assert_eq!(at(&pod(Owner::Replicated, 3600), true), 115 - 1 - 2);
    }

    #[test]
    fn a_short_window_keeps_half_of_itself_for_the_state() {
        let deadline = BEGAN + Span::from_secs(25);
        let at = cutoff(&Policy::default(), &pod(Owner::Replicated, 30), BEGAN, deadline, false);
        assert!(at.since(BEGAN) >= Span::from_millis(12_500), "{}", at.since(BEGAN));
    }

    #[test]
    fn the_grace_is_never_zero_and_never_longer_than_what_is_left() {
        let deadline = BEGAN + Span::from_secs(10);
        assert_eq!(grace(&pod(Owner::Replicated, 30), BEGAN, deadline, false), Span::from_secs(10));
        assert_eq!(grace(&pod(Owner::Replicated, 3), BEGAN, deadline, false), Span::from_secs(3));
        assert_eq!(grace(&pod(Owner::Replicated, 3), BEGAN, deadline, true), Span::from_secs(10));
        assert_eq!(grace(&pod(Owner::Replicated, 3), deadline, deadline, true), Span::from_secs(1));
        assert_eq!(grace(&pod(Owner::Replicated, 0), BEGAN, deadline, false), Span::from_secs(1));
    }

    #[test]
    fn the_last_moment_moves_with_bytes_and_link() {
        let cutoff = BEGAN + Span::from_secs(100);
        let second = Span::from_secs(1);
        assert_eq!(last_moment(cutoff, 1, None, second), None);
        assert_eq!(last_moment(cutoff, 1, Some(0), second), None, "a rate of zero is none");
        let fast = last_moment(cutoff, 1 << 30, Some(1 << 30), second).unwrap();
        let slow = last_moment(cutoff, 1 << 30, Some(1 << 26), second).unwrap();
        assert!(slow < fast && fast < cutoff);
        assert_eq!(cutoff.since(fast), Span::from_millis(1250 + 1250 + 1000));
    }

    #[test]
    fn a_flush_takes_what_was_measured_of_the_disk_or_a_second() {
        assert_eq!(flush(80_000_000_000, Some(200_000_000)), Span::from_secs(400));
        assert_eq!(flush(1 << 40, None), Span::from_secs(1));
        assert_eq!(flush(u64::MAX, Some(1)).as_millis(), u64::MAX);
        assert_eq!(flush(1, Some(0)), Span::from_secs(1), "a rate of zero is none");
    }
}
