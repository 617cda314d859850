//! What IMDS shows, and what the agent is told of it: each poll tells what has changed since the last one.

use crate::script::Script;
use crate::world::{Happening, World};
use evacuation::event::Event;
use evacuation::notice::{Notice, NoticeKind};
use std::collections::BTreeMap;

/// The service, and what one life of the agent has heard from it.
#[derive(Debug, Default)]
pub struct Imds {
    /// Of each kind the notice that it shows: its id, and when it ends.
    shown: BTreeMap<NoticeKind, (String, i64)>,
    /// What this life was told; `None` before its first poll.
    told: Option<BTreeMap<NoticeKind, String>>,
}

impl Imds {
    /// The instance is another one now.
    pub fn clear(&mut self) {
        self.shown.clear();
    }

    /// A new life has heard nothing.
    pub fn forget(&mut self) {
        self.told = None;
    }
}

impl World<'_> {
    /// A change of what it shows, and a poll that sees it.
    pub fn shows(&mut self, script: Script) {
        match script {
            Script::Show { kind, id, ends } => {
                self.imds.shown.insert(kind, (id, ends));
            }
            Script::Hide(kind) => {
                self.imds.shown.remove(&kind);
            }
            // What was told is told again.
            Script::Repeat => {
                if let Some(told) = &mut self.imds.told {
                    told.retain(|kind, _| !self.imds.shown.contains_key(kind));
                }
            }
            _ => {}
        }
        self.poll();
    }

    /// One poll. One that fails is made again; it tells nothing.
    pub fn poll(&mut self) {
        if !self.is_alive() {
            return;
        }
        if self.strikes("imds-down", "").is_some() {
            let life = self.life;
            return self.later(500, Happening::Poll(life));
        }
        let first = self.imds.told.is_none();
        let told = self.imds.told.take().unwrap_or_default();
        let shown = self.imds.shown.clone();
        self.imds.told = Some(shown.iter().map(|(kind, (id, _))| (*kind, id.clone())).collect());
        for (kind, id) in &told {
            if !shown.contains_key(kind) {
                self.tell(Event::NoticeWithdrawn { id: id.clone() });
            }
        }
        for (kind, (id, ends)) in shown {
            if told.get(&kind) != Some(&id) {
                let now = i64::try_from(self.now).unwrap_or(0);
                let left_ms = if kind == NoticeKind::Rebalance { 0 } else { ends - now };
                self.tell(Event::NoticeReceived(Notice { kind, id, left_ms }));
            }
        }
        if first {
            self.misses_what_stood();
        }
    }

    fn tell(&mut self, event: Event) {
        let twice = self.strikes("notice-doubled", "").is_some().then(|| event.clone());
        self.deliver(event);
        if let Some(event) = twice {
            self.deliver(event);
        }
    }

    /// A new life finds that what stood on its node is no longer shown.
    fn misses_what_stood(&mut self) {
        let active_notice = self.cluster.node.active_notice.clone();
        let Some(active_notice) =
            active_notice.filter(|active_notice| active_notice.boot == self.cluster.node.boot)
        else {
            return;
        };
        let shown = match active_notice.kind {
            NoticeKind::Interruption(_) => {
                self.imds.shown.keys().any(|kind| matches!(kind, NoticeKind::Interruption(_)))
            }
            // Nobody shows a rehearsal: one that was cut off by a restart is over.
            NoticeKind::Drill => false,
            kind => self.imds.shown.contains_key(&kind),
        };
        if !shown && self.life > 1 {
            self.deliver(Event::NoticeWithdrawn { id: active_notice.notice });
        }
    }
}
