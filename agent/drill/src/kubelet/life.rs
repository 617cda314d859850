//! One pod, from its binding to its end.

use super::{Node, status};
use crate::cast::{GATE, Member, Part, Place, VOLUME};
use crate::engine_room::Engine;
use crate::trail::{Decided, Flushed};
use evacuation::moment::Span;
use fakes::apiserver::status::Refusal;
use fakes::sidecar::Behaviour;
use host::clock;
use jiff::Timestamp;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a pod is looked after: its work, its engine's troubles, its gate.
const BEAT: Duration = Duration::from_millis(20);

/// How long after the notice the last answer is complete that was under way.
const ANSWER: Span = Span::from_millis(1500);

/// How often its engine's state changes, in beats.
const WORK_EVERY: u32 = 5;

struct Life {
    node: Arc<Node>,
    member: &'static Member,
    name: String,
    namespace: String,
    uid: String,
    volume: PathBuf,
    ip: String,
    engine: Engine,
    restarts: u32,
    flushes_seen: usize,
    troubles: Vec<Trouble>,
}

/// One trouble with the engine, in time after the notice.
struct Trouble {
    from: Span,
    until: Option<Span>,
    behaviour: Behaviour,
    begun: bool,
}

/// Lives the life of `pod`.
pub async fn live(node: Arc<Node>, pod: Arc<Value>) {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, namespace, uid) = (text("/metadata/name"), text("/metadata/namespace"), text("/metadata/uid"));
    let Some(member) = Member::of(&name) else { return };
    node.trails.begin(member.name, &name, &uid, node.place);
    let directory = node.root.join("pods").join(&uid);
    let volume = directory.join("volumes/kubernetes.io~empty-dir").join(VOLUME);
    if let Err(error) = std::fs::create_dir_all(&volume) {
        node.chronicle.warn(&name, format!("its volume cannot be made: {error}"));
        return;
    }
    // The volume is there before the image is: a restore can begin meanwhile.
    tokio::time::sleep(node.pull).await;
    let ip = node.addresses.next();
    let engine = match node.engines.start(member, node.place, ip, node.port, &volume).await {
        Ok(engine) => engine,
        Err(error) => {
            node.chronicle.warn(&name, format!("its container does not start: {error}"));
            return;
        }
    };
    if let (Engine::Llama(server), Place::Source) = (&engine, node.place)
        && let Err(error) = server.begin_conversation().await
    {
        node.chronicle.warn(&name, format!("its conversation does not begin: {error}"));
        return;
    }
    let troubles = if node.place == Place::Source { node.engines.troubles(member) } else { Vec::new() };
    let troubles =
        troubles.into_iter().map(|(from, until, behaviour)| Trouble { from, until, behaviour, begun: false });
    let mut life = Life {
        node,
        member,
        name,
        namespace,
        uid,
        volume,
        ip: ip.to_string(),
        engine,
        restarts: 0,
        flushes_seen: 0,
        troubles: troubles.collect(),
    };
    life.write_running();
    life.serve().await;
    life.end(&directory).await;
}

