//! What the engine of a pod last said of itself.
//!
//! Decides when to look again. It must not know why anybody wants to know.

use crate::effect::Action;
use crate::event::{Done, Outcome};
use crate::ledger::{Attempts, Context, Purpose};
use crate::moment::{Moment, Span};
use crate::pod::PodFacts;

/// How often a serving engine is looked at when nothing else asks for it.
const ORDINARY: Span = Span::from_secs(30);

/// One answer of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) at: Moment,
    pub(crate) state_bytes: u64,
    pub(crate) busy: bool,
}

/// The looks at one engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) seen: Option<Seen>,
    pub(crate) flush_took: Option<Span>,
    tries: Attempts,
    unanswered: bool,
}

impl Look {
    /// The engine's bytes of state, 0 where unknown.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.state_bytes)
    }

    /// The last look failed: nothing is known of now.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Looks from time to time.
    pub(crate) fn advance(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        let due = self.seen.is_none_or(|seen| ctx.has_come(seen.at + ORDINARY));
        if due && self.tries.may_start(ctx) {
            self.ask(pod, Span::from_secs(10), ctx);
        }
    }

    /// What was seen at most `age` ago; looks if there is no such thing.
    pub(crate) fn fresh(&mut self, pod: &PodFacts, age: Span, ctx: &mut Context<'_>) -> Option<Seen> {
        if let Some(seen) = self.seen
            && !ctx.has_come(seen.at + age)
        {
            return Some(seen);
        }
        if self.tries.may_start(ctx) {
            self.ask(pod, Span::from_secs(1), ctx);
        }
        None
    }

    fn ask(&mut self, pod: &PodFacts, span: Span, ctx: &mut Context<'_>) {
        let action = Action::Look { pod: pod.uid.clone() };
        let attempt = self.tries.next();
        self.tries.open =
            Some(ctx.ask(span, ctx.now + span, attempt, Purpose::Look(pod.uid.clone()), action));
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, outcome: &Outcome, ctx: &mut Context<'_>) {
        if let Outcome::Done(Done::Looked { state_bytes, busy }) = outcome {
            self.seen = Some(Seen { at: ctx.now, state_bytes: *state_bytes, busy: *busy });
            self.tries = Attempts::default();
            self.unanswered = false;
        } else {
            self.tries.failed(ctx.now, Span::from_secs(5));
            self.unanswered = true;
        }
    }
}
