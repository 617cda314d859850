//! Decides. Nothing here asks the store anything.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use serde::Serialize;

use super::{
    Policy,
    look::{FoundGeneration, FoundLineage, Inventory},
};
use crate::{
    claim::{ClaimState, Holder},
    hash::ContentHash,
    intent::IntentState,
    key::{GenerationNumber, LineageId},
    tombstone::Subject,
};

/// S3 tells time in whole seconds: two stamps may be a second closer than they seem.
const STAMP_SLACK: Duration = Duration::from_secs(1);
/// How the uid begins under which a collector claims a lineage. No pod's does.
const COLLECTOR: &str = "collector:";

/// What a pass does to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Something names it again: its tombstone goes.
    Withdraw(#[serde(serialize_with = "text")] Subject),
    /// A generation goes.
    Generation {
        /// Of which lineage.
        lineage: LineageId,
        /// Which.
        #[serde(serialize_with = "text")]
        number: GenerationNumber,
    },
    /// A lineage goes with its generations, intent and claim.
    Lineage(LineageId),
    /// Nothing names it: it gets a tombstone.
    Mark(#[serde(serialize_with = "text")] Subject),
    /// It goes; its tombstone has stood long enough.
    Remove(#[serde(serialize_with = "text")] Subject),
    /// It is gone for long: its tombstone goes.
    Bury(#[serde(serialize_with = "text")] Subject),
}

/// One action with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GarbageStep {
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
    /// Bytes that this frees now.
    pub bytes: u64,
    /// Why, for people.
    pub why: String,
}

/// What is garbage and has to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Which object.
    #[serde(serialize_with = "text")]
    pub subject: Subject,
    /// Its size in bytes; zero if it is gone and only its name is kept out of use.
    pub bytes: u64,
    /// How much longer by the store's clock, in seconds.
    pub seconds: u64,
    /// For what.
    pub why: String,
}

/// How a lineage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retention {
    /// A checkpoint is coming, or a restore or a removal is under way.
    Busy,
    /// A newer lifeboat wrote to it.
    Newer,
    /// A collector began to remove it and did not end.
    Begun,
    /// Its state was handed over, and nothing was committed since.
    Restored,
    /// Its newest generation is the parent of another lineage's.
    Superseded,
    /// It has no generation, and none is coming.
    Empty,
    /// There is a state that nobody took.
    Unclaimed,
}

/// What a pass does, and why it does no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order in which they are done.
    pub steps: Vec<GarbageStep>,
    /// Garbage that is not removed yet.
    pub waiting: Vec<Waiting>,
    /// Generations that stay.
    pub generations_kept: usize,
    /// Packs and manifests that they name and that are there.
    pub objects_kept: usize,
    /// Their bytes.
    pub bytes_kept: u64,
    /// Why packs and manifests are left alone in this pass, if they are.
    pub blocked: Vec<String>,
}

pub(super) fn plan(inventory: &Inventory, policy: &Policy) -> Plan {
    let mut plan = Plan::default();
    let (mut live, mut named) = (Named::default(), Named::default());
    for lineage in &inventory.lineages {
        let standing = stand(lineage, inventory, policy);
        let going = going(lineage, standing, inventory, policy);
        if let Going::Whole(why) = &going {
            let bytes = lineage.generations.iter().map(|generation| generation.seen.size).sum();
            plan.push(Action::Lineage(lineage.id.clone()), bytes, why.clone());
        }
        if standing == Retention::Newer {
            plan.blocked.push(format!("lineage {} was written by a newer lifeboat: upgrade", lineage.id));
        }
        for generation in &lineage.generations {
            let goes = match &going {
                Going::Whole(_) => true,
                Going::Some(numbers) => numbers.contains(&generation.number),
            };
            if goes && matches!(going, Going::Some(_)) {
                let (lineage, number) = (lineage.id.clone(), generation.number);
                let why = format!("beyond the last {} of its lineage", policy.keep);
                plan.push(Action::Generation { lineage, number }, generation.seen.size, why);
            }
            if let Err(why) = named.add(generation) {
                plan.blocked.push(format!("lineage {} generation {}: {why}", lineage.id, generation.number));
            }
            if !goes {
                plan.generations_kept += 1;
                let _ = live.add(generation);
            }
        }
    }
    plan.objects(inventory, policy, &live, &named);
    plan.steps.sort_by_key(|step| step.action.turn());
    plan
}

impl Plan {
    fn push(&mut self, action: Action, bytes: u64, why: String) {
        self.steps.push(GarbageStep { action, bytes, why });
    }

