//! Where an answer goes.
//!
//! Decides nothing but that: each part takes its own answers.

use super::Machine;
use crate::effect::EffectId;
use crate::event::Outcome;
use crate::open_effects::{Context, Purpose};

impl Machine {
    /// Something of what an open effect fetches has come.
    pub(super) fn bytes_came(&mut self, id: EffectId) {
        let Some(Purpose::Restore(uid)) = self.effects.purpose(id) else { return };
        self.store.bytes_came();
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.restore.bytes_came(self.now);
        }
    }

    pub(super) fn answered(&mut self, id: EffectId, outcome: Outcome) {
        let Some((purpose, asks)) = self.effects.answered(id) else { return };
        self.store.answered(asks, &outcome, self.now);
        let mut ctx = context!(self);
        match purpose {
            Purpose::MarkNode | Purpose::ClearNodeMark => self.mark.answered(&outcome, &mut ctx),
            Purpose::Report => {
                if let Some(evacuation) = &mut self.evacuation {
                    evacuation.reported(&outcome, &mut ctx);
                }
            }
            Purpose::FireAndForget => {}
            Purpose::HoldFile(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.hold_file.answered(&outcome, &mut ctx);
                }
            }
            Purpose::Inspect(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.inspection.answered(&outcome, &mut ctx);
                }
            }
            Purpose::Save(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid)
                    && let Some(departure) = &mut pod.departure
                {
                    pod.precopy.learns(&outcome);
                    let earlier = pod.precopy.committed.as_ref();
                    departure.save.answered(
                        &pod.facts,
                        &mut pod.inspection,
                        departure.times,
                        earlier,
                        outcome,
                        &mut ctx,
                    );
                }
            }
            Purpose::Probe(uid) => {
                if let Some(departure) = self.pods.get_mut(&uid).and_then(|pod| pod.departure.as_mut()) {
                    departure.save.probed(&outcome);
                }
            }
            Purpose::Evict(uid) => {
                if let Some(departure) = self.pods.get_mut(&uid).and_then(|pod| pod.departure.as_mut()) {
                    departure.eviction.answered(outcome, &mut ctx);
                }
            }
            Purpose::PreCopy(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.precopy.answered(outcome, &mut pod.inspection, self.saves.uplink.rate, &mut ctx);
                }
            }
            Purpose::Restore(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restore.answered(&uid, outcome, &mut ctx);
                }
            }
            Purpose::Renew(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restore.renewed(&outcome, &mut ctx);
                }
            }
            Purpose::Prefetch(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restore.prefetched(&outcome, self.now);
                }
            }
            Purpose::ReloadLocal(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.reload.answered(&uid, outcome, &mut ctx);
                }
            }
        }
    }
}
