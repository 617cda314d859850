//! Where an answer goes.
//!
//! Decides nothing but that: each part takes its own answers.

use super::Machine;
use crate::effect::EffectId;
use crate::event::Outcome;
use crate::ledger::{Context, Purpose};

impl Machine {
    pub(super) fn answered(&mut self, id: EffectId, outcome: Outcome) {
        let Some(purpose) = self.ledger.answered(id) else { return };
        let mut ctx = context!(self);
        match purpose {
            Purpose::Mark | Purpose::Unmark => self.mark.answered(&outcome, &mut ctx),
            Purpose::Report => {
                if let Some(evacuation) = &mut self.evacuation {
                    evacuation.reported(&outcome, &mut ctx);
                }
            }
            Purpose::Fire => {}
            Purpose::Hold(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.holding.answered(&outcome, &mut ctx);
                }
            }
            Purpose::Look(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.look.answered(&outcome, &mut ctx);
                }
            }
            Purpose::Keep(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid)
                    && let Some(departure) = &mut pod.departure
                {
                    let earlier = pod.precopy.committed.as_ref();
                    departure.keep.answered(
                        &pod.facts,
                        &mut pod.look,
                        departure.times,
                        earlier,
                        outcome,
                        &mut ctx,
                    );
                }
            }
            Purpose::Leave(uid) => {
                if let Some(departure) = self.pods.get_mut(&uid).and_then(|pod| pod.departure.as_mut()) {
                    departure.leave.answered(outcome, &mut ctx);
                }
            }
            Purpose::PreCopy(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.precopy.answered(outcome, &mut pod.look, self.saves.uplink.rate, &mut ctx);
                }
            }
            Purpose::Restore(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restoration.answered(&uid, outcome, &mut ctx);
                }
            }
            Purpose::Renew(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restoration.renewed(&outcome, &mut ctx);
                }
            }
            Purpose::Prefetch(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.restoration.prefetched(&outcome, self.now);
                }
            }
            Purpose::Recall(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.recall.answered(&uid, outcome, &mut ctx);
                }
            }
        }
    }
}
