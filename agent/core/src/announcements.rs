//! The notices that stand: each from the moment it is seen until it is over.
//!
//! Decides what each means now, and which of them rules. It must not know what a notice begins.
//!
//! What rules is, in this order: a hibernation while it is shown; of those that end the instance, the one with the nearest
//! deadline; of those that only may, the one that ends first; a drill where nothing else stands.

use crate::facts::AnnouncedNotice;
use crate::moment::{Moment, Span};
use crate::notice::{ActiveNotice, InstanceAction, Notice, NoticeKind};
use crate::policy::{Policy, RebalancePolicy};
use crate::running::Running;
use std::collections::BTreeMap;

/// An event that began before the instance began to run again, and that this may not have completed, is waited for so long
/// before the node is emptied for it.
const LEFT_OPEN: Span = Span::from_secs(600);

/// So many drills are remembered.
const PLAYED_MAX: usize = 8;

/// The set of them, by id.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    standing: BTreeMap<String, Announcement>,
    /// Drills that were played: each once, however often it is asked for.
    played: Vec<String>,
    /// By what each is judged to have happened.
    pub(crate) running: Running,
}

/// One of them.
#[derive(Clone, Debug)]
struct Announcement {
    notice: Notice,
    /// An evacuation has taken it into account.
    taken: bool,
}

/// What a notice means at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The node is to be empty; this is when its instance goes, or the end of the window that policy gives.
    Hard(Moment),
    /// Soft taint and pre-copies until then.
    Soft(Moment),
    /// Nothing any more, or nothing by policy.
    Nothing,
}

/// What a notice means now, of an instance that runs since this moment.
pub(crate) fn meaning(notice: &Notice, policy: &Policy, since: Moment, now: Moment) -> Meaning {
    match notice.kind {
        NoticeKind::Drill | NoticeKind::Interruption(_) => Meaning::Hard(notice.ends()),
        NoticeKind::Rebalance => {
            // It has no end of its own: it counts for a while from the time at which EC2 gave it.
            let until = notice.after(policy.undo_after);
            match policy.rebalance {
                RebalancePolicy::Off => Meaning::Nothing,
                RebalancePolicy::Precopy | RebalancePolicy::Drain if now >= until => Meaning::Nothing,
                RebalancePolicy::Precopy => Meaning::Soft(until),
                // The margin is one between our end and EC2's, which gives none here.
                RebalancePolicy::Drain => Meaning::Hard(notice.seen + policy.drain_window + policy.margin),
            }
        }
        NoticeKind::Maintenance => {
            let near = near(notice, policy, since);
            match (notice.is_before(since), now < near) {
                // It began before the instance began to run again, and nobody knows whether that was it.
                (true, true) => Meaning::Soft(near),
                (true, false) => Meaning::Hard(near + policy.drain_window + policy.margin),
                (false, true) => Meaning::Soft(notice.ends()),
                (false, false) => Meaning::Hard(notice.ends()),
            }
        }
    }
}

/// When a maintenance event becomes as urgent as an interruption.
pub(crate) fn near(notice: &Notice, policy: &Policy, since: Moment) -> Moment {
    if notice.is_before(since) {
        notice.seen.max(since) + LEFT_OPEN
    } else {
        notice.ends() - policy.drain_window
    }
}

/// The notice of which a mark on the node speaks.
pub(crate) fn found(active_notice: &ActiveNotice, policy: &Policy) -> Notice {
    let ActiveNotice { kind, began, deadline, .. } = active_notice;
    let ms = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    let to_deadline = ms(deadline.as_millis()) - ms(began.as_millis());
    let left_ms = match kind {
        NoticeKind::Rebalance => to_deadline - ms(policy.undo_after.as_millis()),
        NoticeKind::Interruption(_) | NoticeKind::Drill => to_deadline + ms(policy.margin.as_millis()),
        NoticeKind::Maintenance if active_notice.is_hard() => to_deadline + ms(policy.margin.as_millis()),
        NoticeKind::Maintenance => to_deadline,
    };
    Notice { kind: *kind, id: active_notice.notice.clone(), seen: *began, left_ms, event: None }
}

const fn hibernates(notice: &Notice) -> bool {
    matches!(notice.kind, NoticeKind::Interruption(InstanceAction::Hibernate))
}

