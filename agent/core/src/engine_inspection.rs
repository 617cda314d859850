//! What the engine of a pod last said of itself.
//!
//! Decides when to ask it again. It must not know why anybody wants to know.

use crate::effect::{Action, PodAction};
use crate::event::{Done, Outcome};
use crate::moment::{Moment, Span};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::pod::PodFacts;

/// How often a serving engine is inspected when nothing else asks for it.
const ORDINARY: Span = Span::from_secs(30);

/// The least bytes of a flush from which a rate is learned.
const TELLING: u64 = 16 << 20;

/// One answer of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineReading {
    pub(crate) at: Moment,
    pub(crate) state_bytes: u64,
    pub(crate) busy: bool,
}

/// The inspections of one engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct EngineInspection {
    pub(crate) seen: Option<EngineReading>,
    /// Bytes per second that its last flush wrote.
    pub(crate) flush_rate: Option<u64>,
    /// Why its state is worth less than others': engines that took such a state did not use it.
    pub(crate) doubt: Option<String>,
    tries: Attempts,
    unanswered: bool,
}

impl EngineInspection {
    /// The engine's bytes of state, 0 where unknown.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.state_bytes)
    }

    /// A flush of so many bytes is over. A small one tells of the engine's manners, not of its disk.
    pub(crate) fn flushed(&mut self, bytes: u64, took: Span) {
        if bytes >= TELLING {
            let rate = u128::from(bytes) * 1000 / u128::from(took.as_millis().max(1));
            self.flush_rate = Some(u64::try_from(rate).unwrap_or(u64::MAX));
        }
    }

    /// The last inspection failed: nothing is known of now.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Inspects it from time to time.
    pub(crate) fn advance(&mut self, pod: &PodFacts, ctx: &mut Context<'_>) {
        let due = self.seen.is_none_or(|seen| ctx.reached_or_wake(seen.at + ORDINARY));
        if due && self.tries.may_start(ctx) {
            self.ask(pod, Span::from_secs(10), ctx);
        }
    }

    /// What was seen at most `age` ago; inspects it if there is no such thing.
    pub(crate) fn fresh(
        &mut self,
        pod: &PodFacts,
        age: Span,
        ctx: &mut Context<'_>,
    ) -> Option<EngineReading> {
        if let Some(seen) = self.seen
            && !ctx.reached_or_wake(seen.at + age)
        {
            return Some(seen);
        }
        if self.tries.may_start(ctx) {
            self.ask(pod, Span::from_secs(1), ctx);
        }
        None
    }

    fn ask(&mut self, pod: &PodFacts, span: Span, ctx: &mut Context<'_>) {
        let action = Action::Pod { uid: pod.uid.clone(), action: PodAction::InspectEngine };
        let attempt = self.tries.next();
        self.tries.open =
            Some(ctx.ask(span, ctx.now + span, attempt, Purpose::Inspect(pod.uid.clone()), action));
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, outcome: &Outcome, ctx: &mut Context<'_>) {
        if let Outcome::Done(Done::Inspected { state_bytes, busy, doubt }) = outcome {
            self.doubt.clone_from(doubt);
            self.seen = Some(EngineReading { at: ctx.now, state_bytes: *state_bytes, busy: *busy });
            self.tries = Attempts::default();
            self.unanswered = false;
        } else {
            self.tries.failed(ctx.now, Span::from_secs(5));
            self.unanswered = true;
        }
    }
}
