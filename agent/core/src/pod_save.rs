//! Keeping the state of one departing pod: announce, quiesce, flush, save, commit.
//!
//! Decides the next step of one pod's save and when to give up. It must not know who is evicted
//! when, nor any other pod but by its rank.
//!
//! ```text
//! announce ─► wait ─► quiesce ─► flush ─► save ─► commit ─► safe
//!    (1 s at most)  (evict-first: the last moment that fits)  │ at the cut-off: what is whole, as partial
//!                                  └──── cut-off ─────────────┴─► lost, with a reason
//! ```

use crate::budget;
use crate::effect::{Action, EffectId, FlushKind, PodAction};
use crate::engine_inspection::EngineInspection;
use crate::event::{Done, Outcome};
use crate::forecast::Fit;
use crate::moment::{Moment, Span};
use crate::open_effects::{Attempts, Context, Purpose};
use crate::pod::{PodFacts, PodUid};

mod answer;

/// Why nothing is saved of an engine that flushed nothing.
const NO_STATE: &str = "the engine had no state to flush";

/// What is said of a state that nobody may use.
pub(crate) const NO_EVIDENCE: &str = "nothing shows the weights of its engine, which told nothing of them or was busy at every \
    look, so no engine is given this state: set lifeboat.dev/compat-key before the next save, or leave a slot of llama-server idle \
    now and then";

/// Why a commit is partial that had no time for more.
const CUT_OFF: &str = "its cut-off came before all of it was in the store";

/// How often a save is made again because its commit found packs of it endangered. Each list of the store is younger.
pub(crate) const RESAVES_MAX: u32 = 3;

/// A save that is under way keeps its place for this long.
const RERANK: Span = Span::from_secs(1);

/// How old what is known of an engine that serves to the end may be, while its last moment is waited for.
const FRESH: Span = Span::from_secs(5);

/// The longest that a probe beside the upload may take.
const PROBE: Span = Span::from_secs(2);

/// How far the save has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SaveStep {
    /// There is nothing to save.
    Nothing,
    /// The intent is being written.
    Announce,
    /// Waiting for the moment to begin.
    Wait,
    /// The engine is told to admit nothing new.
    Quiesce,
    /// The engine writes.
    Flush,
    /// The bytes go to the store.
    Save,
    /// The generation is written.
    Commit,
    /// Committed.
    Safe { generation: String, bytes: u64, at: Moment },
    /// Given up.
    Lost { why: String },
}

/// What shows with which weights a state was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// Something does, as far as is known.
    Shown,
    /// The engine was never idle when it was looked at, and is to be probed now.
    Wanted,
    /// It is being probed.
    Probing(EffectId),
    /// Nothing does: no other engine is given the state.
    Missing,
}

/// The save of one departing pod.
#[derive(Clone, Debug)]
pub(crate) struct PodSave {
    pub(crate) step: SaveStep,
    /// Why what is committed is not all of it, if it is not.
    pub(crate) partial: Option<String>,
    pub(crate) sent: u64,
    /// The rank under which its save was asked for.
    pub(crate) rank: u64,
    ranked: Moment,
    /// Bytes that its save has probably yet to send, once it has begun.
    pub(crate) unsent: Option<u64>,
    departure: String,
    earlier: Option<Moment>,
    tries: Attempts,
    /// It could have begun its flush.
    flush_ready: Option<Moment>,
    /// Its turn at the flush slots began.
    turn_began: Option<Moment>,
    flush_began: Option<Moment>,
    /// The cut-off under which the flush was asked for.
    flush_by: Moment,
    last_problem: Option<String>,
    /// Its commit found packs of it endangered, so often, and it was saved again.
    resaves: u32,
    /// There is no time to save it again: what lies on such packs is left out.
    without_endangered: bool,
    /// What shows with which weights the state was made.
    evidence: Evidence,
    /// Why it was not expected to be whole, when its save began or was last looked at.
    shortage: Option<(Span, Span)>,
}

/// What the save of a pod is told of the rest of the node.
pub(crate) struct SaveContext<'a> {
    /// Its position in the saving order.
    pub(crate) rank: u64,
    /// Bytes that the pods before it and its own save have yet to send.
    pub(crate) bytes_before_and_own: u64,
    /// The link, as last measured.
    pub(crate) bytes_per_second: Option<u64>,
    /// How long its flush is expected to take.
    pub(crate) flush: Span,
    /// Whether it is expected to be whole by its cut-off.
    pub(crate) fit: Fit,
    /// Flushes that may still begin.
    pub(crate) flush_slots: &'a mut usize,
    /// The engine of a pod flushes, or is about to, that has a higher PriorityClass value, or fits where this one does not.
    pub(crate) outranked: bool,
}

