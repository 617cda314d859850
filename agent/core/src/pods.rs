//! The pods of the node: what the core keeps of each, and its departure, a save and an eviction side by side.
//!
//! Decides when the one makes the other ready. It must not know the order among pods.

use crate::departure::{Cause, Departure};
use crate::effect::{Action, Hold, KubeEvent, PodAction};
use crate::engine_inspection::EngineInspection;
use crate::forecast::Load;
use crate::hold_file::HoldFile;
use crate::moment::{Moment, Span};
use crate::notice::ActiveNotice;
use crate::open_effects::Context;
use crate::pod::{OnDelete, Owner, PodFacts, PodUid};
use crate::pod_eviction::{EvictionState, PodEviction};
use crate::pod_restore::PodRestore;
use crate::pod_save::{NO_EVIDENCE, PodSave, SaveContext, SaveStep, Times};
use crate::precopy::PreCopy;
use crate::reload_local::LocalReload;
use crate::{budget, order};
use std::collections::BTreeMap;

mod report_entry;

/// The pods of the node.
pub(crate) type Pods = BTreeMap<PodUid, TrackedPod>;

/// How long it is asked whether an earlier life has committed a state: the first request to the store of an agent that has
/// just started takes its time, and saving all of it once more would take longer.
const ASKED_FOR: Span = Span::from_secs(5);

/// Everything the core keeps of one pod.
#[derive(Clone, Debug)]
pub(crate) struct TrackedPod {
    pub(crate) facts: PodFacts,
    pub(crate) present: bool,
    pub(crate) departure: Option<Departure>,
    pub(crate) inspection: EngineInspection,
    pub(crate) hold_file: HoldFile,
    pub(crate) precopy: PreCopy,
    pub(crate) restore: PodRestore,
    pub(crate) reload: LocalReload,
}

impl TrackedPod {
    pub(crate) fn new(facts: PodFacts) -> Self {
        Self {
            facts,
            present: true,
            departure: None,
            inspection: EngineInspection::default(),
            hold_file: HoldFile::default(),
            precopy: PreCopy::default(),
            restore: PodRestore::default(),
            reload: LocalReload::default(),
        }
    }

    /// The state in its engine is its own, and worth a save. (A pod that is terminating when it is
    /// first seen never begins a restore.)
    fn is_restored(&self) -> bool {
        self.restore.is_over() || self.facts.restore_decided
    }

    /// It is part of an evacuation, was to stay, and its engine was not asked for anything, or has nothing more to do.
    pub(crate) fn is_staying(&self) -> bool {
        self.departure.as_ref().is_some_and(|departure| {
            let save = &departure.save;
            departure.eviction.stays() && (save.has_not_begun() || save.is_over())
        })
    }

    /// It leaves, nothing is saved of it, and nobody was asked to end it yet.
    pub(crate) fn was_to_leave_without_a_save(&self) -> bool {
        self.departure.as_ref().is_some_and(|departure| {
            departure.save.step == SaveStep::Nothing && departure.eviction.has_not_begun()
        })
    }

    /// Begins its departure under a notice. `resumed`: an earlier life may have begun it before.
    pub(crate) fn depart(&mut self, active_notice: &ActiveNotice, resumed: bool, ctx: &mut Context<'_>) {
        let ActiveNotice { notice, began, deadline, .. } = active_notice;
        let (began, deadline) = (*began, *deadline);
        let deleted = self.facts.terminating.is_some() && self.facts.owner != Owner::Finished;
        let saves = self.facts.engine.is_some()
            && (self.facts.stays().is_none() || self.facts.serves_to_the_end() || deleted)
            && !order::is_shed(ctx.policy, &self.facts)
            && self.is_restored();
        self.stop_other_work(ctx);
        let (deadline, held) = match self.facts.terminating {
            // Terminating already, evicted by us before a restart or deleted by another: it ends at
            // its grace, and waits for its hold if it can.
            Some(ends) if saves => (deadline.min(ends), self.waits_for_hold()),
            Some(_) => (deadline, false),
            None => (deadline, saves && self.facts.can_be_held()),
        };
        let times = self.times(began, deadline, held, ctx);
        let earlier = resumed.then(|| ctx.now + ASKED_FOR.min(deadline.since(began).div(6)));
        self.departure = Some(Departure {
            cause: Cause::Notice,
            times,
            save: if saves { PodSave::begin(notice, earlier) } else { PodSave::nothing() },
            eviction: PodEviction::new(&self.facts, ctx.now),
            began,
            announced: false,
        });
    }

