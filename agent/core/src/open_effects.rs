//! Which effects are open, what each was for, and when the core wants to be woken.
//!
//! Decides nothing. It gives out ids, remembers the purpose of each open effect so that its one
//! answer finds its way back, and counts the answers nobody waits for any more.

use crate::effect::{Action, Effect, EffectId};
use crate::moment::{Moment, Span};
use crate::pod::PodUid;
use crate::policy::Policy;
use crate::store_contact::{Asks, StoreContact};
use std::collections::BTreeMap;

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The node's mark.
    MarkNode,
    /// Taking the mark back.
    ClearNodeMark,
    /// The report.
    Report,
    /// A pod's hold file.
    HoldFile(PodUid),
    /// An inspection of a pod's engine.
    Inspect(PodUid),
    /// The save of a departing pod.
    Save(PodUid),
    /// The probe of an engine whose state is being saved.
    Probe(PodUid),
    /// The eviction of a departing pod.
    Evict(PodUid),
    /// A pod's pre-copy.
    PreCopy(PodUid),
    /// A pod's restore.
    Restore(PodUid),
    /// The renewal of a pod's claim.
    Renew(PodUid),
    /// What is fetched for a pod before it is committed.
    Prefetch(PodUid),
    /// What a restarted engine gets back from its own volume.
    ReloadLocal(PodUid),
    /// Nobody waits for it.
    FireAndForget,
}

/// The open effects of one life of the core.
#[derive(Debug, Default)]
pub(crate) struct OpenEffects {
    next: u64,
    open: BTreeMap<EffectId, (Purpose, Asks)>,
    out: Vec<Effect>,
    /// Answers to effects that were superseded.
    pub(crate) late_answers: u64,
}

impl OpenEffects {
    /// Emits an effect.
    pub(crate) fn ask(
        &mut self,
        deadline: Moment,
        attempt: u32,
        purpose: Purpose,
        action: Action,
    ) -> EffectId {
        self.next += 1;
        let id = EffectId(self.next);
        self.open.insert(id, (purpose, Asks::of(&action)));
        self.out.push(Effect { id, deadline, attempt, action });
        id
    }

    /// Takes the purpose of an answered effect; `None` if nobody waits for it any more.
    pub(crate) fn answered(&mut self, id: EffectId) -> Option<(Purpose, Asks)> {
        let open = self.open.remove(&id);
        if open.is_none() {
            self.late_answers += 1;
        }
        open
    }

    /// The purpose of an effect that is open.
    pub(crate) fn purpose(&self, id: EffectId) -> Option<&Purpose> {
        self.open.get(&id).map(|(purpose, _)| purpose)
    }

    /// Forgets an open effect and asks the shell to end its work. Its answer will be late.
    pub(crate) fn cancel(&mut self, id: EffectId, deadline: Moment) {
        if self.open.remove(&id).is_some() {
            self.ask(deadline, 1, Purpose::FireAndForget, Action::Cancel { effect: id });
        }
    }

    /// How many effects are open for which somebody waits.
    pub(crate) fn waiting(&self) -> usize {
        self.open.values().filter(|(purpose, _)| *purpose != Purpose::FireAndForget).count()
    }

    /// Hands out what was asked for since the last call.
    pub(crate) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }
}

/// What every part of the machine is given.
pub(crate) struct Context<'a> {
    /// Now.
    pub(crate) now: Moment,
    /// The policy.
    pub(crate) policy: &'a Policy,
    /// The effects.
    pub(crate) effects: &'a mut OpenEffects,
    /// Whether the store answers.
    pub(crate) store: StoreContact,
    /// The earliest moment at which something is to be looked at again.
    pub(crate) wakeup: &'a mut Option<Moment>,
}

impl Context<'_> {
    /// Asks to be woken at `moment`, if that lies ahead.
    pub(crate) fn wake_at(&mut self, moment: Moment) {
        if moment > self.now && self.wakeup.is_none_or(|set| moment < set) {
            *self.wakeup = Some(moment);
        }
    }

    /// True once `moment` has come; otherwise asks to be woken then.
    pub(crate) fn reached_or_wake(&mut self, moment: Moment) -> bool {
        self.wake_at(moment);
        self.now >= moment
    }

    /// Emits an effect that must be answered within `span`, and by `by` at the latest.
    pub(crate) fn ask(
        &mut self,
        span: Span,
        by: Moment,
        attempt: u32,
        purpose: Purpose,
        action: Action,
    ) -> EffectId {
        // A deadline that has passed would make the shell answer before it tried.
        let deadline = (self.now + span).min(by).max(self.now + Span::from_millis(250));
        self.effects.ask(deadline, attempt, purpose, action)
    }

    /// Emits an effect whose answer changes nothing.
    pub(crate) fn fire(&mut self, action: Action) {
        let deadline = self.now + self.policy.call_timeout;
        self.effects.ask(deadline, 1, Purpose::FireAndForget, action);
    }
}

/// Attempts at one thing that may have to be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// The effect that is open.
    pub(crate) open: Option<EffectId>,
    /// How many were made.
    pub(crate) made: u32,
    /// No further one before this moment.
    pub(crate) not_before: Moment,
}

impl Attempts {
    /// True if another attempt may start now; otherwise asks to be woken when it may.
    pub(crate) fn may_start(&self, ctx: &mut Context<'_>) -> bool {
        self.open.is_none() && ctx.reached_or_wake(self.not_before)
    }

    /// Notes that an attempt is under way, and returns nothing but its number.
    pub(crate) fn next(&mut self) -> u32 {
        self.made = self.made.saturating_add(1);
        self.made
    }

    /// Notes that the attempt has failed: the next one waits 100 ms, doubled with each, `most` at most.
    pub(crate) fn failed(&mut self, now: Moment, most: Span) {
        self.open = None;
        let doubled = 100u64.saturating_mul(1 << self.made.saturating_sub(1).min(10));
        self.not_before = now + Span::from_millis(doubled.min(most.as_millis()));
    }
}
