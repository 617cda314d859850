//! Guarantees 5 and 6: the state itself.

use super::{Finding, unless};
use crate::cast::{CAST, Member, Place};

use crate::observation::Observation;
use crate::scene::Ending;
use crate::trail::{Conversation, Trail};
use evacuation::effect::{Action, RestoreAction};
use evacuation::report::StateOutcome;
use std::collections::BTreeMap;

/// The share of saved tokens that must come from the cache.
const REUSED: f64 = 0.99;

/// Tokens that come from an engine's own cache without any restore: llama-server looks for the longest common prefix
/// in what a slot held before, and the weights probe and a conversation both begin with the same few tokens.
const IN_COMMON: u64 = 8;

/// The reason of a restore into something else.
const REFUSED: &str = "Refused";

/// Every generation in the store is fetched and every byte of it verified.
pub fn verifies(observation: &Observation) -> Finding {
    if let Some(why) = &observation.store.unreadable {
        return Finding::Broken(format!("the store cannot be read at the end: {why}"));
    }
    let mut wrong = Vec::new();
    let mut excused = Vec::new();
    for stored in &observation.store.generations {
        if let Err(why) = &stored.content {
            let text = format!("{} {}: {why}", stored.workload, stored.number);
            // A store that tears what it acknowledges is found out by the reader: nothing of it was restored.
            let torn = observation.scene.has("store-torn") || observation.scene.has("store-gone");
            if torn { excused.push(text) } else { wrong.push(text) }
        }
    }
    if wrong.is_empty() && !excused.is_empty() {
        return Finding::Excused(format!("refused by name: {}", excused.join("; ")));
    }
    let count = observation.store.generations.len();
    unless(wrong, || format!("{count} generations, every byte fetched again"))
}

/// The bytes of each whole generation are those of a flush.
pub fn committed_bytes(observation: &Observation) -> Finding {
    let mut wrong = Vec::new();
    let mut count = 0;
    for stored in &observation.store.generations {
        let trail = observation.trails.iter().find(|trail| trail.uid == stored.source_uid);
        let (Some(trail), Ok(content), false) = (trail, &stored.content, stored.partial) else { continue };
        // Real engines' files cannot be compared with what is in the engine: their conversation is.
        if trail.flushes.is_empty() {
            continue;
        }
        count += 1;
        if !trail.flushes.iter().any(|flush| flush.digest == *content) {
            wrong.push(format!(
                "{} {} is not what {} had at any flush",
                stored.workload, stored.number, trail.pod
            ));
        }
    }
    if count == 0 && wrong.is_empty() {
        return Finding::NotApplicable("no generation can be compared with a flush".to_owned());
    }
    unless(wrong, || format!("{count} generations compared"))
}

/// The most important state.
pub fn gold(observation: &Observation) -> Finding {
    moved(observation, &CAST[0])
}

/// The other one.
pub fn silver(observation: &Observation) -> Finding {
    moved(observation, &CAST[1])
}

fn moved(observation: &Observation, member: &Member) -> Finding {
    let ending = observation.scene.ending();
    if matches!(ending, Ending::Hibernated | Ending::Recommended) {
        return Finding::NotApplicable("nothing was to leave".to_owned());
    }
    let Some(source) = observation.leaving(member) else {
        return Finding::Broken(format!("{} was never there", member.name));
    };
    if source.terminating.is_none() && matches!(ending, Ending::Withdrawn(_)) {
        return Finding::NotApplicable("it had not begun to leave when the notice was withdrawn".to_owned());
    }
    let excuse = observation.scene.excuse(member.name);
    let reported = observation.reported(&source.uid);
    let lost =
        reported.filter(|pod| pod.state != StateOutcome::Saved).and_then(|pod| pod.state_reason.clone());
    let Some(replacement) = observation.replacement(member) else {
        return refused(excuse, lost, "it has no replacement".to_owned());
    };
    let Some(decided) = &replacement.decided else {
        return refused(excuse, lost, "its restore was never decided".to_owned());
    };
    let why = match decided.message.as_str() {
        "" => decided.reason.clone(),
        message => format!("{}: {message}", decided.reason),
    };
    if let Some(conversation) = &replacement.conversation {
        return talked(observation, member, conversation, &why);
    }
    if observation.scene.swapped(member.name) && decided.reason != REFUSED {
        return Finding::Broken(format!("other weights were to be refused by name: {why}"));
    }
    if !decided.reason.starts_with("Restored") {
        let because = lost.map_or(why.clone(), |lost| format!("{why}; saved: {lost}"));
        return refused(excuse, Some(because), why);
    }
    let empty = blake3::hash(b"").to_hex();
    if decided.digest.as_deref() == Some(empty.as_str()) {
        return emptied(observation, source, excuse, empty.as_str());
    }
    let last = source.flushes.iter().rev().find(|flush| flush.last).map(|flush| &flush.digest);
    let arrived = decided.digest.as_ref();
    match (last, arrived) {
        (Some(last), Some(arrived)) if last == arrived => {
            Finding::Held(format!("{why}; blake3 {}…", &last[..12.min(last.len())]))
        }
        (_, Some(arrived)) if source.flushes.iter().any(|flush| flush.digest == *arrived) => refused(
            excuse,
            Some("an earlier flush was restored".to_owned()),
            "an earlier flush was restored".to_owned(),
        ),
        (Some(last), Some(arrived)) => Finding::Broken(format!(
            "flushed blake3 {}…, the replacement has {}…",
            &last[..12.min(last.len())],
            &arrived[..12.min(arrived.len())]
        )),
        _ => Finding::Broken(format!("{why}, and nothing shows what arrived")),
    }
}