    /// Begins its departure because somebody deleted it: its own grace is its deadline.
    pub(crate) fn deleted(&mut self, ends: Moment, ctx: &mut Context<'_>) {
        let Some(engine) = &self.facts.engine else { return };
        let saves = engine.on_delete == OnDelete::Save
            && self.is_restored()
            && self.facts.owner != Owner::Finished
            && !order::is_shed(ctx.policy, &self.facts);
        self.stop_other_work(ctx);
        let began = ctx.now;
        let times = self.times(began, ends, self.waits_for_hold(), ctx);
        self.departure = Some(Departure {
            cause: Cause::Deleted,
            times,
            save: if saves { PodSave::begin("deleted", None) } else { PodSave::nothing() },
            eviction: PodEviction::new(&self.facts, ctx.now),
            began,
            announced: false,
        });
    }

    /// A notice came while the pod was leaving for another reason: the nearer end counts, and what
    /// has begun goes on.
    pub(crate) fn tighten(&mut self, began: Moment, deadline: Moment, ctx: &mut Context<'_>) {
        let Some(departure) = &self.departure else { return };
        let deadline = departure.times.deadline.min(deadline);
        let times = self.times(began.min(departure.began), deadline, departure.times.held, ctx);
        if let Some(departure) = &mut self.departure {
            departure.cause = Cause::Notice;
            if times.cutoff < departure.times.cutoff {
                departure.save.hurry(ctx);
            }
            departure.times = times;
        }
    }

    fn times(&self, began: Moment, deadline: Moment, held: bool, ctx: &Context<'_>) -> Times {
        let cutoff = budget::end(ctx.policy, &self.facts, began, deadline, held);
        let gone_by = budget::gone_by(ctx.policy, &self.facts, began, deadline);
        Times { deadline, cutoff, gone_by, held }
    }

    /// Its state is being saved, or was.
    pub(crate) fn saves_something(&self) -> bool {
        self.departure.as_ref().is_some_and(|departure| departure.save.step != SaveStep::Nothing)
    }