impl Announcements {
    /// It was announced already, and is not over.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.standing.contains_key(id)
    }

    /// This drill was played.
    pub(crate) fn was_played(&self, id: &str) -> bool {
        self.played.iter().any(|played| played == id)
    }

    /// This drill is over, and is not played again.
    pub(crate) fn finish_drill(&mut self, id: &str) {
        self.standing.remove(id);
        self.played.truncate(PLAYED_MAX - 1);
        self.played.insert(0, id.to_owned());
    }

    /// It is announced. Of one that stands already the first sight counts. IMDS shows one interruption and one
    /// recommendation: another takes its place.
    pub(crate) fn insert(&mut self, notice: Notice) {
        let same_document = |other: &NoticeKind| match notice.kind {
            NoticeKind::Interruption(_) => matches!(other, NoticeKind::Interruption(_)),
            NoticeKind::Rebalance => *other == NoticeKind::Rebalance,
            NoticeKind::Maintenance | NoticeKind::Drill => false,
        };
        self.standing.retain(|id, other| *id == notice.id || !same_document(&other.notice.kind));
        self.standing.entry(notice.id.clone()).or_insert(Announcement { notice, taken: false });
    }

    /// What an earlier life has put on the node was announced to it.
    pub(crate) fn resume(&mut self, active_notice: &ActiveNotice, policy: &Policy) {
        let notice = found(active_notice, policy);
        let taken = active_notice.is_hard();
        self.standing.insert(notice.id.clone(), Announcement { notice, taken });
    }

    /// It is over.
    pub(crate) fn remove(&mut self, id: &str) {
        self.standing.remove(id);
    }

    /// Those that have happened by now. With `emptied`, so has each for which the node was being emptied.
    pub(crate) fn happened(&mut self, emptied: bool, now: Moment) -> Vec<String> {
        let since = self.running.since();
        let is_over = |it: &&Announcement| {
            it.taken && it.notice.kind == NoticeKind::Maintenance && it.notice.is_before(since)
        };
        for it in self.standing.values().filter(|it| emptied && is_over(it)) {
            self.running.was_emptied_for(&it.notice.id);
            self.running.is_shown(&it.notice.id);
        }
        let happened = self.standing.values().filter(|it| self.running.has_happened(&it.notice, now));
        happened.map(|it| it.notice.id.clone()).collect()
    }

    /// An evacuation takes it into account.
    pub(crate) fn take(&mut self, id: &str) {
        if let Some(it) = self.standing.get_mut(id) {
            it.taken = true;
        }
    }

    /// The instance is awake again: no hibernation is shown any more, and what was left alone meanwhile counts again.
    pub(crate) fn wake(&mut self, policy: &Policy, now: Moment) {
        if self.standing.values().any(|it| hibernates(&it.notice)) {
            return;
        }
        self.begin_anew(policy, now);
    }

    /// What is hard has been taken into account by nothing yet.
    pub(crate) fn begin_anew(&mut self, policy: &Policy, now: Moment) {
        let since = self.running.since();
        for it in self.standing.values_mut() {
            it.taken &= !matches!(meaning(&it.notice, policy, since, now), Meaning::Hard(_));
        }
    }

    /// A hard one that no evacuation has taken into account yet: what rules first. While a hibernation is shown, it alone.
    pub(crate) fn untaken(&self, policy: &Policy, now: Moment) -> Option<&Notice> {
        let hard = self.hard(policy, now);
        let asleep = self.standing.values().any(|it| hibernates(&it.notice));
        let untaken = hard.filter(|(it, _)| !it.taken && (!asleep || hibernates(&it.notice)));
        untaken.min_by_key(|(it, ends)| rank(&it.notice, *ends)).map(|(it, _)| &it.notice)
    }

    /// Something stands that ends the instance, or is to be treated so: no drill.
    pub(crate) fn ends_the_node(&self, policy: &Policy, now: Moment) -> bool {
        self.hard(policy, now).any(|(it, _)| it.notice.kind != NoticeKind::Drill)
    }

    /// The soft one that rules where nothing hard does, and until when it counts.
    pub(crate) fn softest(&self, policy: &Policy, now: Moment) -> Option<(&Notice, Moment)> {
        let since = self.running.since();
        let soft = self.standing.values().filter_map(|it| match meaning(&it.notice, policy, since, now) {
            Meaning::Soft(until) if until > now => Some((&it.notice, until)),
            Meaning::Soft(_) | Meaning::Hard(_) | Meaning::Nothing => None,
        });
        soft.min_by_key(|(notice, until)| (*until, &notice.id))
    }

    /// When one of them begins to mean something else by itself.
    pub(crate) fn next_change(&self, policy: &Policy, now: Moment) -> Option<Moment> {
        let since = self.running.since();
        let changes = self.standing.values().map(|it| match it.notice.kind {
            NoticeKind::Maintenance => near(&it.notice, policy, since),
            NoticeKind::Rebalance => it.notice.after(policy.undo_after),
            NoticeKind::Interruption(_) | NoticeKind::Drill => Moment::default(),
        });
        changes.filter(|at| *at > now).min()
    }

    /// All of them, for people: what ends first in front.
    pub(crate) fn listed(&self, now: Moment) -> Vec<AnnouncedNotice> {
        let mut all: Vec<_> = self.standing.values().map(|it| &it.notice).collect();
        all.sort_by_key(|notice| (notice.ends(), &notice.id));
        let listed = |notice: &Notice| AnnouncedNotice {
            kind: notice.kind,
            id: notice.id.clone(),
            since: now.since(notice.seen),
            left: (notice.kind != NoticeKind::Rebalance).then(|| notice.ends().left(now)),
        };
        all.into_iter().map(listed).collect()
    }

    fn hard(&self, policy: &Policy, now: Moment) -> impl Iterator<Item = (&Announcement, Moment)> {
        let since = self.running.since();
        self.standing.values().filter_map(move |it| match meaning(&it.notice, policy, since, now) {
            Meaning::Hard(ends) => Some((it, ends)),
            Meaning::Soft(_) | Meaning::Nothing => None,
        })
    }
}

/// What comes first among those that are hard.
fn rank(notice: &Notice, ends: Moment) -> (bool, bool, Moment, &str) {
    (!hibernates(notice), notice.kind == NoticeKind::Drill, ends, &notice.id)
}
