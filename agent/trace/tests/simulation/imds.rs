//! What IMDS shows, and what the agent is told of it: each poll tells what has changed since the last one.

use crate::coverage::SEVERAL;
use crate::script::Script;
use crate::world::{Happening, World};
use evacuation::event::Event;
use evacuation::notice::{Notice, NoticeKind, ScheduledEvent};
use std::collections::{BTreeMap, BTreeSet};

/// A notice that is shown: what it is, and when it ends.
#[derive(Clone, Debug)]
struct Shown {
    kind: NoticeKind,
    id: String,
    ends: i64,
    since: i64,
}

/// Where it is shown: each maintenance event has a place of its own.
fn place(kind: NoticeKind, id: &str) -> String {
    match kind {
        NoticeKind::Interruption(_) => "interruption".to_owned(),
        NoticeKind::Maintenance => format!("maintenance {id}"),
        other => other.as_str().to_owned(),
    }
}

/// The service, and what one life of the agent has heard from it.
#[derive(Debug, Default)]
pub struct Imds {
    /// What it shows: one interruption, one recommendation, and any number of maintenance events.
    shown: BTreeMap<String, Shown>,
    /// The ids of which this life was told, by the same places; `None` before its first poll.
    told: Option<BTreeMap<String, String>>,
    /// Rehearsals are asked for once: no life hears of one that another was told of.
    rehearsed: BTreeSet<String>,
    /// Whether it answers, as this life was told last.
    reachable: Option<bool>,
}

impl Imds {
    /// The instance was started again. IMDS may go on showing what has happened.
    pub fn clear(&mut self, lags: bool) {
        if !lags {
            self.shown.clear();
        }
    }

    /// The instance woke from hibernation. IMDS may go on showing what has happened.
    pub fn wakes(&mut self, lags: bool) {
        if !lags {
            self.shown.remove("interruption");
        }
    }

    /// It shows something whose time lies before this one.
    pub fn shows_the_past(&self, now: u64) -> bool {
        self.shown.values().any(|it| it.ends <= i64::try_from(now).unwrap_or(i64::MAX))
    }

    /// A new life has heard nothing.
    pub fn forget(&mut self) {
        (self.told, self.reachable) = (None, None);
    }
}

impl World<'_> {
    /// A change of what it shows, and a poll that sees it.
    pub fn shows(&mut self, script: Script) {
        match script {
            Script::Show { kind, id, ends } => {
                let since = i64::try_from(self.now).unwrap_or(0);
                self.imds.shown.insert(place(kind, &id), Shown { kind, id, ends, since });
            }
            Script::Hide(kind, id) => {
                self.imds.shown.remove(&place(kind, &id));
            }
            // What was told is told again.
            Script::Repeat => {
                if let Some(told) = &mut self.imds.told {
                    told.retain(|place, _| !self.imds.shown.contains_key(place));
                }
            }
            _ => {}
        }
        self.hears_of_changes();
    }

    /// A life that has not asked yet sees all of it when it does.
    pub fn hears_of_changes(&mut self) {
        if self.imds.reachable.is_some() {
            self.poll();
        }
    }

    /// One poll. One that fails is made again; it tells of no notice.
    pub fn poll(&mut self) {
        if !self.is_alive() {
            return;
        }
        if self.strikes("imds-down", "").is_some() {
            self.answers(false);
            let life = self.life;
            return self.later(500, Happening::Poll(life));
        }
        let told = self.imds.told.take().unwrap_or_default();
        let shown = self.imds.shown.clone();
        if shown.len() > 1 && shown.keys().any(|place| place.starts_with("maintenance")) {
            self.coverage.once(SEVERAL, &mut self.seen);
        }
        self.imds.told = Some(shown.iter().map(|(place, it)| (place.clone(), it.id.clone())).collect());
        for (place, id) in &told {
            if !shown.contains_key(place) {
                // What is taken back is said to be over, every second time, where its document can say so.
                let is_over = place.starts_with("maintenance") && self.dice.percent("said-to-be-over", 50);
                self.tell(Event::NoticeWithdrawn { id: id.clone(), is_over });
            }
        }
        for (place, Shown { kind, id, ends, since }) in shown {
            let asked_for = kind != NoticeKind::Drill || self.imds.rehearsed.insert(id.clone());
            if told.get(&place) != Some(&id) && asked_for {
                let now = i64::try_from(self.now).unwrap_or(0);
                // A recommendation has the time at which it was given.
                let left_ms = if kind == NoticeKind::Rebalance { since - now } else { ends - now };
                let seen = self.moment();
                let event = (kind == NoticeKind::Maintenance).then(|| ScheduledEvent {
                    restart_completes: id.len() % 2 == 0,
                    resume_completes: id.len() % 4 == 0,
                    window_left_ms: (id.len() % 3 == 0).then_some(ends + 60_000 - now),
                });
                self.tell(Event::NoticeReceived(Notice { kind, id, seen, left_ms, event }));
            }
        }
        self.answers(true);
    }

    /// Told when it changes.
    fn answers(&mut self, reachable: bool) {
        if self.imds.reachable != Some(reachable) {
            self.imds.reachable = Some(reachable);
            self.deliver(Event::ImdsReachable { reachable });
        }
    }

    fn tell(&mut self, event: Event) {
        let twice = self.strikes("notice-doubled", "").is_some().then(|| event.clone());
        self.deliver(event);
        if let Some(event) = twice {
            self.deliver(event);
        }
    }
}
