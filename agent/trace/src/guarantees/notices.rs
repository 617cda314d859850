//! The table "Notices" in docs/architecture.md, in code a second time: which notice means which deadline, and what stands.
//!
//! Knows notices and the time only. It must not know pods, nor what was done about a notice.

use super::Wrong;
use evacuation::event::Event;
use evacuation::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use evacuation::policy::{Policy, RebalancePolicy};
use std::collections::BTreeSet;

/// One evacuation as it should be.
#[derive(Clone, Debug)]
pub(super) struct ExpectedEvacuation {
    pub(super) began: u64,
    pub(super) deadline: u64,
    pub(super) hibernates: bool,
    /// The node stays: it ends with its report.
    pub(super) rehearsed: bool,
    pub(super) withdrawn: Option<u64>,
    /// What IMDS showed last.
    latest: String,
}

/// What stands, by the notices so far.
#[derive(Debug)]
pub(super) struct Notices {
    policy: Policy,
    pub(super) evacuation: Option<ExpectedEvacuation>,
    /// The end of the soft taint.
    soft: Option<u64>,
    /// A maintenance event that is still far: its id and time.
    far: Option<(String, u64)>,
    seen: BTreeSet<String>,
    /// Every deadline an evacuation of this boot has had: a mark may still be on its way at a crash.
    deadlines: BTreeSet<u64>,
    nothing_since: Option<u64>,
}