/// When this departure must be where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Everything ends.
    pub(crate) deadline: Moment,
    /// The save ends.
    pub(crate) cutoff: Moment,
    /// The pod itself is to be gone.
    pub(crate) gone_by: Moment,
    /// The pod waits inside its own eviction.
    pub(crate) held: bool,
}

impl PodSave {
    /// A save that begins with its intent, which names this departure. Where an earlier life may have committed it, and
    /// only the answer to the intent tells, that is asked for until `earlier`.
    pub(crate) fn begin(departure: &str, earlier: Option<Moment>) -> Self {
        Self { earlier, ..Self::at(SaveStep::Announce, departure) }
    }

    /// Nothing to save.
    pub(crate) fn nothing() -> Self {
        Self::at(SaveStep::Nothing, "")
    }

    fn at(step: SaveStep, departure: &str) -> Self {
        Self {
            step,
            partial: None,
            sent: 0,
            rank: 0,
            ranked: Moment::default(),
            unsent: None,
            departure: departure.to_owned(),
            earlier: None,
            tries: Attempts::default(),
            flush_ready: None,
            turn_began: None,
            flush_began: None,
            flush_by: Moment::default(),
            last_problem: None,
            resaves: 0,
            without_endangered: false,
            evidence: Evidence::Shown,
            shortage: None,
        }
    }

    /// When the flush that is under way began.
    pub(crate) fn flush_began(&self) -> Option<Moment> {
        self.flush_began.filter(|_| self.step == SaveStep::Flush && self.tries.open.is_some())
    }

    /// Why not all of it was expected to get there, for people; empty where nothing was short.
    fn shortage(&self) -> String {
        self.shortage.map_or(String::new(), |(needs, has)| {
            format!(" (it needed {needs} of the link and had {has} until its cut-off)")
        })
    }

