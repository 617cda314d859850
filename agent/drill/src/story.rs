//! An agent's journal in words.

use super::chronicle::Happening;
use super::recording::Line;
use evacuation::effect::{Action, Effect, EffectId, FlushKind, Hold};
use evacuation::event::{Done, Event, FailureKind, Outcome};
use evacuation::moment::Moment;
use std::collections::BTreeMap;

/// Turns the lines of one node's journal into happenings.
#[derive(Debug)]
pub struct Teller {
    node: &'static str,
    names: BTreeMap<String, String>,
    pending: BTreeMap<EffectId, Effect>,
}

impl Teller {
    /// A teller of this node's journal.
    pub fn new(node: &'static str) -> Self {
        Self { node, names: BTreeMap::new(), pending: BTreeMap::new() }
    }

    /// What the line means to people; `None` for the inner workings.
    pub fn tell(&mut self, line: &Line) -> Option<Happening> {
        let (subject, what, trouble) = match (&line.event, &line.effect) {
            (Some(event), _) => self.event(line.at, event)?,
            (None, Some(effect)) => {
                self.pending.insert(effect.id, effect.clone());
                self.begun(&effect.action)?
            }
            (None, None) => return None,
        };
        Some(Happening { at: line.at, subject, what, trouble })
    }

    fn event(&mut self, at: Moment, event: &Event) -> Option<(String, String, bool)> {
        match event {
            Event::Started(_) => {
                self.pending.clear();
                Some((self.node.to_owned(), "its agent has read the node".to_owned(), false))
            }
            Event::PodUpdated(facts) => {
                self.names.insert(facts.uid.0.clone(), facts.name.clone());
                None
            }
            Event::NoticeReceived(notice) => {
                let left = notice.left_ms as f64 / 1000.0;
                Some((
                    self.node.to_owned(),
                    format!("its agent sees: {}, {left:.1} s left", notice.kind.as_str()),
                    false,
                ))
            }
            Event::NoticeWithdrawn { .. } => {
                Some((self.node.to_owned(), "its agent sees the notice withdrawn".to_owned(), false))
            }
            Event::Answered { id, outcome } => {
                let effect = self.pending.remove(id)?;
                self.answered(at, &effect, outcome)
            }
            _ => None,
        }
    }

    fn begun(&self, action: &Action) -> Option<(String, String, bool)> {
        let subject = self.subject(action);
        let what = match action {
            Action::SetHold { hold: Hold::Released, .. } => "is released from its hold".to_owned(),
            Action::Quiesce { .. } => "takes no new work".to_owned(),
            Action::Anomaly { what } => return Some((subject, format!("anomaly: {what}"), true)),
            _ => return None,
        };
        Some((subject, what, false))
    }

    fn answered(&self, at: Moment, effect: &Effect, outcome: &Outcome) -> Option<(String, String, bool)> {
        let subject = self.subject(&effect.action);
        let action = &effect.action;
        let done = match outcome {
            Outcome::Done(done) => done,
            Outcome::Failed { kind: FailureKind::Refused, .. } if matches!(action, Action::Evict { .. }) => {
                return Some((subject, "its eviction is refused by its disruption budget".to_owned(), false));
            }
            // A lost race, a pod that is gone: part of the game, and retried.
            Outcome::Failed { kind: FailureKind::NotFound, .. } => return None,
            Outcome::Failed { kind, why } => {
                return Some((subject, format!("{} failed ({}): {why}", action.name(), kind.as_str()), true));
            }
            Outcome::TimedOut => {
                return Some((subject, format!("{} came to no end in time", action.name()), true));
            }
            Outcome::Panicked => return Some((subject, format!("{} panicked", action.name()), true)),
        };
        let what = match (action, done) {
            (Action::MarkNode(active_notice), _) => {
                let left = active_notice.deadline.left(at).as_millis() as f64 / 1000.0;
                let how = if active_notice.is_hard() {
                    "cordoned, tainted and annotated"
                } else {
                    "softly tainted"
                };
                format!("is {how}; deadline in {left:.1} s")
            }
            (Action::ClearNodeMark { uncordon }, _) => {
                format!("is as before{}", if *uncordon { ", schedulable again" } else { "" })
            }
            (Action::WriteIntent { .. }, _) => "is announced: a checkpoint is coming".to_owned(),
            (Action::AbandonIntent { why, .. }, _) => format!("is taken back: {why}"),
            (Action::Evict { grace, .. }, _) => format!("is evicted, grace {} s", grace.as_secs()),
            (Action::DeletePod { grace, .. }, _) => {
                format!("is deleted at its cut-off, grace {} s", grace.as_secs())
            }
            (Action::Flush { kind, .. }, Done::Flushed { bytes }) => {
                let round = if *kind == FlushKind::Final { "" } else { " while serving" };
                format!("flushed {}{round}", bytesize::ByteSize(*bytes))
            }
            (Action::Save { .. }, Done::Saved { sent, left_out, .. }) => {
                format!(
                    "sent {}{}",
                    bytesize::ByteSize(*sent),
                    if left_out.is_none() { "" } else { ", not all of it" }
                )
            }
            (Action::Commit { partial, .. }, Done::Committed { bytes, .. }) => {
                format!("committed {}{}", bytesize::ByteSize(*bytes), if *partial { ", partial" } else { "" })
            }
            (Action::WriteReport(report), _) => {
                format!("the report is written{}", if report.complete { "" } else { ", incomplete so far" })
            }
            (Action::Claim { lineage, .. }, _) => format!("claims lineage {lineage}"),
            (Action::Prefetch { .. } | Action::Fetch { .. }, Done::Fetched { bytes }) => {
                format!("fetched {}", bytesize::ByteSize(*bytes))
            }
            (Action::CheckFingerprint { .. }, _) => "has the same fingerprint".to_owned(),
            (Action::ImportState { .. }, _) => "its engine has taken the state".to_owned(),
            (Action::Verify { .. }, _) => "its engine shows that it uses the state".to_owned(),
            (Action::OpenGate { outcome, message, .. }, _) => {
                let more = if message.is_empty() { String::new() } else { format!(": {message}") };
                format!("its gate opens: {}{more}", outcome.as_str())
            }
            _ => return None,
        };
        Some((subject, what, false))
    }

    fn subject(&self, action: &Action) -> String {
        let uid = action.pod().map(|pod| pod.0.as_str());
        let name = uid.map(|uid| self.names.get(uid).map_or(uid, String::as_str));
        name.unwrap_or(self.node).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::pod::PodUid;

    #[test]
    fn an_answer_is_told_with_what_it_answers() {
        let at = Moment::from_millis(1);
        let mut teller = Teller::new("node-a");
        let action = Action::Commit { pod: PodUid("u".into()), kind: FlushKind::Final, partial: false };
        let effect = Effect { id: EffectId(7), deadline: at, attempt: 1, action };
        assert_eq!(teller.tell(&Line { at, event: None, effect: Some(effect) }), None);
        let outcome = Outcome::Done(Done::Committed { generation: "g".into(), bytes: 1024 });
        let answer = Event::Answered { id: EffectId(7), outcome };
        let told = teller.tell(&Line { at, event: Some(answer.clone()), effect: None }).unwrap();
        assert!(told.what.starts_with("committed 1.0 KiB"), "{}", told.what);
        assert_eq!(teller.tell(&Line { at, event: Some(answer), effect: None }), None, "answered once");
    }
}
