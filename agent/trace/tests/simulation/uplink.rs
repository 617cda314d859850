//! Saves while they move: over the link, one after another, to their end or to where they are cut.

use crate::link::Transfer;
use crate::restores::failed;
use crate::world::{Happening, World};
use evacuation::effect::{Effect, EffectId};
use evacuation::event::{Done, FailureKind, Outcome};

impl World<'_> {
    pub fn save(&mut self, life: u32, effect: &Effect, pod: &str, rank: u64) {
        if self.strikes("engine-lies", pod).is_some() {
            let outcome = failed(FailureKind::Mismatch, "a file that was reported is not there");
            return self.reply(life, effect, Some(outcome), 20);
        }
        let bytes = self.opened.get(&(life, pod.to_owned())).map_or(0, |(bytes, _)| *bytes);
        let send = self.store.missing(pod, bytes);
        self.saving.insert((life, effect.id.0), (pod.to_owned(), bytes, send));
        self.link.settle(self.now);
        self.link.add(Transfer { life, id: effect.id.0, rank, left: send });
        self.schedule_link();
        let ends = (effect.deadline.as_millis() + self.boot_at).saturating_sub(30);
        if self.dice.percent(&format!("{pod}/partial"), 50) {
            self.at(ends, Happening::SaveEnds(life, Box::new(effect.clone())));
        }
    }

    pub fn schedule_link(&mut self) {
        if let Some(at) = self.link.next(self.now) {
            let version = self.link.version;
            self.at(at, Happening::LinkTick(version));
        }
    }

    pub fn tick_link(&mut self) {
        self.link.settle(self.now);
        for done in self.link.complete() {
            let Some((pod, bytes, sent)) = self.saving.remove(&(done.life, done.id)) else { continue };
            let left_out =
                self.opened.get(&(done.life, pod.clone())).and_then(|(_, left_out)| left_out.clone());
            self.store.saved(done.life, &pod, bytes);
            let newest = self.store.newest(&pod);
            self.finish_save(done.life, done.id, Done::Saved { bytes, sent, left_out, newest });
        }
        self.schedule_link();
    }

    fn finish_save(&mut self, life: u32, id: u64, done: Done) {
        let lost = self.strikes("store-lost", "").is_some();
        let outcome = if lost {
            failed(FailureKind::Transient, "the connection was reset")
        } else {
            Outcome::Done(done)
        };
        self.later(1, Happening::Answer(life, EffectId(id), outcome));
        if self.dice.percent("measures", 20) {
            self.measure();
        }
    }

    /// The bytes of a save that ends before it is complete: four fifths of them in whole files.
    pub fn cut_save(&mut self, life: u32, id: EffectId) -> Option<Done> {
        let (pod, bytes, send) = self.saving.remove(&(life, id.0))?;
        self.link.settle(self.now);
        let left = self.link.remove(life, id.0).unwrap_or(0);
        self.schedule_link();
        let whole = (bytes - left.min(bytes)) / 5 * 4;
        self.store.saved(life, &pod, whole);
        let (sent, newest) = (send - left.min(send), self.store.newest(&pod));
        Some(Done::Saved { bytes: whole, sent, left_out: Some("cut".into()), newest })
    }

    pub fn save_ends(&mut self, life: u32, effect: Effect) {
        if !self.is_open(life, effect.id) {
            return;
        }
        if let Some(done) = self.cut_save(life, effect.id) {
            self.finish_save(life, effect.id.0, done);
        }
    }
}