    fn objects(&mut self, inventory: &Inventory, policy: &Policy, live: &Named, named: &Named) {
        let grace = policy.grace.saturating_add(STAMP_SLACK);
        let burial = policy.burial.max(policy.grace).saturating_add(STAMP_SLACK);
        let subjects = inventory.objects.keys().chain(inventory.tombstones.keys());
        let subjects: BTreeSet<Subject> = subjects.copied().collect();
        for subject in subjects {
            let object = inventory.objects.get(&subject);
            let bytes = object.map_or(0, |object| object.size);
            let age = object.map_or(Duration::MAX, |object| inventory.age(object.modified));
            let marked = inventory.tombstones.get(&subject).map(|mark| inventory.age(mark.modified));
            let mut wait = |left: Duration, why: &str| {
                let seconds = left.as_secs().max(1);
                self.waiting.push(Waiting { subject, bytes, seconds, why: why.to_owned() });
            };
            if live.has(subject) {
                if object.is_some() {
                    (self.objects_kept, self.bytes_kept) = (self.objects_kept + 1, self.bytes_kept + bytes);
                }
                if marked.is_some() {
                    self.push(Action::Withdraw(subject), 0, "a kept generation names it".to_owned());
                }
                continue;
            }
            if !self.blocked.is_empty() {
                continue;
            }
            match marked {
                None if age < grace => wait(grace - age, "nothing names it yet; a save may be under way"),
                None => self.push(Action::Mark(subject), 0, "no kept generation names it".to_owned()),
                Some(_) if named.has(subject) => wait(grace, "until the generation that names it is removed"),
                // Whoever sent it again did not know of the tombstone: it begins anew.
                Some(mark) if object.is_some() && mark.min(age) < grace => {
                    wait(grace - mark.min(age), "its tombstone has to stand for the grace");
                }
                Some(_) if object.is_some() => {
                    let why = "nothing named it for the whole grace".to_owned();
                    self.push(Action::Remove(subject), bytes, why);
                }
                Some(mark) if mark < burial => wait(burial - mark, "removed; its name stays out of use"),
                Some(_) => self.push(Action::Bury(subject), 0, "removed long enough ago".to_owned()),
            }
        }
    }
}

impl Action {
    /// What is named comes before what goes, and generations go before what they name.
    pub(super) fn turn(&self) -> u8 {
        match self {
            Self::Withdraw(_) => 0,
            Self::Generation { .. } | Self::Lineage(_) => 1,
            Self::Mark(_) => 2,
            Self::Remove(_) => 3,
            Self::Bury(_) => 4,
        }
    }
}

/// What some generations name.
#[derive(Default)]
struct Named {
    manifests: HashSet<ContentHash>,
    packs: HashSet<ContentHash>,
}

impl Named {
    fn add<'a>(&mut self, generation: &'a FoundGeneration) -> Result<(), &'a str> {
        let document = generation.document.as_ref().map_err(String::as_str)?;
        self.manifests.insert(document.manifest);
        self.packs.extend(generation.packs.as_ref().map_err(String::as_str)?.iter());
        Ok(())
    }

    fn has(&self, subject: Subject) -> bool {
        match subject {
            Subject::Pack(hash) => self.packs.contains(&hash),
            Subject::Manifest(hash) => self.manifests.contains(&hash),
        }
    }
}

/// What goes of a lineage.
enum Going {
    Whole(String),
    Some(HashSet<GenerationNumber>),
}

fn going(lineage: &FoundLineage, standing: Retention, inventory: &Inventory, policy: &Policy) -> Going {
    let age = lineage.last_written().map_or(Duration::MAX, |modified| inventory.age(modified));
    let (after, what) = match standing {
        Retention::Busy | Retention::Newer => return Going::Some(HashSet::new()),
        Retention::Begun => return Going::Whole("its removal was begun".to_owned()),
        Retention::Restored => (policy.restored, "it was restored"),
        Retention::Superseded => (policy.restored, "another lineage continues it"),
        Retention::Empty => (policy.restored, "it has no generation"),
        Retention::Unclaimed => (policy.retention, "nobody took it"),
    };
    if age >= after.saturating_add(STAMP_SLACK) {
        return Going::Whole(format!("{what}, and nothing was written for {} s", age.as_secs()));
    }
    let mut gone = beyond(&lineage.generations, policy.keep.max(1));
    for number in set_aside(&lineage.generations, inventory, policy) {
        gone.remove(&number);
    }
    Going::Some(gone)
}

/// The generations beyond the last `keep` that can be read. If those are all partial, the newest whole one stays too.
fn beyond(generations: &[FoundGeneration], keep: usize) -> HashSet<GenerationNumber> {
    let readable = || generations.iter().filter_map(|found| found.document.as_ref().ok());
    let Some(last) = readable().nth(keep - 1) else { return HashSet::new() };
    let whole = match readable().take(keep).all(|generation| generation.partial) {
        true => readable().find(|generation| !generation.partial).map(|generation| generation.number),
        false => None,
    };
    let numbers = generations.iter().map(|found| found.number);
    numbers.filter(|number| *number < last.number && Some(*number) != whole).collect()
}