    /// Nothing more will happen to the state.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.step, SaveStep::Nothing | SaveStep::Safe { .. } | SaveStep::Lost { .. })
    }

    /// The intent is written, or was waited for long enough.
    pub(crate) fn is_announced(&self) -> bool {
        self.step != SaveStep::Announce
    }

    /// The engine has not been asked for anything yet.
    pub(crate) fn has_not_begun(&self) -> bool {
        matches!(self.step, SaveStep::Nothing | SaveStep::Announce | SaveStep::Wait)
    }

    /// The engine flushed nothing.
    pub(crate) fn had_no_state(&self) -> bool {
        matches!(&self.step, SaveStep::Lost { why } if why == NO_STATE)
    }

    /// Its engine flushes, or is about to: what counts less does not compete with it for the disk.
    pub(crate) fn is_before_its_save(&self) -> bool {
        matches!(self.step, SaveStep::Announce | SaveStep::Quiesce | SaveStep::Flush)
    }

    /// A flush is under way, and takes one of the slots: for its turn, not for as long as an engine that crawls takes.
    pub(crate) fn takes_a_slot(&self, ctx: &mut Context<'_>) -> bool {
        let turn = self.turn_began.map(|began| began + ctx.policy.flush_turn);
        let under_way = match self.step {
            SaveStep::Quiesce => true,
            SaveStep::Flush => self.tries.open.is_some() || self.tries.made == 0,
            _ => false,
        };
        under_way && turn.is_some_and(|end| !ctx.reached_or_wake(end))
    }

    fn go(&mut self, step: SaveStep) {
        self.step = step;
        self.tries = Attempts::default();
    }

    /// The departure is taken back: what is under way has no one to answer to any more.
    pub(crate) fn cancel(&mut self, ctx: &mut Context<'_>) {
        if let Some(open) = self.tries.open.take() {
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
        }
        if let Evidence::Probing(open) = self.evidence {
            ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
            self.evidence = Evidence::Missing;
        }
    }

    /// Nothing shows with which weights the state was made: it is in the store, and nobody may use it.
    pub(crate) fn lacks_evidence(&self) -> bool {
        self.evidence == Evidence::Missing && matches!(self.step, SaveStep::Safe { .. })
    }

    /// Has the engine probed, once, while its bytes are sent: they are opened, and what it computes changes none of them.
    fn probe(&mut self, pod: &PodUid, times: Times, ctx: &mut Context<'_>) {
        let span = PROBE.min(times.cutoff.left(ctx.now).div(10));
        let action = Action::Pod { uid: pod.clone(), action: PodAction::ProbeEngine };
        self.evidence =
            Evidence::Probing(ctx.ask(span, times.cutoff, 1, Purpose::Probe(pod.clone()), action));
    }

    /// Takes the answer to a probe.
    pub(crate) fn probed(&mut self, outcome: &Outcome) {
        let shown = matches!(outcome, Outcome::Done(Done::Probed));
        self.evidence = if shown { Evidence::Shown } else { Evidence::Missing };
    }

    /// The cut-off moved nearer: a save that is under way is asked for again with less time, and sends
    /// nothing twice.
    pub(crate) fn hurry(&mut self, ctx: &mut Context<'_>) {
        if self.step == SaveStep::Save {
            // The probe beside it is not asked for again.
            if let Some(open) = self.tries.open.take() {
                ctx.effects.cancel(open, ctx.now + ctx.policy.call_timeout);
            }
            self.tries = Attempts::default();
        }
    }

    /// Gives the state up; what may still be open is cancelled, and the replacement is told not to
    /// wait.
    pub(crate) fn lose(&mut self, pod: &PodUid, why: String, ctx: &mut Context<'_>) {
        self.cancel(ctx);
        // An intent that was asked for may have reached the store without an answer.
        if self.is_announced() || self.tries.made > 0 {
            ctx.fire(Action::Pod { uid: pod.clone(), action: PodAction::AbandonIntent { why: why.clone() } });
        }
        self.go(SaveStep::Lost { why });
    }

    /// The pod is no more: what was not flushed cannot be any longer. What was flushed was opened
    /// at once, and its bytes survive the removal of the volume.
    pub(crate) fn pod_gone(&mut self, pod: &PodUid, ctx: &mut Context<'_>) {
        if matches!(self.step, SaveStep::Announce | SaveStep::Wait | SaveStep::Quiesce | SaveStep::Flush) {
            self.lose(pod, "the pod was gone before its state was flushed".into(), ctx);
        }
    }

    /// Takes the next step, if its time has come.
    pub(crate) fn advance(
        &mut self,
        pod: &PodFacts,
        inspection: &mut EngineInspection,
        times: Times,
        to_send: u64,
        around: &mut SaveContext<'_>,
        ctx: &mut Context<'_>,
    ) {
        self.shortage = match around.fit {
            Fit::Not { needs, has } => Some((needs, has)),
            Fit::By(_) | Fit::Unknown => None,
        };
        if self.evidence == Evidence::Wanted {
            self.probe(&pod.uid, times, ctx);
        }
        let purpose = || Purpose::Save(pod.uid.clone());
        if self.tries.open.is_some() {
            self.move_to(around, &pod.uid, ctx);
            // The deadline moved nearer while the engine writes: what it has then is too late.
            let overdue = self.step == SaveStep::Flush && times.cutoff < self.flush_by;
            if !overdue || !ctx.reached_or_wake(times.cutoff) {
                return;
            }
            self.cancel(ctx);
        }
        if matches!(self.step, SaveStep::Announce | SaveStep::Wait | SaveStep::Quiesce | SaveStep::Flush)
            && ctx.reached_or_wake(times.cutoff)
        {
            let why = match self.last_problem.take() {
                Some(problem) => format!("not flushed by its cut-off: {problem}"),
                None => "its cut-off came before its flush could begin".to_owned(),
            };
            return self.lose(&pod.uid, why, ctx);
        }
        match self.step {
            SaveStep::Announce => {
                if !self.tries.may_start(ctx) {
                    return;
                }
                let by = times.cutoff;
                let action = Action::Pod {
                    uid: pod.uid.clone(),
                    action: PodAction::WriteIntent { departure: self.departure.clone(), by },
                };
                let within = self.earlier.map_or(Span::ZERO, |until| until.left(ctx.now));
                let within = within.max(ctx.policy.intent_timeout);
                self.tries.open = Some(ctx.ask(within, by, self.tries.next(), purpose(), action));
            }
            SaveStep::Wait => {
                let may_begin = match (pod.serves_to_the_end(), times.held) {
                    (true, _) => self.is_last_moment(pod, inspection, times, around, ctx),
                    (false, true) => self.may_begin(pod, inspection, times, around, ctx),
                    (false, false) => true,
                };
                if !may_begin {
                    return;
                }
                // It serves until it is its turn: an engine that is told to admit nothing new stands idle.
                if !self.may_take_turn(times, around, ctx) {
                    return;
                }
                *around.flush_slots -= 1;
                self.turn_began = Some(ctx.now);
                // One that serves to the end goes on admitting requests: nothing else answers them.
                self.go(if pod.serves_to_the_end() { SaveStep::Flush } else { SaveStep::Quiesce });
                self.advance(pod, inspection, times, to_send, around, ctx);
            }
            SaveStep::Quiesce => {
                let action = Action::Pod { uid: pod.uid.clone(), action: PodAction::Quiesce };
                self.tries.open =
                    Some(ctx.ask(Span::from_secs(2), times.cutoff, self.tries.next(), purpose(), action));
            }
            SaveStep::Flush => {
                if !self.tries.may_start(ctx) {
                    return;
                }
                // It has the slot since its quiesce, for as long as its turn lasts; a flush that failed takes another turn.
                let ends = self.turn_began.map(|began| began + ctx.policy.flush_turn);
                if self.tries.made > 0 || ends.is_some_and(|ends| ctx.now > ends) {
                    if *around.flush_slots == 0 {
                        return;
                    }
                    *around.flush_slots -= 1;
                }
                self.turn_began = Some(ctx.now);
                let timeout = pod.engine.as_ref().map_or(Span::ZERO, |engine| engine.flush_timeout);
                let action =
                    Action::Pod { uid: pod.uid.clone(), action: PodAction::Flush { kind: FlushKind::Final } };
                self.flush_began = Some(ctx.now);
                self.flush_by = times.cutoff;
                self.tries.open = Some(ctx.ask(timeout, times.cutoff, self.tries.next(), purpose(), action));
            }
            SaveStep::Save => {
                if !self.tries.may_start(ctx) {
                    return;
                }
                let action = Action::Pod {
                    uid: pod.uid.clone(),
                    action: PodAction::Save { kind: FlushKind::Final, rank: around.rank },
                };
                (self.rank, self.ranked) = (around.rank, ctx.now);
                self.unsent.get_or_insert(to_send);
                let left = times.cutoff.left(ctx.now);
                self.tries.open = Some(ctx.ask(left, times.cutoff, self.tries.next(), purpose(), action));
            }
            SaveStep::Commit => {
                // The manifest is to hold what the probe shows; it is not waited for longer than it was given.
                if matches!(self.evidence, Evidence::Probing(_)) || !self.tries.may_start(ctx) {
                    return;
                }
                let partial = self.partial.is_some();
                let action = Action::Pod {
                    uid: pod.uid.clone(),
                    action: PodAction::Commit {
                        kind: FlushKind::Final,
                        partial,
                        without_endangered: self.without_endangered,
                    },
                };
                // Not bounded by the deadline: the instance often lives some seconds longer.
                let span = ctx.policy.call_timeout;
                self.tries.open = Some(ctx.ask(span, ctx.now + span, self.tries.next(), purpose(), action));
            }
            SaveStep::Nothing | SaveStep::Safe { .. } | SaveStep::Lost { .. } => {}
        }
    }

    /// There is a slot for its flush, and nothing that counts more flushes, or it has let that go first for long enough.
    fn may_take_turn(&mut self, times: Times, around: &SaveContext<'_>, ctx: &mut Context<'_>) -> bool {
        // From here on it waits: for a slot as for what outranks it.
        let ready = *self.flush_ready.get_or_insert(ctx.now);
        // Equal shares of disk and cores would make the most important flush as slow as all of them together. An engine
        // that hangs is not waited for long.
        let head_start = ctx.policy.flush_turn.min(times.cutoff.left(ready).div(6));
        *around.flush_slots > 0 && (!around.outranked || ctx.reached_or_wake(ready + head_start))
    }

    /// A save that is under way changes its place with what is known of the link; once a second at most.
    fn move_to(&mut self, around: &SaveContext<'_>, pod: &PodUid, ctx: &mut Context<'_>) {
        if self.step == SaveStep::Save
            && self.rank != around.rank
            && ctx.reached_or_wake(self.ranked + RERANK)
        {
            (self.rank, self.ranked) = (around.rank, ctx.now);
            ctx.fire(Action::Pod { uid: pod.clone(), action: PodAction::Reprioritise { rank: around.rank } });
        }
    }

    /// For a pod that serves until its node ends: idle or not, what it is asked meanwhile belongs to its state.
    fn is_last_moment(
        &self,
        pod: &PodFacts,
        inspection: &mut EngineInspection,
        times: Times,
        around: &SaveContext<'_>,
        ctx: &mut Context<'_>,
    ) -> bool {
        // How much there is to send decides when that moment comes.
        match inspection.fresh(pod, FRESH, ctx) {
            Some(_) => reached_last_moment(times, around, ctx),
            // Nobody knows how much it has: that may take all the time there is.
            None => inspection.is_unanswered() || reached_last_moment(times, around, ctx),
        }
    }

    /// For a pod that goes on generating inside its eviction: idle, unknown, or the last moment.
    fn may_begin(
        &mut self,
        pod: &PodFacts,
        inspection: &mut EngineInspection,
        times: Times,
        around: &SaveContext<'_>,
        ctx: &mut Context<'_>,
    ) -> bool {
        if reached_last_moment(times, around, ctx) {
            return true;
        }
        match inspection.fresh(pod, Span::from_secs(1), ctx) {
            Some(seen) => !seen.busy,
            None => inspection.is_unanswered(),
        }
    }
}

/// From here on flush, upload and commit would no longer fit.
fn reached_last_moment(times: Times, around: &SaveContext<'_>, ctx: &mut Context<'_>) -> bool {
    let last =
        budget::last_moment(times.cutoff, around.bytes_before_and_own, around.bytes_per_second, around.flush);
    last.is_none_or(|last| ctx.reached_or_wake(last))
}
