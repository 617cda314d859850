//! The hold file of one pod: the Unix time before which it should not end.
//!
//! Decides when which hold is written. It must not know how a save is made.
//!
//! While the agent lives and the pod has something to lose, the hold is kept a few seconds ahead: if
//! anybody deletes the pod, its preStop waits long enough for us to notice. At a departure it is
//! moved to the pod's deadline once, and to zero as soon as the state is safe, or lost. A dead agent
//! moves nothing: the time passes and the pod ends.

use crate::effect::{Action, Hold, PodAction};
use crate::event::Outcome;
use crate::moment::{Moment, Span};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::pod::PodFacts;

/// The hold of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct HoldFile {
    tries: Attempts,
    writing: Option<Hold>,
    written: Option<Hold>,
    written_at: Moment,
    pub(crate) failures: u32,
}

impl HoldFile {
    /// The file says that the pod should not end before `moment`.
    pub(crate) fn covers(&self, moment: Moment) -> bool {
        matches!(self.written, Some(Hold::Until(until)) if until >= moment)
    }

    /// Makes the file say `hold`.
    pub(crate) fn set(&mut self, pod: &PodFacts, hold: Hold, ctx: &mut Context<'_>) {
        if self.written == Some(hold) || (self.writing == Some(hold) && self.tries.open.is_some()) {
            return;
        }
        if !self.tries.may_start(ctx) {
            return;
        }
        self.writing = Some(hold);
        let attempt = self.tries.next();
        let purpose = Purpose::HoldFile(pod.uid.clone());
        let action = Action::Pod { uid: pod.uid.clone(), action: PodAction::SetHold { hold } };
        let span = Span::from_secs(1);
        self.tries.open = Some(ctx.ask(span, ctx.now + span, attempt, purpose, action));
    }

    /// Keeps the hold a few seconds ahead.
    pub(crate) fn keep_ahead(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        if self.written.is_some() && !ctx.reached_or_wake(self.written_at + ctx.policy.hold_every) {
            return;
        }
        let until = ctx.now + ctx.policy.hold_ahead;
        self.set(pod, Hold::Until(until), ctx);
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, outcome: &Outcome, ctx: &mut Context<'_>) {
        if matches!(outcome, Outcome::Done(_)) {
            self.written = self.writing.take();
            self.written_at = ctx.now;
            self.tries = Attempts::default();
            self.failures = 0;
        } else {
            // It may have been written all the same: what the file says is not known any more.
            (self.writing, self.written) = (None, None);
            self.failures = self.failures.saturating_add(1);
            self.tries.failed(ctx.now, Span::from_secs(1));
        }
    }
}
