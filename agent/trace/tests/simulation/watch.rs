//! What the agent is shown of its node and pods, and what it measures: late, twice, out of order, from an older cache.

use crate::world::{Happening, World};
use evacuation::event::Event;
use evacuation::pod::{PodFacts, PodUid};
use std::collections::BTreeMap;

/// What has been sent.
#[derive(Debug, Default)]
pub struct Watch {
    /// Nothing overtakes what was sent until then.
    until: u64,
    /// An object's own changes never overtake one another.
    of_object: BTreeMap<String, u64>,
    /// The list of pods was asked for: only what changes from then on is watched.
    lists: bool,
    /// Each pod as it was sent last, and before that.
    sent: BTreeMap<String, (Option<PodFacts>, PodFacts)>,
}

impl Watch {
    /// A new life lists anew.
    pub fn restart(&mut self, now: u64) {
        *self = Self { until: now, ..Self::default() };
    }

    /// The first list is read.
    pub fn lists(&mut self, now: u64) {
        self.lists = true;
        self.until = self.until.max(now);
    }

    /// What was sent comes so much later.
    pub fn stands_still(&mut self, ms: u64) {
        self.until += ms;
        self.of_object.values_mut().for_each(|at| *at += ms);
    }

    /// When all that was sent of these has come.
    pub fn shown_by(&self, objects: &[String]) -> Option<u64> {
        objects.iter().filter_map(|object| self.of_object.get(object)).max().copied()
    }
}

impl World<'_> {
    /// What the watch shows arrives in order, some time after it happened.
    pub fn show(&mut self, object: &str, event: Event, lag: u64) {
        let lags = self.strikes("watch-lags", "").is_some();
        let lag = if lags { lag + self.dice.of("watch").u64(100..3_000) } else { lag };
        let own = self.watch.of_object.get(object).copied().unwrap_or(0);
        let at = if self.strikes("watch-reorders", "").is_some() {
            (self.now + lag + self.dice.of("watch").u64(0..1_500)).max(own)
        } else {
            self.watch.until = self.watch.until.max(self.now + lag).max(own);
            self.watch.until
        };
        self.watch.of_object.insert(object.to_owned(), at);
        let life = self.life;
        if self.strikes("watch-doubles", "").is_some() {
            self.at(at, Happening::Deliver(life, Box::new(event.clone())));
        }
        self.at(at, Happening::Deliver(life, Box::new(event)));
    }

    pub fn show_node(&mut self, lag: u64) {
        if self.arrived.node.is_none() {
            return;
        }
        self.show("node", Event::NodeUpdated(self.cluster.node.clone()), lag);
    }

    pub fn show_pod(&mut self, uid: &str, lag: u64) {
        if !self.watch.lists {
            return;
        }
        let Some(pod) = self.cluster.pods.get(uid) else { return };
        let facts = pod.facts.clone();
        let before = self.watch.sent.remove(uid).map(|(_, before)| before);
        self.watch.sent.insert(uid.to_owned(), (before, facts.clone()));
        self.show(uid, Event::PodUpdated(Box::new(facts)), lag);
    }

    pub fn show_gone(&mut self, uid: &str, lag: u64) {
        if !self.watch.lists {
            return;
        }
        self.show(uid, Event::PodRemoved(PodUid(uid.to_owned())), lag);
    }

    /// A list from a cache that is behind: each pod as it was before its last change, and soon as it is.
    pub fn relist(&mut self) {
        let older: Vec<_> = self
            .watch
            .sent
            .iter()
            .map(|(uid, (before, last))| (uid.clone(), before.as_ref().unwrap_or(last).clone()))
            .collect();
        let catches_up = self.dice.of("watch").u64(50..3_000);
        for (uid, facts) in older {
            self.show(&uid, Event::PodUpdated(Box::new(facts)), 1);
            let now = self.cluster.pods.get(&uid).map(|pod| pod.facts.clone());
            let event = match now {
                Some(facts) => Event::PodUpdated(Box::new(facts)),
                None => Event::PodRemoved(PodUid(uid.clone())),
            };
            let at = self.watch.of_object.get(&uid).copied().unwrap_or(self.now).max(self.now) + catches_up;
            let life = self.life;
            self.watch.of_object.insert(uid, at);
            self.at(at, Happening::Deliver(life, Box::new(event)));
        }
    }

    /// The agent learns what its uplink carries: perhaps not, perhaps late, perhaps something else.
    pub fn measure(&mut self) {
        if self.strikes("link-unmeasured", "").is_some() {
            return;
        }
        let true_rate = self.link.rate() * 1000;
        let bytes_per_second = self.strikes("link-misread", "").map_or(true_rate, |struck| struck.rate);
        let age = self.strikes("link-stale", "").map_or(1, |struck| struck.span);
        let life = self.life;
        let event = Event::LinkMeasured { bytes_per_second };
        self.later(age, Happening::Deliver(life, Box::new(event)));
    }
}