impl Life {
    /// Runs until the pod is deleted.
    async fn serve(&mut self) {
        let mut beat = tokio::time::interval(BEAT);
        let mut beats = 0_u32;
        loop {
            beat.tick().await;
            let Some(pod) = self.pod() else { return };
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64();
                self.node.trails.note(&self.uid, |trail| {
                    trail.terminating = Some(clock::now());
                    trail.grace = grace;
                });
                return;
            }
            self.look_after(&pod);
            beats = beats.wrapping_add(1);
            if beats.is_multiple_of(WORK_EVERY) && self.serves(&pod) {
                self.engine.work();
            }
        }
    }

    /// Waits as its preStop does, then ends: containers, volume, object.
    async fn end(mut self, directory: &Path) {
        let grace = self.node.trails.of(&self.uid).and_then(|trail| trail.grace).unwrap_or(30);
        // Decided once: what is asked for later does not shorten it.
        let over = clock::now() + Span::from_secs(grace);
        let holds = matches!(self.member.part, Part::HeldState);
        let mut beats = 0_u32;
        while holds && held(&self.volume.join(".lifeboat/hold"), Timestamp::now()) && clock::now() < over {
            tokio::time::sleep(BEAT).await;
            beats = beats.wrapping_add(1);
            if let Some(pod) = self.pod() {
                self.look_after(&pod);
            }
            // A terminating pod goes on with what it has: its engine runs.
            if beats.is_multiple_of(WORK_EVERY) {
                self.engine.work();
            }
        }
        let released = clock::now();
        self.note_flushes();
        self.node.trails.note(&self.uid, |trail| {
            trail.released = Some(released);
            trail.killed = holds && released >= over;
        });
        if holds && released >= over {
            self.node.chronicle.warn(&self.name, "its grace is over: killed");
        }
        let stopping = self.engine.stop();
        if tokio::time::timeout(clock::duration(over.left(released)).max(Duration::from_millis(50)), stopping)
            .await
            .is_err()
        {
            self.node.trails.note(&self.uid, |trail| trail.killed = true);
        }
        if let Err(error) = std::fs::remove_dir_all(directory) {
            tracing::debug!(%error, "the volume stays");
        }
        self.node.storage.remove("pods", &self.namespace, &self.name, &self.uid);
        self.node.trails.note(&self.uid, |trail| trail.gone = Some(clock::now()));
        self.node.chronicle.say(&self.name, "is gone");
    }

    /// It has state to change: a replacement only after its restore is decided.
    fn serves(&self, pod: &Value) -> bool {
        self.node.place == Place::Source || status::gates_open(pod)
    }

    /// Everything that a beat looks at.
    fn look_after(&mut self, pod: &Value) {
        self.note_flushes();
        self.note_decision(pod);
        self.trouble();
    }

    fn write_running(&self) {
        self.update(|pod| status::running(pod, &self.ip, self.restarts));
        self.node.trails.note(&self.uid, |trail| trail.started = Some(clock::now()));
        self.node.chronicle.say(&self.name, format!("runs on {}", self.node.name));
        self.note_ready();
    }

    /// What a flush writes is what the engine has at that moment.
    fn note_flushes(&mut self) {
        let Engine::Sidecar(sidecar) = &self.engine else { return };
        let calls = sidecar.calls();
        self.node.trails.note(&self.uid, |trail| trail.calls = calls.len());
        let flushes: Vec<_> = calls.iter().filter(|call| call.path.ends_with("/flush")).collect();
        for call in flushes.iter().skip(self.flushes_seen) {
            let last = call.body["round"] == "final";
            let flushed = Flushed { at: call.at, last, digest: sidecar.state_digest() };
            self.node.trails.note(&self.uid, |trail| trail.flushes.push(flushed));
        }
        self.flushes_seen = flushes.len();
    }

    /// The restore is decided: what the engine has now is what arrived.
    fn note_decision(&self, pod: &Value) {
        let decided = status::condition(pod, GATE).filter(|condition| condition["status"] == "True");
        let known = self.node.trails.of(&self.uid).is_some_and(|trail| trail.decided.is_some());
        if let (Some(condition), false) = (decided, known) {
            if self.node.flip_restored
                && let Engine::Sidecar(sidecar) = &self.engine
            {
                sidecar.touch(f64::MIN_POSITIVE);
            }
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            let decided = Decided {
                at: clock::now(),
                reason: text("reason"),
                message: text("message"),
                digest: self.engine.digest(),
            };
            self.node.trails.note(&self.uid, |trail| trail.decided = Some(decided));
            self.converse();
        }
        if status::condition(pod, "Ready").is_none_or(|ready| ready["status"] != "True")
            && status::gates_open(pod)
        {
            self.update(status::refresh_ready);
        }
        self.note_ready();
    }

    /// The first request to a real engine after its restore was decided.
    fn converse(&self) {
        let Engine::Llama(server) = &self.engine else { return };
        if self.node.place == Place::Source {
            return;
        }
        let (conversation, node) = (server.continue_conversation(), Arc::clone(&self.node));
        let (uid, name) = (self.uid.clone(), self.name.clone());
        tokio::spawn(async move {
            match conversation.await {
                Ok(had) => {
                    let how =
                        if had.same { "continues as the source would have" } else { "continues differently" };
                    node.chronicle
                        .say(&name, format!("{how}, {} of {} tokens from its cache", had.cached, had.saved));
                    node.trails.note(&uid, |trail| trail.conversation = Some(had));
                }
                Err(error) => {
                    node.chronicle.warn(&name, format!("does not go on with its conversation: {error}"))
                }
            }
        });
    }

    fn note_ready(&self) {
        let ready = self
            .pod()
            .is_some_and(|pod| status::condition(&pod, "Ready").is_some_and(|is| is["status"] == "True"));
        if ready {
            self.node.trails.note(&self.uid, |trail| {
                trail.ready.get_or_insert(clock::now());
            });
        }
    }

    /// The plan's trouble with this engine.
    fn trouble(&mut self) {
        let Some(zero) = self.node.zero.get().copied() else { return };
        let since = clock::now().since(zero);
        if since >= ANSWER {
            self.engine.finish_answer();
        }
        let Engine::Sidecar(sidecar) = &self.engine else { return };
        let mut restarted = false;
        for trouble in &mut self.troubles {
            if !trouble.begun && since >= trouble.from {
                trouble.begun = true;
                self.node.trails.note(&self.uid, |trail| trail.troubled = true);
                sidecar.set_behaviour(trouble.behaviour);
                restarted |= trouble.behaviour == Behaviour::Restarted;
                self.node.chronicle.warn(
                    &self.name,
                    match trouble.behaviour {
                        Behaviour::Restarted => {
                            "its container crashes and is started again, without its state"
                        }
                        Behaviour::Hang => "its engine no longer answers",
                        Behaviour::Lies => "its engine says that it flushes, and does not",
                        _ => "its engine answers with a web page",
                    },
                );
            }
            if trouble.begun && trouble.until.is_some_and(|until| since >= until) {
                trouble.until = None;
                sidecar.set_behaviour(Behaviour::Normal);
                self.node.chronicle.say(&self.name, "its engine behaves again");
            }
        }
        if restarted {
            self.restarts += 1;
            self.update(|pod| status::running(pod, &self.ip, self.restarts));
        }
    }

    fn pod(&self) -> Option<Arc<Value>> {
        let pod = self.node.storage.get("pods", &self.namespace, &self.name)?;
        (pod["metadata"]["uid"] == self.uid).then_some(pod)
    }

    fn update(&self, change: impl FnOnce(&mut Value)) {
        let outcome = self.node.storage.update("pods", &self.namespace, &self.name, |old| {
            if old["metadata"]["uid"] != self.uid {
                return Err(Refusal::conflict("pods", &self.name, "another pod has its name"));
            }
            let mut new = old.clone();
            change(&mut new);
            Ok(Some(new))
        });
        if let Err(refusal) = outcome {
            tracing::debug!(?refusal, "the status is not written");
        }
    }
}

/// What the one line of shell decides: wait while the file says a time ahead of now.
pub(super) fn held(file: &Path, now: Timestamp) -> bool {
    match std::fs::read_to_string(file) {
        // No file, no agent: go.
        Err(_) => false,
        Ok(text) => match text.trim_end_matches('\n').parse::<i64>() {
            Ok(until) => until > now.as_second(),
            // `test` fails on what is no integer, and the loop goes on until the grace is over.
            Err(_) => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hold_is_read_as_the_shell_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hold");
        let now = Timestamp::from_second(1_000).unwrap();
        assert!(!held(&file, now), "no file");
        for (text, holds) in
            [("1001\n", true), ("1000\n", false), ("0", false), ("", true), ("soon", true), ("1e9", true)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(held(&file, now), holds, "{text:?}");
        }
    }
}
