//! The table "Notices" in docs/architecture.md, in code a second time: which notice means which deadline, and what stands.
//!
//! Knows notices and the time only. It must not know pods, nor what was done about a notice.

use super::Wrong;
use evacuation::event::Event;
use evacuation::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use evacuation::policy::{Policy, RebalancePolicy};
use std::collections::BTreeSet;
use std::mem::discriminant;

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
    /// A maintenance event that is still far: its id, when it was seen, and its time.
    far: Option<(String, u64, u64)>,
    seen: BTreeSet<String>,
    /// Notices that nothing may be done about yet, in the order in which they came.
    waiting: Vec<Notice>,
    /// Since when the node is known to this life, and IMDS answers it; whether every pod of the node was seen.
    node_read: Option<u64>,
    imds_since: Option<u64>,
    pub(super) listed: bool,
    /// The notice found on the node that IMDS has not shown yet.
    unconfirmed: Option<(String, NoticeKind)>,
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
            waiting: Vec::new(),
            node_read: None,
            imds_since: None,
            listed: false,
            unconfirmed: None,
            deadlines: BTreeSet::new(),
            nothing_since: Some(0),
        }
    }

    /// An agent starts, and has heard nothing.
    pub(super) fn starts(&mut self) {
        self.evacuation = None;
        (self.soft, self.far, self.nothing_since) = (None, None, None);
        self.seen.clear();
        self.waiting.clear();
        (self.node_read, self.imds_since, self.listed, self.unconfirmed) = (None, None, false, None);
    }

    /// An agent finds this on its node. One absolute deadline across its lives; the `first` of a trace
    /// may have found what a life before it had left.
    pub(super) fn resume(
        &mut self,
        now: u64,
        active_notice: Option<&ActiveNotice>,
        first: bool,
    ) -> Result<(), String> {
        self.node_read = Some(now);
        self.unconfirmed = active_notice
            .filter(|standing| {
                !self.waiting.iter().any(|notice| shows(notice, &standing.notice, standing.kind))
            })
            .map(|standing| (standing.notice.clone(), standing.kind));
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
                self.far = Some((active_notice.notice.clone(), active_notice.began.as_millis(), deadline));
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
    pub(super) fn event(&mut self, now: u64, event: &Event) -> bool {
        match event {
            Event::NoticeReceived(notice) => {
                self.unconfirmed.take_if(|(id, kind)| shows(notice, id, *kind));
                self.waiting.push(notice.clone());
            }
            Event::NoticeWithdrawn { id } => {
                self.waiting.retain(|notice| notice.id != *id);
                self.withdrawn(now, id);
            }
            Event::PodsListed => self.listed = true,
            Event::ImdsReachable { reachable } => {
                self.imds_since = reachable.then(|| self.imds_since.unwrap_or(now));
            }
            _ => {}
        }
        let begins = self.takes_in(now);
        self.tick(now) || begins
    }

    /// A notice counts once the node is known, and every pod of it, or three seconds have gone by since it was seen. One
    /// that was found on the node counts no more once IMDS has answered for eight seconds without it.
    fn takes_in(&mut self, now: u64) -> bool {
        let Some(node_read) = self.node_read else { return false };
        let mut begins = false;
        let first = self.waiting.first().map(|notice| notice.seen.as_millis());
        if first.is_some_and(|seen| self.listed || now >= seen + 3_000) {
            for notice in std::mem::take(&mut self.waiting) {
                begins |= self.noticed(now, &notice);
            }
        }
        if let Some(since) = self.imds_since
            && now >= since.max(node_read) + 8_000
            && let Some((id, _)) = self.unconfirmed.take()
        {
            self.withdrawn(now, &id);
        }
        begins
    }

    /// What time alone brings.
    fn tick(&mut self, now: u64) -> bool {
        let drain = self.policy.drain_window.as_millis();
        if let Some((id, seen, at)) = self.far.clone()
            && self.evacuation.is_none()
            && now + drain >= at
        {
            let deadline = self.deadline(now, at);
            let began = at.saturating_sub(drain).max(seen).min(now);
            self.begin(began, deadline, NoticeKind::Maintenance, id);
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

    /// The deadline of an instance that is gone at `ends`.
    fn deadline(&self, now: u64, ends: u64) -> u64 {
        self.window(now, ends.saturating_sub(self.policy.margin.as_millis()))
    }

    fn window(&self, now: u64, by: u64) -> u64 {
        let least = self.policy.minimum_window.as_millis();
        if by.saturating_sub(now) < least / 6 { now + least } else { by }
    }

    /// A complete report is written: what was rehearsed is over.
    pub(super) fn reported(&mut self, now: u64) {
        if self.evacuation.as_ref().is_some_and(|evacuation| evacuation.rehearsed) {
            self.evacuation = None;
            self.nothing_since = Some(now);
        }
    }

    fn begin(&mut self, began: u64, deadline: u64, kind: NoticeKind, id: String) {
        (self.soft, self.far, self.nothing_since) = (None, None, None);
        self.evacuation = Some(ExpectedEvacuation {
            began,
            deadline,
            hibernates: kind == NoticeKind::Interruption(InstanceAction::Hibernate),
            rehearsed: kind == NoticeKind::Drill,
            withdrawn: None,
            latest: id,
        });
        self.deadlines.insert(deadline);
    }

    /// What the notice leaves counts from the moment at which it was seen.
    fn noticed(&mut self, now: u64, notice: &Notice) -> bool {
        let fresh = self.seen.insert(notice.id.clone());
        let (seen, ends) = (notice.seen.as_millis(), notice.ends().as_millis());
        let began = seen.min(now);
        if notice.kind == NoticeKind::Drill {
            let free = self.evacuation.is_none() && self.soft.is_none() && self.far.is_none();
            if fresh && free {
                self.begin(began, self.deadline(now, ends), notice.kind, notice.id.clone());
            } else if fresh {
                self.seen.remove(&notice.id);
            }
            return fresh && free;
        }
        let drain = self.policy.drain_window.as_millis();
        let (hard, deadline) = match notice.kind {
            NoticeKind::Interruption(_) | NoticeKind::Drill => (true, self.deadline(now, ends)),
            NoticeKind::Rebalance => match self.policy.rebalance {
                RebalancePolicy::Off => return false,
                RebalancePolicy::Precopy => (false, seen + self.policy.undo_after.as_millis()),
                RebalancePolicy::Drain if fresh || self.evacuation.is_some() => {
                    (true, self.window(now, seen + drain))
                }
                RebalancePolicy::Drain => return false,
            },
            NoticeKind::Maintenance if ends <= now + drain => (true, self.deadline(now, ends)),
            NoticeKind::Maintenance => (false, ends),
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
                    self.begin(began, deadline, notice.kind, notice.id.clone());
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
                self.begin(began, deadline, notice.kind, notice.id.clone());
                true
            }
            None if fresh && deadline > now => {
                self.soft = Some(deadline);
                self.nothing_since = None;
                if notice.kind == NoticeKind::Maintenance {
                    self.far = Some((notice.id.clone(), seen, deadline));
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
        let Some((_, _, at)) = self.far.take_if(|(far, ..)| far == id) else { return };
        // Another notice's mark may stand.
        if self.soft.is_none_or(|until| until == at) {
            (self.soft, self.nothing_since) = (None, Some(now));
        }
    }

    /// This mark is one that the notices ask for.
    pub(super) fn may_mark(&self, active_notice: &ActiveNotice) -> Result<(), Wrong> {
        let (began, deadline) = (active_notice.began.as_millis(), active_notice.deadline.as_millis());
        let wanted = match &self.evacuation {
            Some(evacuation) if active_notice.hard => Some((evacuation.began, evacuation.deadline)),
            None if active_notice.hard => None,
            // The beginning of a soft mark means nothing.
            Some(_) | None => self.soft.map(|until| (began, until)),
        };
        if wanted == Some((began, deadline)) {
            return Ok(());
        }
        let what = format!("it marks its node where {wanted:?} ms is right: {active_notice:?}");
        Err((7, what))
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

/// IMDS shows this very notice, or another of its kind, which took its place.
fn shows(notice: &Notice, id: &str, kind: NoticeKind) -> bool {
    notice.id == id || discriminant(&notice.kind) == discriminant(&kind)
}
