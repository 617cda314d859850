//! What was asked for, and what came of it.
//!
//! Decides which effect is worth a line, which effects share one, and which answers repeat the one before.

use super::telling::{Teller, UnansweredEffect};
use super::{Answer, words};
use evacuation::effect::{Action, Effect, EffectId, FlushKind, Hold, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Done, Outcome};
use evacuation::moment::Moment;
use evacuation::pod::PodUid;

impl Teller {
    /// An effect.
    pub(super) fn ask(&mut self, at: Moment, effect: &Effect) {
        let action = &effect.action;
        if let Action::Cancel { effect: target } = action {
            return self.cancelled(at, *target);
        }
        let subject = match action.pod() {
            Some(uid) => self.cast.name(uid),
            None => "node".to_owned(),
        };
        self.remember(action);
        let line = self.line_for(at, &subject, effect);
        self.news.extend(line);
        if let Some(line) = line
            && let Some(line) = self.line(line)
        {
            // Nobody waits for these, and an answer to them says nothing.
            line.open = !matches!(
                action,
                Action::Pod { action: PodAction::AbandonIntent { .. }, .. } | Action::Anomaly { .. }
            );
        }
        self.open.insert(effect.id, UnansweredEffect { asked: at, action: action.clone(), line });
    }

    fn remember(&mut self, action: &Action) {
        let Some(uid) = action.pod() else { return };
        let known = self.known(uid);
        match action {
            Action::Pod { action: PodAction::WriteIntent { .. }, .. } => known.departing = true,
            Action::Pod { action: PodAction::AbandonIntent { .. } | PodAction::Resume, .. } => {
                known.departing = false
            }
            Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. } => {
                known.departing = true;
                known.told_to_go = true;
            }
            Action::Pod { action: PodAction::SetHold { hold, .. }, .. } => {
                known.held = known.departing && *hold != Hold::Released
            }
            _ => {}
        }
    }

    /// The line that the effect's answer goes to.
    fn line_for(&mut self, at: Moment, subject: &str, effect: &Effect) -> Option<usize> {
        let action = &effect.action;
        let known = action.pod().and_then(|uid| self.pods.get(uid));
        let inner = match action {
            Action::Pod { action: PodAction::InspectEngine, .. }
            | Action::Restore { action: RestoreAction::RenewClaim { .. }, .. }
            | Action::Node(NodeAction::Publish(_))
            | Action::Pod { action: PodAction::Publish(_), .. } => true,
            Action::Pod { action: PodAction::SetHold { hold, .. }, .. } => {
                *hold != Hold::Released && !known.is_some_and(|known| known.departing)
            }
            _ => false,
        };
        if inner {
            return None;
        }
        let copying = known.and_then(|known| known.copying);
        let goes_on = matches!(
            action,
            Action::Pod {
                action: PodAction::Save { kind: FlushKind::PreCopy, .. }
                    | PodAction::Commit { kind: FlushKind::PreCopy, .. },
                ..
            }
        );
        if goes_on && copying.is_some() {
            return copying;
        }
        let key = (subject.to_owned(), action.name());
        if effect.attempt > 1
            && let Some(line) = self.tried.get(&key)
        {
            return Some(*line);
        }
        let held = known.is_some_and(|known| known.held);
        let line = self.say(at, subject, words::asked(action, held, self.zero));
        self.tried.insert(key, line);
        if let Action::Pod { uid: pod, action: PodAction::Flush { kind: FlushKind::PreCopy } } = action {
            let known = self.known(pod);
            (known.copying, known.copied) = (Some(line), None);
        }
        Some(line)
    }

    fn cancelled(&mut self, at: Moment, target: EffectId) {
        let Some(open) = self.open.remove(&target) else { return };
        if let Some(uid) = open.action.pod() {
            self.known(uid).copying = None;
        }
        self.close(at, &open, "cancelled".into(), false);
    }

    /// An effect's answer.
    pub(super) fn answered(&mut self, at: Moment, id: EffectId, outcome: &Outcome) {
        let Some(open) = self.open.remove(&id) else { return };
        let done = matches!(outcome, Outcome::Done(_));
        match (&open.action, done) {
            (Action::Node(NodeAction::MarkNode(active_notice)), true) => {
                if let Some(node) = &mut self.node {
                    (node.tainted, node.unschedulable) = (true, node.unschedulable || active_notice.hard);
                }
            }
            (Action::Node(NodeAction::ClearNodeMark { uncordon, .. }), true) => {
                if let Some(node) = &mut self.node {
                    (node.tainted, node.unschedulable) = (false, node.unschedulable && !uncordon);
                }
            }
            (
                Action::Pod { uid: pod, action: PodAction::Evict { .. } | PodAction::DeletePod { .. } },
                true,
            ) => {
                self.known(pod).accepted = Some(at);
            }
            (Action::Node(NodeAction::WriteReport(report)), true) => self.report = Some((**report).clone()),
            _ => {}
        }
        let (text, trouble) = words::answered(&open.action, outcome, at.since(open.asked));
        if let Action::Pod { uid: pod, action: PodAction::InspectEngine } = &open.action {
            return self.inspected(at, &pod.clone(), outcome, text);
        }
        if open.line.is_none() {
            if trouble {
                let subject = open.action.pod().map_or_else(|| "node".to_owned(), |uid| self.cast.name(uid));
                let line = self.say(at, &subject, words::asked(&open.action, false, self.zero));
                self.close(at, &UnansweredEffect { line: Some(line), ..open }, text, true);
            }
            return;
        }
        if matches!(
            open.action,
            Action::Pod { action: PodAction::AbandonIntent { .. }, .. } | Action::Anomaly { .. }
        ) && !trouble
        {
            return;
        }
        let Some(text) = self.pre_copied(&open.action, outcome, text) else { return };
        self.close(at, &open, text, trouble);
    }

    /// The answer to a whole round of pre-copy: `None` while it goes on.
    fn pre_copied(&mut self, action: &Action, outcome: &Outcome, text: String) -> Option<String> {
        let name = match action {
            Action::Pod { action: PodAction::Flush { kind: FlushKind::PreCopy, .. }, .. } => "flush",
            Action::Pod { action: PodAction::Save { kind: FlushKind::PreCopy, .. }, .. } => "save",
            Action::Pod { action: PodAction::Commit { kind: FlushKind::PreCopy, .. }, .. } => "commit",
            _ => return Some(text),
        };
        let known = self.known(action.pod()?);
        match outcome {
            Outcome::Done(Done::Flushed { bytes, .. }) if *bytes > 0 => None,
            Outcome::Done(Done::Saved { .. }) => {
                known.copied = Some(text);
                None
            }
            Outcome::Done(Done::Committed { .. }) => {
                known.copying = None;
                Some(known.copied.take().unwrap_or(text))
            }
            Outcome::Done(_) => Some(text),
            // A commit is tried again.
            _ => Some(format!("{name}: {text}")),
        }
    }

    /// An inspection is told when it says something new that matters.
    fn inspected(&mut self, at: Moment, uid: &PodUid, outcome: &Outcome, text: String) {
        let known = self.known(uid);
        let news = match outcome {
            Outcome::Done(Done::Inspected { state_bytes, busy, .. }) => {
                let before = known.inspected.replace((*state_bytes, *busy));
                known.inspection_fails = false;
                before.is_none_or(|(_, was_busy)| known.departing && was_busy != *busy)
            }
            _ => !std::mem::replace(&mut known.inspection_fails, true),
        };
        if news {
            let name = self.cast.name(uid);
            let line = self.say(at, &name, "inspect".into());
            let answer = Answer { what: text, times: 1, at, trouble: !matches!(outcome, Outcome::Done(_)) };
            self.line(line).into_iter().for_each(|line| line.answers.push(answer.clone()));
        }
    }

    /// Writes an answer to its line; a line that says the same as the one before it becomes part of that one.
    fn close(&mut self, at: Moment, open: &UnansweredEffect, what: String, trouble: bool) {
        let Some(index) = open.line else { return };
        self.news.insert(index);
        let Some(line) = self.line(index) else { return };
        line.open = false;
        match line.answers.last_mut() {
            Some(last) if last.what == what => {
                last.times += 1;
                last.at = at;
            }
            _ => line.answers.push(Answer { what, times: 1, at, trouble }),
        }
        let line = line.clone();
        let before = self.before.get(index).copied().flatten();
        let newest = self.last.get(&line.subject) == Some(&index);
        if let (Some(before), true, [answer]) = (before, newest, line.answers.as_slice())
            && let Some(earlier) = self.line(before)
            && earlier.what == line.what
            && !earlier.open
            && let Some(last) = earlier.answers.last_mut()
            && last.what == answer.what
        {
            last.times += 1;
            last.at = at;
            self.news.insert(before);
            self.last.insert(line.subject, before);
            self.tried.retain(|_, tried| *tried != index);
            self.lines.get_mut(index).into_iter().for_each(|gone| *gone = None);
        }
    }
}