impl Notices {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            evacuation: None,
            soft: None,
            far: None,
            seen: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            nothing_since: Some(0),
        }
    }

    /// An agent starts and finds this on its node. One absolute deadline across its lives; the `first` of a trace
    /// may have found what a life before it had left.
    pub(super) fn resume(&mut self, active_notice: Option<&ActiveNotice>, first: bool) -> Result<(), String> {
        self.evacuation = None;
        (self.soft, self.far) = (None, None);
        self.seen.clear();
        let Some(active_notice) = active_notice else {
            self.nothing_since = Some(u64::MAX);
            return Ok(());
        };
        self.nothing_since = None;
        self.seen.insert(active_notice.notice.clone());
        let deadline = active_notice.deadline.as_millis();
        if !active_notice.hard {
            self.soft = Some(deadline);
            if active_notice.kind == NoticeKind::Maintenance {
                self.far = Some((active_notice.notice.clone(), deadline));
            }
            return Ok(());
        }
        if first {
            self.deadlines.insert(deadline);
        }
        if !self.deadlines.contains(&deadline) {
            return Err(format!(
                "the annotation's deadline is {deadline} ms, not one of {:?}",
                self.deadlines
            ));
        }
        self.evacuation = Some(ExpectedEvacuation {
            began: active_notice.began.as_millis(),
            deadline,
            hibernates: active_notice.kind == NoticeKind::Interruption(InstanceAction::Hibernate),
            rehearsed: active_notice.kind == NoticeKind::Drill,
            withdrawn: None,
            latest: active_notice.notice.clone(),
        });
        Ok(())
    }

    /// Takes an event; true if a new evacuation begins with it.
    pub(super) fn event(&mut self, now: u64, event: &Event, started: bool) -> bool {
        let mut begins = false;
        match event {
            Event::NoticeReceived(notice) if started => begins = self.noticed(now, notice),
            Event::NoticeWithdrawn { id } => self.withdrawn(now, id),
            _ => {}
        }
        self.tick(now) || begins
    }

    /// What time alone brings.
    fn tick(&mut self, now: u64) -> bool {
        let drain = self.policy.drain_window.as_millis();
        if let Some((id, at)) = self.far.clone()
            && self.evacuation.is_none()
            && now + drain >= at
        {
            let (deadline, _) = self.window(now, i64::try_from(at - at.min(now)).unwrap_or(0));
            self.begin(now, deadline, NoticeKind::Maintenance, id);
            return true;
        }
        if let Some(evacuation) = &self.evacuation
            && let Some(withdrawn) = evacuation.withdrawn
            && (evacuation.hibernates
                || evacuation.rehearsed
                || now >= withdrawn + self.policy.undo_after.as_millis())
        {
            self.evacuation = None;
            self.nothing_since = Some(now);
        }
        if self.evacuation.as_ref().is_some_and(|it| it.rehearsed && now >= it.deadline + 5_000) {
            self.evacuation = None;
            self.nothing_since = Some(now);
        }
        if self.soft.is_some_and(|until| now >= until) && self.evacuation.is_none() {
            self.soft = None;
            self.nothing_since = Some(now);
        }
        false
    }

    fn window(&self, now: u64, left: i64) -> (u64, bool) {
        let left = u64::try_from(left).unwrap_or(0).saturating_sub(self.policy.margin.as_millis());
        let least = self.policy.minimum_window.as_millis();
        if left < least / 6 { (now + least, true) } else { (now + left, false) }
    }

    /// A complete report is written: what was rehearsed is over.
    pub(super) fn reported(&mut self, now: u64) {
        if self.evacuation.as_ref().is_some_and(|evacuation| evacuation.rehearsed) {
            self.evacuation = None;
            self.nothing_since = Some(now);
        }
    }

    fn begin(&mut self, now: u64, deadline: u64, kind: NoticeKind, id: String) {
        (self.soft, self.far, self.nothing_since) = (None, None, None);
        self.evacuation = Some(ExpectedEvacuation {
            began: now,
            deadline,
            hibernates: kind == NoticeKind::Interruption(InstanceAction::Hibernate),
            rehearsed: kind == NoticeKind::Drill,
            withdrawn: None,
            latest: id,
        });
        self.deadlines.insert(deadline);
    }

    fn noticed(&mut self, now: u64, notice: &Notice) -> bool {
        let fresh = self.seen.insert(notice.id.clone());
        if notice.kind == NoticeKind::Drill {
            let free = self.evacuation.is_none() && self.soft.is_none() && self.far.is_none();
            if fresh && free {
                self.begin(now, self.window(now, notice.left_ms).0, notice.kind, notice.id.clone());
            } else if fresh {
                self.seen.remove(&notice.id);
            }
            return fresh && free;
        }
        let drain = self.policy.drain_window.as_millis();
        let (hard, deadline) = match notice.kind {
            NoticeKind::Interruption(_) | NoticeKind::Drill => (true, self.window(now, notice.left_ms).0),
            NoticeKind::Rebalance => match self.policy.rebalance {
                RebalancePolicy::Off => return false,
                RebalancePolicy::Precopy => (false, now + self.policy.undo_after.as_millis()),
                RebalancePolicy::Drain if fresh || self.evacuation.is_some() => (true, now + drain),
                RebalancePolicy::Drain => return false,
            },
            NoticeKind::Maintenance => {
                let left = u64::try_from(notice.left_ms).unwrap_or(0);
                if left <= drain { (true, self.window(now, notice.left_ms).0) } else { (false, now + left) }
            }
        };
        let hibernates = notice.kind == NoticeKind::Interruption(InstanceAction::Hibernate);
        let same = |evacuation: &ExpectedEvacuation| !fresh || evacuation.latest == notice.id;
        match &mut self.evacuation {
            Some(_) if !hard => {
                if fresh {
                    self.seen.remove(&notice.id);
                }
                false
            }
            Some(evacuation) => {
                let over = now > evacuation.deadline + 60_000;
                let other = !same(evacuation);
                let wakes = evacuation.hibernates && !hibernates;
                let again = evacuation.withdrawn.is_some() && notice.kind != NoticeKind::Rebalance;
                if other && (over || wakes || again || evacuation.rehearsed) {
                    self.begin(now, deadline, notice.kind, notice.id.clone());
                    return true;
                }
                if notice.kind != NoticeKind::Rebalance {
                    evacuation.withdrawn = None;
                    evacuation.latest.clone_from(&notice.id);
                }
                if !over && deadline + 1000 < evacuation.deadline {
                    evacuation.deadline = deadline;
                    self.deadlines.insert(deadline);
                }
                false
            }
            None if hard => {
                self.begin(now, deadline, notice.kind, notice.id.clone());
                true
            }
            None if fresh => {
                self.soft = Some(deadline);
                self.nothing_since = None;
                if notice.kind == NoticeKind::Maintenance {
                    self.far = Some((notice.id.clone(), deadline));
                }
                false
            }
            None => false,
        }
    }

    fn withdrawn(&mut self, now: u64, id: &str) {
        self.seen.remove(id);
        if let Some(evacuation) = &mut self.evacuation
            && evacuation.latest == id
        {
            evacuation.withdrawn.get_or_insert(now);
        }
        let Some((_, at)) = self.far.take_if(|(far, _)| far == id) else { return };
        // Another notice's mark may stand.
        if self.soft.is_none_or(|until| until == at) {
            (self.soft, self.nothing_since) = (None, Some(now));
        }
    }

    /// This mark is one that the notices ask for.
    pub(super) fn may_mark(&self, active_notice: &ActiveNotice) -> Result<(), Wrong> {
        let deadline = active_notice.deadline.as_millis();
        let wanted = if active_notice.hard {
            self.evacuation.as_ref().map(|evacuation| evacuation.deadline)
        } else {
            self.soft
        };
        if wanted == Some(deadline) {
            Ok(())
        } else {
            Err((
                7,
                format!(
                    "it marks its node with the deadline {deadline} where {wanted:?} is right: {active_notice:?}"
                ),
            ))
        }
    }

    /// Nothing that stands is taken back.
    pub(super) fn may_clear_mark(&self, now: u64) -> Result<(), Wrong> {
        match (&self.evacuation, self.soft) {
            (Some(evacuation), _) => {
                let latest = &evacuation.latest;
                Err((1, format!("it takes its mark back at {now} ms while the notice {latest} stands")))
            }
            (None, Some(until)) => {
                Err((9, format!("it takes its soft mark back at {now} ms, before {until} ms")))
            }
            (None, None) => Ok(()),
        }
    }

    /// For how long nothing has stood.
    pub(super) fn nothing_since(&self, now: u64) -> Option<u64> {
        self.nothing_since.map(|since| now.saturating_sub(since))
    }
}
