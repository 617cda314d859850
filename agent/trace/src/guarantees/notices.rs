//! The table "Notices" in docs/architecture.md, in code a second time: which notice means which deadline, and what stands.
//!
//! Knows notices and the time only. It must not know pods, nor what was done about a notice.

use super::Wrong;
use evacuation::event::Event;
use evacuation::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind, ScheduledEvent};
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
    /// IMDS said that it is completed or canceled.
    over: bool,
    /// What IMDS showed last.
    latest: String,
}

/// A notice that stands, in ms.
#[derive(Clone, Debug)]
struct Standing {
    kind: NoticeKind,
    id: String,
    seen: u64,
    /// May lie before the boot.
    ends: i64,
    /// What it announces began before the instance began to run again, and may not have happened: since it was seen, or
    /// since then.
    open: Option<u64>,
    /// What is known of a scheduled event.
    event: Option<ScheduledEvent>,
    /// An evacuation counts with it.
    counted: bool,
}

/// What stands, by the notices so far.
#[derive(Debug)]
pub(super) struct Notices {
    policy: Policy,
    pub(super) evacuation: Option<ExpectedEvacuation>,
    /// The soft notice that rules where nothing is evacuated: its id and its end.
    soft: Option<(String, u64)>,
    standing: Vec<Standing>,
    /// Drills that are over.
    rehearsed: BTreeSet<String>,
    /// The scheduled events for which the node was emptied before the instance began to run again, and those of them that
    /// IMDS shows.
    evacuated: BTreeSet<String>,
    shown: BTreeSet<String>,
    /// The instance woke from hibernation at this moment, in this life; the boot is at zero.
    woke: u64,
    /// It woke before this moment, the start of this life.
    woke_before: Option<u64>,
    /// Notices that nothing may be done about yet, in the order in which they came.
    waiting: Vec<Notice>,
    /// Since when the node is known to this life, and IMDS answers it; whether every pod of the node was seen.
    node_read: Option<u64>,
    imds_since: Option<u64>,
    pub(super) listed: Option<u64>,
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
            standing: Vec::new(),
            rehearsed: BTreeSet::new(),
            evacuated: BTreeSet::new(),
            shown: BTreeSet::new(),
            woke: 0,
            woke_before: None,
            waiting: Vec::new(),
            node_read: None,
            imds_since: None,
            listed: None,
            unconfirmed: None,
            deadlines: BTreeSet::new(),
            nothing_since: Some(0),
        }
    }

    /// An agent starts on an instance that has slept for so long in this boot, and has heard nothing.
    pub(super) fn starts(&mut self, now: u64, slept: u64) {
        self.evacuation = None;
        (self.soft, self.nothing_since) = (None, None);
        self.standing.clear();
        self.rehearsed.clear();
        self.evacuated.clear();
        self.shown.clear();
        (self.woke, self.woke_before) = (0, (slept >= 5_000).then_some(now));
        self.waiting.clear();
        (self.node_read, self.imds_since, self.listed, self.unconfirmed) = (None, None, None, None);
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
        let (began, deadline) = (active_notice.began.as_millis(), active_notice.deadline.as_millis());
        let mut found = Standing {
            kind: active_notice.kind,
            id: active_notice.notice.clone(),
            seen: began,
            // So that its deadline is again what it was.
            ends: signed(deadline)
                + match (active_notice.kind, active_notice.hard) {
                    (NoticeKind::Rebalance, _) => -signed(self.policy.undo_after.as_millis()),
                    (_, true) => signed(self.policy.margin.as_millis()),
                    (_, false) => 0,
                },
            open: None,
            event: None,
            counted: active_notice.hard,
        };
        if found.ends <= signed(self.woke) {
            found.open = Some(began.max(self.woke));
            self.emptied_for(active_notice);
        }
        if self.has_happened(now, &found) {
            // It is taken back like one of another boot.
            self.unconfirmed = None;
            self.nothing_since = Some(now);
            return Ok(());
        }
        self.standing.push(found);
        if !active_notice.hard {
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
            over: false,
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
            Event::NoticeWithdrawn { id, is_over } => {
                if let Some(evacuation) = self.evacuation.as_mut().filter(|it| *is_over && it.latest == *id) {
                    evacuation.over = true;
                }
                self.waiting.retain(|notice| notice.id != *id);
                self.evacuated.remove(id);
                self.standing.retain(|it| it.id != *id);
            }
            Event::PodsListed => self.listed = self.listed.or(Some(now)),
            Event::Resumed { .. } => self.wakes(now),
            Event::ImdsReachable { reachable } => {
                self.imds_since = reachable.then(|| self.imds_since.unwrap_or(now));
            }
            _ => {}
        }
        self.takes_in(now);
        let begins = self.settles(now);
        // What ended just now leaves room for what is softer.
        self.ends(now) && self.settles(now) || begins
    }

    /// The instance was frozen until now. What led to it has happened, and IMDS has answered nothing meanwhile.
    fn wakes(&mut self, now: u64) {
        self.woke = now;
        self.imds_since = self.imds_since.map(|_| now);
        let leaves = |it: &ExpectedEvacuation| !it.hibernates && !it.rehearsed && it.withdrawn.is_none();
        if self.evacuation.as_ref().is_some_and(leaves) {
            let counted = self.standing.iter().filter(|it| it.counted && it.ends <= signed(now));
            let events = counted.filter(|it| it.kind == NoticeKind::Maintenance).map(|it| it.id.clone());
            let events: Vec<_> = events.collect();
            self.shown.extend(events.iter().cloned());
            self.evacuated.extend(events);
        }
        let (over, mut standing): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.standing).into_iter().partition(|it| self.has_happened(now, it));
        for it in standing.iter_mut().filter(|it| it.ends <= signed(now)) {
            it.open = Some(now);
        }
        self.standing = standing;
        if let Some(evacuation) = &mut self.evacuation {
            evacuation.over |= over.iter().any(|it| it.id == evacuation.latest);
        }
        // Nothing is done by a deadline that passed meanwhile: what still stands begins anew.
        let passed = |it: &ExpectedEvacuation| !it.hibernates && it.withdrawn.is_none() && it.deadline <= now;
        if self.evacuation.as_ref().is_some_and(passed) {
            self.over(now);
            self.standing.iter_mut().for_each(|it| it.counted = false);
        }
    }

    /// The last moment at which the instance was seen to wake; zero is its boot.
    pub(super) const fn woke(&self) -> u64 {
        self.woke
    }

    /// What it announces lies before the instance began to run again, and that was it.
    fn has_happened(&self, now: u64, it: &Standing) -> bool {
        let slept = it.ends <= signed(self.woke);
        match it.kind {
            NoticeKind::Interruption(InstanceAction::Hibernate) => {
                slept || self.woke_before.is_some_and(|woke| it.ends <= signed(woke))
            }
            NoticeKind::Interruption(InstanceAction::Stop) => slept,
            NoticeKind::Maintenance => {
                let past = |left: i64| signed(now) >= signed(it.seen) + left;
                let by_event = it.event.is_some_and(|event| {
                    (it.ends <= 0 && event.restart_completes)
                        || (slept && event.resume_completes)
                        || (slept && event.window_left_ms.is_some_and(past))
                });
                let noted = slept || self.woke_before.is_some_and(|woke| it.ends <= signed(woke));
                by_event || (noted && self.evacuated.contains(&it.id))
            }
            _ => false,
        }
    }

    /// A notice counts once the node is known, and every pod of it, or three seconds have gone by since it was seen. One
    /// that was found on the node counts no more once IMDS has answered for eight seconds without it.
    fn takes_in(&mut self, now: u64) {
        let Some(node_read) = self.node_read else { return };
        let first = self.waiting.first().map(|notice| notice.seen.as_millis());
        if first.is_some_and(|seen| self.listed.is_some() || now >= seen + 3_000) {
            for notice in std::mem::take(&mut self.waiting) {
                self.noticed(now, &notice);
            }
        }
        if let Some(since) = self.imds_since
            && now >= since.max(node_read) + 8_000
            && let Some((id, _)) = self.unconfirmed.take()
        {
            self.standing.retain(|it| it.id != id);
            self.evacuated.remove(&id);
        }
        if self.imds_since.is_some_and(|since| now >= since.max(node_read) + 8_000) {
            // What IMDS does not show by now it will not show.
            self.evacuated.retain(|id| self.shown.contains(id));
        }
    }

    /// The node is found with a mark of another boot, or of before the instance woke, or it has noted such events.
    pub(super) fn emptied_for(&mut self, active_notice: &ActiveNotice) {
        let event = active_notice.hard && active_notice.kind == NoticeKind::Maintenance;
        self.evacuated.extend(event.then(|| active_notice.notice.clone()));
    }

    /// What an earlier life has noted on the node.
    pub(super) fn found_noted(&mut self, over: &[String]) {
        self.evacuated.extend(over.iter().cloned());
    }

    /// The node notes exactly the events that are over and that IMDS may show: more would be a trace, less would be done
    /// again by the next life.
    pub(super) fn may_note(&self, over: &[String]) -> Result<(), Wrong> {
        let noted: BTreeSet<String> = over.iter().cloned().collect();
        if noted == self.evacuated || (over.len() == 8 && noted.is_subset(&self.evacuated)) {
            return Ok(());
        }
        Err((9, format!("it notes {noted:?} as over, where {:?} is right", self.evacuated)))
    }

    /// The window in which a notice asks for an evacuation ends at this moment, if it asks for one now.
    fn hard_until(&self, it: &Standing, now: u64) -> Option<u64> {
        let drain = self.policy.drain_window.as_millis();
        let ends = u64::try_from(it.ends).unwrap_or(0);
        match it.kind {
            NoticeKind::Interruption(_) | NoticeKind::Drill => Some(ends),
            NoticeKind::Maintenance if let Some(open) = it.open => {
                (now >= open + 600_000).then(|| open + 600_000 + drain + self.policy.margin.as_millis())
            }
            NoticeKind::Maintenance => (ends <= now + drain).then_some(ends),
            NoticeKind::Rebalance => (self.policy.rebalance == RebalancePolicy::Drain
                && now < self.recommended_until(it))
            .then(|| it.seen + drain + self.policy.margin.as_millis()),
        }
    }

    /// A recommendation counts for a while from the time at which it was given.
    fn recommended_until(&self, it: &Standing) -> u64 {
        u64::try_from(it.ends + signed(self.policy.undo_after.as_millis())).unwrap_or(0)
    }

    /// Until when it asks for a soft mark, if it does.
    fn soft_until(&self, it: &Standing, now: u64) -> Option<u64> {
        let until = match it.kind {
            NoticeKind::Rebalance if self.policy.rebalance == RebalancePolicy::Precopy => {
                self.recommended_until(it)
            }
            NoticeKind::Maintenance if let Some(open) = it.open => open + 600_000,
            NoticeKind::Maintenance if self.hard_until(it, now).is_none() => {
                u64::try_from(it.ends).unwrap_or(0)
            }
            _ => return None,
        };
        (until > now).then_some(until)
    }

    /// What stands now, applied: true if a new evacuation begins.
    fn settles(&mut self, now: u64) -> bool {
        if self.node_read.is_none() {
            return false;
        }
        let frozen = |it: &Standing| it.kind == NoticeKind::Interruption(InstanceAction::Hibernate);
        let asleep = self.standing.iter().any(frozen);
        if self.evacuation.as_ref().is_some_and(|it| it.hibernates) && !asleep {
            self.standing.iter_mut().for_each(|it| it.counted = false);
        }
        let mut begins = false;
        loop {
            let new = self.standing.iter().filter(|it| !it.counted && (!asleep || frozen(it)));
            let hard = new.filter_map(|it| Some((it, self.hard_until(it, now)?)));
            // A drill last, else what ends first.
            let next = hard.min_by_key(|(it, until)| (it.kind == NoticeKind::Drill, *until, it.id.clone()));
            let Some((it, until)) = next.map(|(it, until)| (it.clone(), until)) else { break };
            begins |= self.counts_with(now, &it, until);
            if let Some(counted) = self.standing.iter_mut().find(|other| other.id == it.id) {
                counted.counted = true;
            }
        }
        let ends_it =
            self.standing.iter().any(|it| it.kind != NoticeKind::Drill && self.hard_until(it, now).is_some());
        if let Some(evacuation) = &mut self.evacuation {
            let stands = match evacuation.rehearsed {
                true => self.standing.iter().any(|it| it.id == evacuation.latest),
                false => ends_it,
            };
            if !stands {
                evacuation.withdrawn.get_or_insert(now);
            }
        }
        let soft =
            self.standing.iter().filter_map(|it| Some((self.soft_until(it, now)?, it.id.clone()))).min();
        self.soft = soft.map(|(until, id)| (id, until)).filter(|_| self.evacuation.is_none());
        if self.evacuation.is_none() && self.soft.is_none() {
            self.nothing_since.get_or_insert(now);
        } else {
            self.nothing_since = None;
        }
        begins
    }

    /// A hard notice that is new begins an evacuation, or is one more word of the one that is under way.
    fn counts_with(&mut self, now: u64, it: &Standing, until: u64) -> bool {
        let deadline = self.deadline(now, until);
        let hibernates = it.kind == NoticeKind::Interruption(InstanceAction::Hibernate);
        if let Some(evacuation) = &self.evacuation {
            if it.kind == NoticeKind::Drill {
                return false;
            }
            let over = now > evacuation.deadline + 60_000;
            let again = evacuation.withdrawn.is_some() && it.kind != NoticeKind::Rebalance;
            let other = over || evacuation.hibernates != hibernates || again || evacuation.rehearsed;
            if !other || evacuation.latest == it.id {
                self.repeated(now, it.kind, &it.id, deadline);
                return false;
            }
            self.over(now);
        }
        let drain = self.policy.drain_window.as_millis();
        let urgent = match it.kind {
            NoticeKind::Maintenance if let Some(open) = it.open => open + 600_000,
            NoticeKind::Maintenance => u64::try_from(it.ends - signed(drain)).unwrap_or(0).max(it.seen),
            _ => it.seen,
        };
        self.evacuation = Some(ExpectedEvacuation {
            began: urgent.min(now),
            deadline,
            hibernates,
            rehearsed: it.kind == NoticeKind::Drill,
            withdrawn: None,
            over: false,
            latest: it.id.clone(),
        });
        self.deadlines.insert(deadline);
        true
    }

    /// It stands, and its end counts if it is nearer.
    fn repeated(&mut self, now: u64, kind: NoticeKind, id: &str, deadline: u64) {
        let Some(evacuation) = &mut self.evacuation else { return };
        if kind != NoticeKind::Rebalance {
            (evacuation.withdrawn, evacuation.over) = (None, false);
            id.clone_into(&mut evacuation.latest);
        }
        if now <= evacuation.deadline + 60_000 && deadline + 1_000 < evacuation.deadline {
            evacuation.deadline = deadline;
            self.deadlines.insert(deadline);
        }
    }

    /// An evacuation that came to nothing ends after its time: true if one did.
    fn ends(&mut self, now: u64) -> bool {
        let Some(evacuation) = &self.evacuation else { return false };
        let at_once = evacuation.hibernates || evacuation.rehearsed || evacuation.over;
        let wait = if at_once { 0 } else { self.policy.undo_after.as_millis() };
        let undone = evacuation.withdrawn.is_some_and(|withdrawn| now >= withdrawn + wait);
        let played = evacuation.rehearsed && now >= evacuation.deadline + 5_000;
        if undone || played {
            self.over(now);
        }
        undone || played
    }

    /// The evacuation is over; a drill is over with it.
    fn over(&mut self, now: u64) {
        let Some(evacuation) = self.evacuation.take() else { return };
        if evacuation.rehearsed {
            self.standing.retain(|it| it.kind != NoticeKind::Drill);
            self.rehearsed.insert(evacuation.latest);
        }
        self.nothing_since.get_or_insert(now);
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
            self.over(now);
            self.settles(now);
        }
    }

    /// IMDS shows it, or somebody asks for a drill.
    fn noticed(&mut self, now: u64, notice: &Notice) {
        if self.evacuated.contains(&notice.id) {
            self.shown.insert(notice.id.clone());
        }
        let seen = notice.seen.as_millis();
        let ends = signed(seen) + notice.left_ms;
        let it = Standing {
            kind: notice.kind,
            id: notice.id.clone(),
            seen,
            ends,
            open: (ends <= signed(self.woke)).then_some(seen.max(self.woke)),
            event: notice.event,
            counted: false,
        };
        if self.has_happened(now, &it) {
            return self.standing.retain(|it| it.id != notice.id);
        }
        let known = self.standing.iter().any(|it| it.id == notice.id);
        if notice.kind == NoticeKind::Drill {
            let asks = |it: &Standing| self.hard_until(it, now).or(self.soft_until(it, now)).is_some();
            let free = self.evacuation.is_none() && self.soft.is_none() && !self.standing.iter().any(asks);
            if !known && free && !self.rehearsed.contains(&notice.id) {
                self.standing.push(it);
            }
            return;
        }
        if known {
            if let Some(until) = self.hard_until(&it, now) {
                let deadline = self.deadline(now, until);
                self.repeated(now, it.kind, &it.id, deadline);
            }
            return;
        }
        // These documents show one notice each.
        if notice.kind != NoticeKind::Maintenance {
            self.standing.retain(|other| discriminant(&other.kind) != discriminant(&notice.kind));
        }
        self.standing.push(it);
    }

    /// This mark is one that the notices ask for.
    pub(super) fn may_mark(&self, active_notice: &ActiveNotice) -> Result<(), Wrong> {
        let (began, deadline) = (active_notice.began.as_millis(), active_notice.deadline.as_millis());
        let wanted = match &self.evacuation {
            Some(evacuation) if active_notice.hard => Some((evacuation.began, evacuation.deadline)),
            None if active_notice.hard => None,
            // The beginning of a soft mark means nothing.
            Some(_) | None => self.soft.as_ref().map(|(_, until)| (began, *until)),
        };
        if wanted == Some((began, deadline)) {
            return Ok(());
        }
        let what = format!("it marks its node where {wanted:?} ms is right: {active_notice:?}");
        Err((7, what))
    }

    /// Nothing that stands is taken back; `cordoned`: by us, which a soft mark is not to leave behind.
    pub(super) fn may_clear_mark(&self, now: u64, cordoned: bool) -> Result<(), Wrong> {
        match (&self.evacuation, &self.soft) {
            (Some(evacuation), _) => {
                let latest = &evacuation.latest;
                Err((1, format!("it takes its mark back at {now} ms while the notice {latest} stands")))
            }
            (None, Some((_, until))) if !cordoned => {
                Err((9, format!("it takes its soft mark back at {now} ms, before {until} ms")))
            }
            (None, _) => Ok(()),
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

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
