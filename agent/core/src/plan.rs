//! What would happen: which states will be safe, which will not, and why; before anything happens.
//!
//! Decides nothing: it asks the same questions as an evacuation does ([`crate::order`], [`crate::budget`],
//! [`crate::forecast`]) of a node's [`Facts`]. It must not know effects, nor how far anybody is but by those facts.

mod advice;

use crate::facts::{Facts, PodState};
use crate::forecast::{Fit, Load, Resources, completions, forecast};
use crate::moment::{Moment, Span};
use crate::pod::{Owner, Role};
use crate::policy::EvictOrder;
use crate::report::StateOutcome;
use crate::{budget, order};
pub use advice::{Advice, Change};
use serde::Serialize;

/// Where a plan's clock starts: far enough from zero for what began before.
const NOW: Moment = Moment::from_millis(1 << 40);

/// What would happen to a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Version of this document: 1.
    pub format: u32,
    /// The node.
    pub node: String,
    /// Time left until the deadline, milliseconds.
    pub window: Span,
    /// The uplink it was made with, bytes per second.
    pub link: Option<u64>,
    /// By how many milliseconds everything will be in the store before it has to be: negative where it will not.
    /// `None` where there is nothing to save, or the link was never measured.
    pub headroom: Option<i64>,
    /// Bytes of state that will be whole in the store.
    pub safe: u64,
    /// Bytes of state that will not.
    pub at_risk: u64,
    /// What becomes of each pod, in the order in which they leave; those that stay come last.
    pub pods: Vec<PodPlan>,
    /// What would help most, if not all of it will be safe.
    pub advice: Option<Advice>,
}

/// What would happen to one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodPlan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The value of its PriorityClass.
    pub priority: i32,
    /// Its role.
    pub role: Role,
    /// How it leaves.
    pub leaves: Way,
    /// When it is evicted at the latest, milliseconds from now; `None` if it is not.
    pub evicted: Option<Span>,
    /// What becomes of its state.
    pub state: Fate,
    /// Bytes of state, where they are known.
    pub bytes: Option<u64>,
    /// Bytes that have to be sent for it.
    pub send: u64,
    /// When its state will be in the store, milliseconds from now.
    pub saved: Option<Span>,
    /// When its save ends, whatever it has come to, milliseconds from now.
    pub cutoff: Option<Span>,
    /// What it would need of the link's time and what it has, milliseconds, where that is too little.
    pub shortage: Option<Shortage>,
    /// Why, for people.
    pub why: String,
}

/// Too little time on the link, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shortage {
    /// What the state needs.
    pub needs: Span,
    /// What those before it leave until its cut-off.
    pub has: Span,
}

/// How a pod leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Evicted at once; nothing of it is saved.
    Shed,
    /// Evicted at once.
    AtOnce,
    /// Evicted at once, and held until its state is safe.
    Held,
    /// Evicted once its state is safe.
    AfterSave,
    /// Evicted in the last seconds.
    Late,
    /// On its way out already.
    Terminating,
    /// Not evicted.
    Stays,
}

/// What becomes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// There is none to save.
    None,
    /// It will be whole in the store, or is.
    Safe,
    /// It will not be whole by its cut-off; what is there then is kept as a part, or the generation of before.
    AtRisk,
    /// The link was never measured, or nobody has looked at the engine.
    Unknown,
}

impl Plan {
    /// Makes the plan of a node.
    pub fn of(facts: &Facts) -> Self {
        let mut plan = Self::without_advice(facts);
        if plan.at_risk > 0 {
            plan.advice = advice::best(facts, &plan);
        }
        plan
    }