/// The last generations of what a lineage held before a pod began it anew, without its state: they stay as long as a lineage
/// that nobody took. A StatefulSet's pod writes on under its name, also where its gate was opened because the store did
/// not answer.
fn set_aside(
    generations: &[FoundGeneration],
    inventory: &Inventory,
    policy: &Policy,
) -> Vec<GenerationNumber> {
    let readable: Vec<_> =
        generations.iter().filter_map(|found| Some((found, found.document.as_ref().ok()?))).collect();
    let anew = readable.windows(2).enumerate().filter(|(_, pair)| {
        let ((newer, document), (older, _)) = (pair[0], pair[1]);
        let epoch = newer.number.epoch;
        // The first of its epoch may be gone: that one would say what it continues. It goes together with what it does.
        let continues = document.parent.as_ref().is_some_and(|parent| parent.generation.epoch < epoch);
        older.number.epoch < epoch && !continues
    });
    let mut kept = Vec::new();
    for (at, pair) in anew {
        if inventory.age(pair[1].0.seen.modified) < policy.retention.saturating_add(STAMP_SLACK) {
            let last = readable.iter().skip(at + 1).take(policy.keep.max(1));
            kept.extend(last.map(|(found, _)| found.number));
        }
    }
    kept
}

fn stand(lineage: &FoundLineage, inventory: &Inventory, policy: &Policy) -> Retention {
    let head = lineage.generations.iter().find_map(|found| found.document.as_ref().ok());
    let claim = lineage.claim.as_ref().and_then(|(_, read)| read.as_ref().ok());
    if lineage.newer {
        return Retention::Newer;
    }
    if let (Some(found), Some((seen, _))) = (claim, &lineage.claim) {
        if found.claim.state == ClaimState::Restoring && !found.expired() {
            return Retention::Busy;
        }
        // Its decision holds for what was as old as it had to be when the collector claimed the lineage. What was committed
        // since, or between its look and its claim, is judged anew.
        let old = |modified: jiff::Timestamp| {
            let age: Duration = seen.modified.duration_since(modified).try_into().unwrap_or_default();
            policy.restored.min(policy.retention) <= age
        };
        if is_collector(&found.claim.holder) && lineage.last_written().is_none_or(old) {
            return Retention::Begun;
        }
    }
    if let Some((_, Ok(found))) = &lineage.intent
        && found.intent.state == IntentState::Coming
        && found.time_left().is_some()
    {
        return Retention::Busy;
    }
    // A claim may be taken while the checkpoint is still coming; then both have one epoch, and only a commit of the
    // holder itself is newer than its restore.
    let restored = claim.is_some_and(|found| {
        let (epoch, holder) = (found.claim.epoch, &found.claim.holder);
        let before = |number: GenerationNumber, uid: &str| {
            number.epoch < epoch || (number.epoch == epoch && uid != holder.pod_uid)
        };
        found.claim.state == ClaimState::Done
            && !is_collector(holder)
            && head.is_none_or(|head| before(head.number, &head.source.uid))
    });
    match head {
        _ if restored => Retention::Restored,
        Some(head) if continued(lineage, head.number, inventory) => Retention::Superseded,
        Some(_) => Retention::Unclaimed,
        // What cannot be read may be a state.
        None if !lineage.generations.is_empty() => Retention::Unclaimed,
        None => Retention::Empty,
    }
}

/// Whether another lineage was built on the newest generation of this one.
fn continued(lineage: &FoundLineage, head: GenerationNumber, inventory: &Inventory) -> bool {
    let others = inventory.lineages.iter().filter(|other| other.id != lineage.id);
    let mut parents = others
        .flat_map(|other| &other.generations)
        .filter_map(|found| found.document.as_ref().ok()?.parent.as_ref());
    parents.any(|parent| parent.lineage == lineage.id && parent.generation >= head)
}

impl FoundLineage {
    /// When somebody wrote to it last. A collector's claim does not count: it must not lengthen what it ends.
    fn last_written(&self) -> Option<jiff::Timestamp> {
        let collector = |read: &super::look::Read<crate::claim::FoundClaim>| {
            read.as_ref().is_ok_and(|found| is_collector(&found.claim.holder))
        };
        let claim = self.claim.as_ref().filter(|(_, read)| !collector(read)).map(|(seen, _)| seen);
        let intent = self.intent.as_ref().map(|(seen, _)| seen);
        let generations = self.generations.iter().map(|found| &found.seen);
        generations.chain(claim).chain(intent).map(|seen| seen.modified).max()
    }
}

/// Under whose name a collector claims a lineage that it removes.
pub(super) fn holder(collector: &str) -> Holder {
    let pod_uid = format!("{COLLECTOR}{}", crate::hash::nonce());
    Holder { pod_uid, pod_name: collector.chars().take(200).collect(), node: String::new() }
}

fn is_collector(holder: &Holder) -> bool {
    holder.pod_uid.starts_with(COLLECTOR)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn text<S: serde::Serializer, T: std::fmt::Display>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests;