    /// What decides its place in the saving order.
    pub(crate) fn saving(&self) -> order::Saving<'_> {
        let cutoff = self.departure.as_ref().map_or(Moment::default(), |departure| departure.times.cutoff);
        let doubted = self.inspection.doubt.is_some();
        order::Saving { pod: &self.facts, doubted, cutoff, bytes: self.inspection.state_bytes() }
    }

    /// Its engine takes one of the flush slots.
    pub(crate) fn takes_a_flush_slot(&self, ctx: &mut Context<'_>) -> bool {
        self.departure.as_ref().is_some_and(|departure| departure.save.takes_a_slot(ctx))
    }

    /// Bytes that its save has yet to send, as far as that is known.
    pub(crate) fn to_send(&self) -> u64 {
        let all = || self.precopy.to_send(self.inspection.state_bytes());
        match self.departure.as_ref().map(|departure| &departure.save) {
            Some(save) if save.is_over() || save.step == SaveStep::Commit => 0,
            Some(save) => save.unsent.unwrap_or_else(all),
            None => all(),
        }
    }

    /// What is left of its save, for a forecast; `None` once nothing is. `disk`: the flush rate of an engine
    /// whose own was never measured.
    pub(crate) fn load(&self, disk: Option<u64>, now: Moment) -> Option<Load> {
        let departure = self.departure.as_ref()?;
        let save = &departure.save;
        let flush = match save.step {
            SaveStep::Nothing | SaveStep::Commit | SaveStep::Safe { .. } | SaveStep::Lost { .. } => {
                return None;
            }
            SaveStep::Save => Span::ZERO,
            SaveStep::Announce | SaveStep::Wait | SaveStep::Quiesce | SaveStep::Flush => {
                let bytes = self.inspection.state_bytes();
                let expected = budget::flush(bytes, self.inspection.flush_rate.or(disk));
                budget::flush_left(expected, save.flush_began(), now)
            }
        };
        Some(Load {
            priority: self.facts.priority,
            doubted: self.inspection.doubt.is_some(),
            serves_to_the_end: self.facts.serves_to_the_end(),
            role: self.facts.role,
            value: self.inspection.state_bytes(),
            send: self.to_send(),
            flush,
            cutoff: departure.times.cutoff,
        })
    }

    /// Its containers end only when its hold is released or has passed.
    fn waits_for_hold(&self) -> bool {
        self.facts.engine.as_ref().is_some_and(|engine| engine.holds)
    }

    /// Its engine's state is put back: from the store into a new pod, from its own volume after a restart.
    pub(crate) fn advance_restore(&mut self, ctx: &mut Context<'_>) {
        if self.reload.was_restarted(&self.facts) && !self.restore.begins_again(ctx) {
            self.precopy.cancel(ctx);
            self.reload.begin(&self.facts, ctx);
        }
        self.restore.advance(&self.facts, ctx);
        if self.restore.is_over() {
            self.reload.advance(&self.facts, ctx);
        }
    }

    /// Its engine has what it is to have, and may be asked for it.
    pub(crate) fn is_settled(&self) -> bool {
        self.restore.is_over() && !self.reload.is_under_way() && self.facts.running
    }

    fn stop_other_work(&mut self, ctx: &mut Context<'_>) {
        self.precopy.cancel(ctx);
        self.reload.cancel(ctx);
        if !self.restore.is_over() {
            self.restore.cancel(&self.facts.uid, ctx);
        }
    }

    /// Takes back a departure that has done nothing yet, or has given the pod up: it goes on.
    pub(crate) fn stand_down(&mut self, ctx: &mut Context<'_>) {
        let Some(departure) = &self.departure else { return };
        let (save, eviction) = (&departure.save, &departure.eviction);
        let given_up = matches!(eviction.state, EvictionState::Abandoned(_));
        let goes_on = given_up || eviction.stays();
        let idle = save.has_not_begun() && (eviction.has_not_begun() || given_up);
        if departure.cause != Cause::Notice || !(idle || (goes_on && save.is_over())) {
            return;
        }
        let pod = || self.facts.uid.clone();
        if !save.has_not_begun() {
            ctx.fire(Action::Pod { uid: pod(), action: PodAction::Resume });
        } else if save.step != SaveStep::Nothing {
            ctx.fire(Action::Pod {
                uid: pod(),
                action: PodAction::AbandonIntent { why: "the notice was withdrawn".to_owned() },
            });
        }
        self.take_back(ctx);
    }

    /// It goes on as if it had never been about to leave.
    pub(crate) fn take_back(&mut self, ctx: &mut Context<'_>) {
        if let Some(mut departure) = self.departure.take() {
            departure.save.cancel(ctx);
            departure.eviction.cancel(ctx);
        }
    }

    /// The save's next step.
    pub(crate) fn advance_save(&mut self, around: &mut SaveContext<'_>, ctx: &mut Context<'_>) {
        let Some(departure) = &mut self.departure else { return };
        let to_send = self.precopy.to_send(self.inspection.state_bytes());
        departure.save.advance(&self.facts, &mut self.inspection, departure.times, to_send, around, ctx);
        if departure.save.is_over() && !departure.announced {
            departure.announced = true;
            let (reason, note, warning) = match &departure.save.step {
                SaveStep::Safe { generation, bytes, .. } if departure.save.lacks_evidence() => {
                    let note = format!("{bytes} bytes in {generation}: {NO_EVIDENCE}");
                    ("SavedWithoutEvidence", note, true)
                }
                SaveStep::Safe { generation, bytes, .. } if departure.save.partial.is_some() => {
                    let why = departure.save.partial.as_deref().unwrap_or_default();
                    ("StatePartlySaved", format!("{bytes} bytes in {generation}, not all of it: {why}"), true)
                }
                SaveStep::Safe { generation, bytes, .. } => {
                    let last = self.inspection.doubt.as_ref();
                    let last = last.map_or(String::new(), |why| format!(", saved after all others: {why}"));
                    ("StateSaved", format!("{bytes} bytes in {generation}{last}"), false)
                }
                SaveStep::Lost { why } => ("StateNotSaved", why.clone(), !departure.save.had_no_state()),
                _ => return,
            };
            let event = KubeEvent { reason: reason.into(), note, warning };
            ctx.fire(Action::Pod { uid: self.facts.uid.clone(), action: PodAction::Publish(event) });
        }
    }

    /// The hold that this pod's file should say.
    pub(crate) fn advance_hold(&mut self, ctx: &mut Context<'_>) {
        let Some(engine) = &self.facts.engine else { return };
        if !engine.holds || !self.present {
            return;
        }
        match &self.departure {
            Some(departure) if departure.save.is_over() => {
                self.hold_file.set(&self.facts, Hold::Released, ctx)
            }
            Some(departure) => {
                let hold = Hold::Until(departure.times.gone_by);
                self.hold_file.set(&self.facts, hold, ctx);
            }
            None if self.facts.running && self.inspection.state_bytes() > 0 => {
                self.hold_file.keep_ahead(&self.facts, ctx)
            }
            None => {}
        }
    }

    /// The pod may be evicted now, as far as it is concerned itself.
    pub(crate) fn is_ready(&mut self, ctx: &mut Context<'_>) -> bool {
        let Some(departure) = &self.departure else { return false };
        let late = budget::late(ctx.policy, departure.began, departure.times.deadline);
        if self.facts.is_late() && !ctx.reached_or_wake(late) {
            return false;
        }
        if departure.save.is_over() || ctx.reached_or_wake(departure.times.cutoff) {
            return true;
        }
        departure.times.held
            && departure.save.is_announced()
            && self.hold_file.covers(departure.times.deadline)
    }

    /// A hold that cannot be written protects nothing: such a pod is evicted after its save.
    pub(crate) fn give_up_hold(&mut self, ctx: &mut Context<'_>) {
        let Some(departure) = &self.departure else { return };
        if !departure.times.held
            || departure.eviction.state != EvictionState::Waiting
            || self.hold_file.failures < 2
        {
            return;
        }
        let times = self.times(departure.began, departure.times.deadline, false, ctx);
        if let Some(departure) = &mut self.departure {
            departure.times = times;
        }
    }
}