    fn without_advice(facts: &Facts) -> Self {
        let deadline = NOW + facts.window();
        let pods: Vec<PlannedPod<'_>> = facts
            .pods
            .iter()
            .map(|state| PlannedPod::new(facts, state, NOW - facts.since, deadline))
            .collect();
        let resources = Resources { now: NOW, link: facts.link, flush_slots: facts.policy.flush_slots };
        let saved: Vec<usize> =
            (0..).zip(&pods).filter(|(_, pod)| pod.load.is_some()).map(|(index, _)| index).collect();
        let loads: Vec<Load> = pods.iter().filter_map(|pod| pod.load).collect();
        let mut fits = vec![None; pods.len()];
        for (index, fit) in saved.iter().zip(forecast(resources, &loads)) {
            if let Some(slot) = fits.get_mut(*index) {
                *slot = Some(fit);
            }
        }
        let over = completions(resources, &loads);
        let spare = |(over, load): (&Moment, &Load)| signed(load.cutoff) - signed(*over);
        let headroom = over.and_then(|over| over.iter().zip(&loads).map(spare).min());
        let mut entries: Vec<(&PlannedPod<'_>, PodPlan)> =
            pods.iter().zip(&fits).map(|(pod, fit)| (pod, pod.entry(*fit))).collect();
        entries.sort_by(|(a, _), (b, _)| leaving(facts, a).cmp(&leaving(facts, b)));
        let entries: Vec<PodPlan> = entries.into_iter().map(|(_, entry)| entry).collect();
        let bytes = |fate| {
            entries
                .iter()
                .filter(|entry| entry.state == fate)
                .filter_map(|entry| entry.bytes)
                .fold(0, u64::saturating_add)
        };
        Self {
            format: 1,
            node: facts.node.clone(),
            window: facts.window(),
            link: facts.link,
            headroom,
            safe: bytes(Fate::Safe),
            at_risk: bytes(Fate::AtRisk),
            pods: entries,
            advice: None,
        }
    }

    /// Bytes that will be safe of each tier, the most important first: what plans are compared by.
    fn value(&self) -> Vec<u64> {
        let mut tiers: Vec<(i32, Role)> = self.pods.iter().map(|pod| (pod.priority, pod.role)).collect();
        tiers.sort_by_key(|(priority, role)| (std::cmp::Reverse(*priority), *role));
        tiers.dedup();
        let safe = |tier: &(i32, Role)| {
            let of_tier = self.pods.iter().filter(|pod| (pod.priority, pod.role) == *tier);
            of_tier
                .filter(|pod| pod.state == Fate::Safe)
                .filter_map(|pod| pod.bytes)
                .fold(0, u64::saturating_add)
        };
        tiers.iter().map(safe).collect()
    }
}

fn signed(moment: Moment) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
}

/// One pod on its way into a plan.
struct PlannedPod<'a> {
    state: &'a PodState,
    way: Way,
    deadline: Moment,
    late: Moment,
    cutoff: Moment,
    /// Its state is saved, if it has any.
    saves: bool,
    load: Option<Load>,
}

impl<'a> PlannedPod<'a> {
    fn new(facts: &Facts, state: &'a PodState, began: Moment, deadline: Moment) -> Self {
        let (policy, pod) = (&facts.policy, &state.pod);
        let shed = order::is_shed(policy, pod);
        let ends = pod.stays().is_none() || (pod.terminating.is_some() && pod.owner != Owner::Finished);
        let saves = (ends || pod.serves_to_the_end()) && pod.engine.is_some() && !shed && pod.restore_decided;
        let held = saves && pod.terminating.is_none() && pod.can_be_held();
        let way = match () {
            () if pod.terminating.is_some() => Way::Terminating,
            () if pod.stays().is_some() => Way::Stays,
            () if shed => Way::Shed,
            () if pod.is_late() => Way::Late,
            () if held => Way::Held,
            () if saves => Way::AfterSave,
            () => Way::AtOnce,
        };
        let cutoff = budget::end(policy, pod, began, deadline, held);
        let open = matches!(state.outcome, None | Some(StateOutcome::Pending));
        let bytes = state.bytes.unwrap_or(0);
        let load = (saves && open && state.bytes.is_some()).then(|| Load {
            priority: pod.priority,
            doubted: state.doubt.is_some(),
            serves_to_the_end: pod.serves_to_the_end(),
            role: pod.role,
            value: bytes,
            send: state.send.unwrap_or(bytes),
            flush: state.flush.unwrap_or(budget::flush(bytes, None)),
            cutoff,
        });
        let late = budget::late(policy, began, deadline);
        Self { state, way, deadline, late, cutoff, saves, load }
    }