/// An engine that lost its state has nothing to flush: that must not take the place of what was saved before.
fn emptied(observation: &Observation, source: &Trail, excuse: Option<String>, empty: &str) -> Finding {
    let own = observation.store.generations.iter().filter(|stored| stored.source_uid == source.uid);
    let full = own.into_iter().find(|stored| stored.content.as_ref().is_ok_and(|content| content != empty));
    match full {
        Some(full) => Finding::Broken(format!(
            "an empty state was restored, and generation {} with {} was there",
            full.number,
            bytesize::ByteSize(full.bytes)
        )),
        None => {
            let lost = "its engine had lost its state, and nothing was saved before".to_owned();
            refused(excuse, Some(lost.clone()), lost)
        }
    }
}

/// Not moved: excused if the plan made it so and a reason is given.
fn refused(excuse: Option<String>, reason: Option<String>, what: String) -> Finding {
    match (excuse, reason) {
        (Some(fault), Some(reason)) => Finding::Excused(format!("{fault}: not moved: {reason}")),
        (Some(fault), None) => Finding::Broken(format!("{fault}: {what}, and no reason is given")),
        (None, _) => Finding::Broken(what),
    }
}

/// A real engine is asked: what it had in its cache, and whether it goes on as the source would have.
fn talked(observation: &Observation, member: &Member, conversation: &Conversation, why: &str) -> Finding {
    let share = conversation.cached as f64 / conversation.saved.max(1) as f64;
    let text = format!("{why}; {} of {} tokens from the cache", conversation.cached, conversation.saved);
    let (swapped, off) = (observation.scene.swapped(member.name), !observation.scene.restores);
    match (swapped || off, share >= REUSED) {
        // With other weights it cannot continue the same, and must not have tried with this state.
        (true, _) if conversation.cached <= IN_COMMON && (off || why.starts_with(REFUSED)) => {
            Finding::Excused(text)
        }
        (true, _) => Finding::Broken(format!("it was to be refused by name: {text}")),
        (false, true) if conversation.same => Finding::Held(format!("{text}, continued identically")),
        (false, true) => Finding::Broken(format!("{text}, and it continued differently")),
        (false, false) => Finding::Broken(text),
    }
}

/// No lineage is restored into two pods, no pod twice.
pub fn once(observation: &Observation) -> Finding {
    let mut handed: BTreeMap<String, u32> = BTreeMap::new();
    let mut lineages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for recording in [&observation.source, &observation.target] {
        for answered in recording.effects().filter(|answered| answered.done().is_some()) {
            match &answered.effect.action {
                Action::Restore { uid: pod, action: RestoreAction::ImportState } => {
                    *handed.entry(pod.0.clone()).or_default() += 1
                }
                Action::Restore { uid: pod, action: RestoreAction::FinishClaim { lineage } } => {
                    let pods = lineages.entry(lineage.clone()).or_default();
                    if !pods.contains(&pod.0) {
                        pods.push(pod.0.clone());
                    }
                }
                _ => {}
            }
        }
    }
    let name = |uid: &str| {
        observation
            .trails
            .iter()
            .find(|trail| trail.uid == uid)
            .map_or(uid.to_owned(), |trail| trail.pod.clone())
    };
    let mut wrong: Vec<String> = Vec::new();
    for (uid, times) in &handed {
        // An agent that was killed between handing over and noting it hands over again: the engine is told once more.
        let again = observation.target_lives.len() as u32;
        if *times > again {
            wrong.push(format!("{} was handed its state {times} times", name(uid)));
        }
    }
    for (lineage, pods) in lineages.iter().filter(|(_, pods)| pods.len() > 1) {
        let names: Vec<String> = pods.iter().map(|uid| name(uid)).collect();
        wrong.push(format!("lineage {lineage} went to {}", names.join(" and ")));
    }
    let replacements = observation.trails.iter().filter(|trail| trail.place == Place::Replacement);
    let restored = replacements
        .filter(|trail| trail.decided.as_ref().is_some_and(|decided| decided.reason.starts_with("Restored")));
    let restored = restored.count();
    if restored == 0 && wrong.is_empty() {
        return Finding::NotApplicable("nothing was restored".to_owned());
    }
    unless(wrong, || format!("{restored} pods, each from one lineage"))
}