    fn entry(&self, fit: Option<Fit>) -> PodPlan {
        let pod = &self.state.pod;
        let (state, saved, mut why) = self.fate(fit);
        if let Some(doubt) = self.state.doubt.as_ref().filter(|_| self.load.is_some()) {
            why = format!("{why}; saved after all others: {doubt}");
        }
        let from_now = |moment: Moment| moment.since(NOW);
        let evicted = match self.way {
            Way::Shed | Way::AtOnce | Way::Held => Some(Span::ZERO),
            Way::AfterSave => Some(saved.unwrap_or(from_now(self.cutoff)).min(from_now(self.cutoff))),
            Way::Late => Some(from_now(self.late)),
            Way::Terminating | Way::Stays => None,
        };
        PodPlan {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            priority: pod.priority,
            role: pod.role,
            leaves: self.way,
            evicted,
            state,
            bytes: self.state.bytes,
            send: self.load.map_or(0, |load| load.send),
            saved,
            cutoff: self.saves.then(|| from_now(self.cutoff)),
            shortage: match fit {
                Some(Fit::Not { needs, has }) => Some(Shortage { needs, has }),
                Some(Fit::By(_) | Fit::Unknown) | None => None,
            },
            why,
        }
    }

    /// What becomes of its state, when, and why.
    fn fate(&self, fit: Option<Fit>) -> (Fate, Option<Span>, String) {
        let pod = &self.state.pod;
        if let Some(outcome) = self.state.outcome {
            let done = |fate, why: &str| (fate, None, why.to_owned());
            match outcome {
                StateOutcome::Saved => return done(Fate::Safe, "it is in the store"),
                StateOutcome::Partial => return done(Fate::AtRisk, "a part of it is in the store"),
                StateOutcome::SavedWithoutEvidence => {
                    return done(
                        Fate::AtRisk,
                        "it is in the store, and nothing shows with which weights it was made",
                    );
                }
                StateOutcome::Earlier => {
                    return done(Fate::AtRisk, "only an earlier generation is in the store");
                }
                StateOutcome::Lost => return done(Fate::AtRisk, "nothing of it is in the store"),
                StateOutcome::None | StateOutcome::Pending => {}
            }
        }
        match fit {
            Some(Fit::By(_)) if self.way == Way::Stays => {
                let why = "not evicted: it serves until the last moment that fits, and is in the store by its cut-off";
                (Fate::Safe, Some(self.cutoff.since(NOW)), why.to_owned())
            }
            Some(Fit::By(at)) => {
                let spare = self.cutoff.since(at);
                (Fate::Safe, Some(at.since(NOW)), format!("in the store {spare} before its cut-off"))
            }
            Some(Fit::Not { needs, has }) => {
                let kept = match self.state.copied {
                    Some(bytes) => format!("; the generation of before holds {bytes} bytes"),
                    None => String::new(),
                };
                (
                    Fate::AtRisk,
                    None,
                    format!("it needs {needs} of the link and has {has} until its cut-off{kept}"),
                )
            }
            Some(Fit::Unknown) => (
                Fate::Unknown,
                None,
                "the link was never measured: nothing has been saved from here yet".into(),
            ),
            None => (self.without_load(), None, self.reason(pod.engine.is_some())),
        }
    }

    fn without_load(&self) -> Fate {
        if self.saves && self.state.bytes.is_none() { Fate::Unknown } else { Fate::None }
    }

    fn reason(&self, opted_in: bool) -> String {
        let pod = &self.state.pod;
        match self.way {
            Way::Stays if !self.saves => pod.stays().unwrap_or_default().to_owned(),
            Way::Shed if pod.role.is_shed() => "its role is shed at once, with nothing saved".into(),
            Way::Shed => "its priority is below what is kept: shed at once, with nothing saved".into(),
            Way::Terminating if !opted_in => "it is being deleted already".into(),
            Way::Late => format!("a late DaemonSet: {} before the deadline", self.deadline.since(self.late)),
            _ if opted_in && !pod.restore_decided => {
                "its restore is not decided: nothing of its own to save".into()
            }
            _ if opted_in && self.state.bytes.is_none() => "nobody has looked at its engine yet".into(),
            _ => "no state of its own".into(),
        }
    }
}

/// The order in which pods leave: those that stay come last.
fn leaving<'a>(facts: &Facts, pod: &PlannedPod<'a>) -> impl Ord + use<'a> {
    let facts_of = &pod.state.pod;
    let priority = i64::from(facts_of.priority);
    let tier = match facts.policy.evict_order {
        EvictOrder::HighestFirst => -priority,
        EvictOrder::LowestFirst => priority,
    };
    let last = matches!(pod.way, Way::Stays | Way::Terminating);
    (
        last,
        pod.way == Way::Late,
        pod.way != Way::Shed,
        tier,
        facts_of.role,
        &facts_of.namespace,
        &facts_of.name,
    )
}

#[cfg(test)]
mod tests;
