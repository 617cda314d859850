//! A good observation passes; each doctored one is caught by the check that is there for it.

use super::{Check, Finding, held, judge};
use crate::agent::AgentLife;
use crate::arguments::DrillArgs;
use crate::cast::{CAST, Member, Part, Place};

use crate::inventory::{Inventory, Stored};
use crate::observation::{Observation, SOURCE, TARGET, agent_user};
use crate::recording::Recording;
use crate::scene::Scene;
use crate::trail::{Conversation, Decided, Flushed, Trail, Trails};
use clap::Parser;
use evacuation::effect::{Action, Effect, EffectId, FlushKind, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Done, Event, FailureKind, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::names::{CLAIM_ANNOTATION, LINEAGE_ANNOTATION};
use evacuation::notice::{ActiveNotice, InstanceAction, NoticeKind};
use evacuation::pod::PodUid;
use evacuation::report::{DepartureOutcome, PodReport, Report, StateOutcome};
use fakes::apiserver::audit::Request;
use serde_json::{Value, json};
use trace::Step;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    drill: DrillArgs,
}

fn scene(args: &[&str]) -> Scene {
    let args = std::iter::once("drill").chain(args.iter().copied());
    Scene::new(&Cli::try_parse_from(args).unwrap().drill).unwrap()
}

/// The notice appears at 100 s, its time is 130 s.
const fn at(ms: u64) -> Moment {
    Moment::from_millis(100_000 + ms)
}

fn uid(member: &Member) -> String {
    format!("uid-{}", member.name)
}

#[derive(Default)]
struct Pen {
    steps: Vec<Step>,
    next: u64,
}

impl Pen {
    /// An effect, answered `took` later.
    fn effect(&mut self, began: u64, took: u64, action: Action, outcome: Outcome) {
        self.next += 1;
        let id = EffectId(self.next);
        let effect = Effect { id, deadline: at(30_000), attempt: 1, action };
        self.steps.push(Step { at: at(began), event: Event::TimerFired, effects: vec![effect] });
        let answer = Event::Answered { id, outcome };
        self.steps.push(Step { at: at(began + took), event: answer, effects: Vec::new() });
    }

    fn done(&mut self, began: u64, took: u64, action: Action) {
        self.effect(began, took, action, Outcome::Done(Done::Nothing));
    }
}

/// The leaving node's journal.
fn source(observation: &mut Observation) -> &mut Vec<Step> {
    &mut observation.source.lives[0].steps
}

fn active_notice() -> ActiveNotice {
    serde_json::from_value(json!({"notice": "n", "kind": NoticeKind::Interruption(InstanceAction::Terminate),
        "boot": "b", "began": at(200), "deadline": at(25_200), "hard": true, "wasSchedulable": true}))
    .unwrap()
}

fn evict(pen: &mut Pen, requests: &mut Vec<Request>, member: &Member, when: u64, code: u16) {
    let pod = PodUid(uid(member));
    let outcome = match code {
        201 => Outcome::Done(Done::Nothing),
        _ => Outcome::Failed { kind: FailureKind::Refused, why: "budget".into() },
    };
    pen.effect(
        when,
        5,
        Action::Pod { uid: pod, action: PodAction::Evict { grace: Span::from_secs(member.grace) } },
        outcome,
    );
    let body =
        json!({"deleteOptions": {"gracePeriodSeconds": member.grace, "preconditions": {"uid": uid(member)}}});
    requests.push(Request {
        uid: Some(uid(member)),
        ..request("evict", "pods", &member.pod_name(1), when, code, body)
    });
}

fn request(verb: &'static str, resource: &str, name: &str, when: u64, code: u16, body: Value) -> Request {
    Request {
        at: at(when),
        answered: at(when + 3),
        user: agent_user(SOURCE),
        verb,
        resource: resource.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: String::new(),
        path: String::new(),
        query: String::new(),
        headers: Default::default(),
        body,
        code,
        refusal: None,
        uid: None,
    }
}

fn cordon(when: u64) -> Request {
    let body = json!({"metadata": {"resourceVersion": "7", "annotations": {"lifeboat.dev/evacuation": "{}"}},
        "spec": {"unschedulable": true, "taints": [{"key": "lifeboat.dev/interruption", "effect": "NoSchedule"}]}});
    request("patch", "nodes", SOURCE, when, 200, body)
}

fn trail(member: &'static Member, place: Place) -> Trail {
    let trails = Trails::default();
    let uid = if place == Place::Source { uid(member) } else { format!("new-{}", member.name) };
    trails.begin(member.name, &member.pod_name(1), &uid, place);
    trails.of(&uid).unwrap()
}

fn digest(member: &Member) -> String {
    format!("{}{}", member.name, "0".repeat(60))
}

fn report(written: u64) -> Report {
    let pod = |member: &Member| PodReport {
        uid: uid(member),
        namespace: "chat".into(),
        name: member.pod_name(1),
        priority: member.priority,
        departure: DepartureOutcome::Gone,
        reason: None,
        state: if member.has_state() { StateOutcome::Saved } else { StateOutcome::None },
        state_reason: None,
        generation: member.has_state().then(|| "g".to_owned()),
        bytes: 8,
        sent: 8,
        refusals: 0,
        evicted: None,
        committed: None,
        gone: None,
    };
    Report {
        format: 1,
        node: SOURCE.into(),
        boot: "b".into(),
        notice: "n".into(),
        kind: NoticeKind::Interruption(InstanceAction::Terminate),
        short: false,
        withdrawn: false,
        noticed: at(200),
        deadline: at(25_200),
        cordoned: Some(at(210)),
        written: at(written),
        complete: true,
        pods: CAST.iter().filter(|member| member.leaves()).map(pod).collect(),
    }
}

/// An evacuation in which everything is as it should be.
pub(super) fn good() -> Observation {
    let mut pen = Pen::default();
    let mut requests = vec![cordon(205)];
    pen.done(204, 6, Action::Node(NodeAction::MarkNode(active_notice())));
    let mut trails = Vec::new();
    let mut generations = Vec::new();
    for (nth, member) in (0_u64..).zip(CAST) {
        let pod = PodUid(uid(member));
        let mut source = trail(member, Place::Source);
        source.started = Some(at(0));
        let (evicted, gone) = match member.part {
            Part::HeldState => (240, 3_200),
            Part::NamedState => (3_300, 3_400),
            Part::Stateless => (211, 600),
            _ => (211, 300),
        };
        if member.has_state() {
            pen.done(
                212,
                20,
                Action::Pod {
                    uid: pod.clone(),
                    action: PodAction::WriteIntent { departure: "n".into(), by: at(25_000) },
                },
            );
            pen.done(300 + nth, 1, Action::Pod { uid: pod.clone(), action: PodAction::Quiesce });
            pen.done(
                400 + nth,
                1_000,
                Action::Pod { uid: pod.clone(), action: PodAction::Flush { kind: FlushKind::Final } },
            );
            pen.done(
                1_500 + nth,
                500,
                Action::Pod {
                    uid: pod.clone(),
                    action: PodAction::Save { kind: FlushKind::Final, rank: nth },
                },
            );
            pen.done(
                2_500 + nth,
                500,
                Action::Pod {
                    uid: pod.clone(),
                    action: PodAction::Commit {
                        kind: FlushKind::Final,
                        partial: false,
                        without_endangered: false,
                    },
                },
            );
            source.flushes.push(Flushed { at: at(400), last: true, digest: digest(member) });
            generations.push(Stored {
                namespace: "chat".into(),
                workload: member.name.into(),
                lineage: "l".into(),
                number: "1-1".into(),
                partial: false,
                source_uid: uid(member),
                bytes: 8,
                content: Ok(digest(member)),
            });
        }
        if member.part == Part::Stateless {
            evict(&mut pen, &mut requests, member, 211, 429);
            evict(&mut pen, &mut requests, member, 500, 201);
        } else if member.leaves() {
            evict(&mut pen, &mut requests, member, evicted, 201);
        }
        if member.leaves() {
            source.terminating = Some(at(evicted + 5));
            source.released = Some(at(gone - 20));
            source.gone = Some(at(gone));
        }
        trails.push(source);
        if member.is_replaced() {
            let mut other = trail(member, Place::Replacement);
            other.started = Some(at(3_600));
            other.ready = Some(at(4_000));
            if member.has_state() {
                let decided = Decided {
                    at: at(3_900),
                    reason: "Restored".into(),
                    message: String::new(),
                    digest: Some(digest(member)),
                };
                other.decided = Some(decided);
            }
            trails.push(other);
        }
    }
    pen.done(3_500, 20, Action::Node(NodeAction::WriteReport(Box::new(report(3_500)))));
    // The journal is in the order of time, whatever the order of the lines above.
    pen.steps.sort_by_key(|step| step.at);
    requests.sort_by_key(|request| request.at);
    let life = AgentLife { began: at(0), ended: None, how: None };
    Observation {
        scene: scene(&[]),
        struck: Vec::new(),
        shown: at(0),
        times_up: at(30_000),
        ended: at(5_000),
        requests,
        source: Recording::of(pen.steps),
        target: Recording::default(),
        source_lives: vec![life.clone()],
        target_lives: vec![life],
        trails,
        store: Inventory { generations, reports: vec![report(3_500)], ..Inventory::default() },
        node: json!({"spec": {"unschedulable": true}}),
        rebooted: None,
    }
}

fn broken(observation: &Observation) -> Vec<&'static str> {
    judge(observation).into_iter().filter(|check| check.finding.is_broken()).map(|check| check.what).collect()
}

/// Doctors a good observation and expects exactly one kind of complaint among what is broken.
fn doctored(what: &str, doctor: impl FnOnce(&mut Observation)) {
    let mut observation = good();
    doctor(&mut observation);
    let broken = broken(&observation);
    assert!(broken.iter().any(|check| check.contains(what)), "{what:?} is not among {broken:?}");
}

fn of<'a>(observation: &'a mut Observation, member: &str, place: Place) -> &'a mut Trail {
    observation.trails.iter_mut().find(|trail| trail.member == member && trail.place == place).unwrap()
}

fn evictions<'a>(observation: &'a mut Observation, member: &'a str) -> impl Iterator<Item = &'a mut Request> {
    let uid = format!("uid-{member}");
    observation.requests.iter_mut().filter(move |request| request.uid.as_deref() == Some(&uid))
}

#[test]
fn a_good_observation_passes_every_check() {
    let observation = good();
    let checks = judge(&observation);
    assert_eq!(broken(&observation), Vec::<&str>::new(), "{checks:#?}");
    assert!(held(&checks));
    let excused: Vec<&Check> =
        checks.iter().filter(|check| matches!(check.finding, Finding::Excused(_))).collect();
    assert!(excused.is_empty(), "{excused:?}");
}

#[test]
fn the_nodes_marks_are_looked_at() {
    doctored("cordoned before", |observation| observation.requests[0].answered = at(9_000));
    doctored("cordoned before", |observation| drop(observation.requests.remove(0)));
    doctored("one patch", |observation| observation.requests[0].body["spec"]["taints"] = json!([]));
    doctored("one patch", |observation| observation.requests[0].body["metadata"]["annotations"] = json!({}));
    doctored("one patch", |observation| {
        observation.requests[0].body["metadata"]["resourceVersion"] = Value::Null
    });
    doctored("never uncordoned", |observation| {
        let body = json!({"spec": {"unschedulable": null}});
        observation.requests.push(request("patch", "nodes", SOURCE, 4_000, 200, body));
    });
    doctored("taints of others", |observation| observation.scene = scene(&["--fault", "api=conflict*3"]));
    doctored("taken back", |observation| observation.scene = scene(&["--fault", "notice=withdrawn@5s"]));
    doctored("leaves no trace", |observation| observation.scene = scene(&["--fault", "rebalance=only"]));
}

#[test]
fn departures_are_looked_at() {
    doctored("no engine ended", |observation| {
        of(observation, "gold", Place::Source).released = Some(at(1_000))
    });
    doctored("no engine ended", |observation| {
        evictions(observation, "silver").for_each(|request| request.at = at(230))
    });
    doctored("names the uid", |observation| {
        let preconditions =
            |request: &mut Request| request.body["deleteOptions"]["preconditions"] = Value::Null;
        evictions(observation, "web").for_each(preconditions);
    });
    doctored("no grace is 0", |observation| {
        let zero = |request: &mut Request| request.body["deleteOptions"]["gracePeriodSeconds"] = json!(0);
        evictions(observation, "web").for_each(zero);
    });
    doctored("shed pods", |observation| {
        evictions(observation, "mirror").for_each(|request| request.at = at(4_000))
    });
    doctored("stay stays", |observation| of(observation, "logs", Place::Source).terminating = Some(at(300)));
    doctored("by the deadline", |observation| of(observation, "web", Place::Source).gone = Some(at(31_000)));
    doctored("by the deadline", |observation| {
        of(observation, "web", Place::Source).gone = None;
        of(observation, "web", Place::Source).terminating = None;
        observation.requests.retain(|request| request.uid.as_deref() != Some("uid-web"));
    });
    doctored("report is written", |observation| {
        let is = |effect: &Effect| matches!(effect.action, Action::Node(NodeAction::WriteReport(_)));
        source(observation).retain(|step| !step.effects.iter().any(is));
    });
    doctored("report is written", |observation| observation.store.reports.clear());
    doctored("no pod hangs", |observation| of(observation, "gold", Place::Replacement).ready = None);
    doctored("no pod hangs", |observation| of(observation, "gold", Place::Source).killed = true);
}

#[test]
fn order_is_looked_at() {
    let late = |observation: &mut Observation, member: &str, when: u64| {
        let uid = format!("uid-{member}");
        let is = |effect: &Effect| matches!(&effect.action, Action::Pod { uid: pod, action: PodAction::Evict { .. } } if pod.0 == uid);
        let evictions = source(observation).iter_mut().filter(|step| step.effects.iter().any(is));
        evictions.for_each(|step| step.at = at(when));
        source(observation).sort_by_key(|step| step.at);
    };
    doctored("evicted in order", |observation| late(observation, "gold", 4_000));
    doctored("delayed nobody", |observation| late(observation, "gold", 4_000));
    doctored("delayed nobody", |observation| {
        observation.requests.retain(|request| request.code != 429);
    });
    doctored("saved in order", |observation| {
        for effect in source(observation).iter_mut().flat_map(|step| &mut step.effects) {
            if let Action::Pod { action: PodAction::Save { rank, .. }, .. } = &mut effect.action {
                *rank = 9 - *rank;
            }
        }
    });
    doctored("not too often", |observation| {
        let again = evictions(observation, "web").next().unwrap().clone();
        for n in 0..20 {
            observation.requests.push(Request { at: at(212 + n), ..again.clone() });
        }
    });
    doctored("lower tier", |observation| {
        let mut worse = report(3_500);
        worse.pods[0].state = StateOutcome::Lost;
        let mut pen = Pen { next: 100, ..Pen::default() };
        pen.done(3_550, 5, Action::Node(NodeAction::WriteReport(Box::new(worse))));
        source(observation).append(&mut pen.steps);
    });
}

/// A good observation of a store that ignores conditions: gold was restored under a Lease.
fn good_under_a_lease() -> Observation {
    let mut observation = good();
    observation.scene = scene(&["--fault", "store=unconditional"]);
    observation.struck = vec![("store=unconditional".to_owned(), true)];
    let lease = |verb, state: &str, when| {
        let claim = json!({"format": 1, "lineage": "l", "epoch": 1, "lease_ms": 30_000, "nonce": state,
            "holder": {"pod_uid": "new-gold", "pod_name": "gold", "node": TARGET}, "state": state});
        let annotations = json!({CLAIM_ANNOTATION: claim.to_string(),
            LINEAGE_ANNOTATION: "v1/c/00/chat/gold/lineage/l/claim"});
        let version = if verb == "create" { Value::Null } else { json!("7") };
        let body = json!({"metadata": {"annotations": annotations, "resourceVersion": version}});
        Request { user: agent_user(TARGET), ..request(verb, "leases", "lifeboat-1", when, 200, body) }
    };
    observation.requests.push(lease("create", "restoring", 3_650));
    observation.requests.push(lease("update", "done", 3_850));
    let mut pen = Pen::default();
    pen.done(
        3_840,
        20,
        Action::Restore {
            uid: PodUid("new-gold".into()),
            action: RestoreAction::FinishClaim { lineage: "l".into() },
        },
    );
    observation.target = Recording::of(pen.steps);
    observation
}

#[test]
fn claims_are_looked_for_where_they_belong() {
    let observation = good_under_a_lease();
    assert_eq!(broken(&observation), Vec::<&str>::new(), "{:#?}", judge(&observation));
    let found = |doctor: fn(&mut Observation)| {
        let mut observation = good_under_a_lease();
        doctor(&mut observation);
        let broken = broken(&observation);
        assert!(broken.iter().any(|check| check.contains("claims are Leases")), "{broken:?}");
    };
    // No Lease, none that was finished, one of another pod, a second one, and one written over whatever it said.
    found(|observation| observation.requests.retain(|request| request.resource != "leases"));
    found(|observation| drop(observation.requests.pop()));
    found(|observation| {
        let claim =
            &mut observation.requests.last_mut().unwrap().body["metadata"]["annotations"][CLAIM_ANNOTATION];
        *claim = json!(claim.as_str().unwrap().replace("new-gold", "new-silver"));
    });
    found(|observation| {
        let again = observation.requests[observation.requests.len() - 2].clone();
        observation.requests.insert(0, again);
    });
    found(|observation| {
        observation.requests.last_mut().unwrap().body["metadata"]["resourceVersion"] = Value::Null;
    });
    // Nothing was restored at all.
    found(|observation| observation.target.lives.clear());
}

#[test]
fn state_is_looked_at() {
    doctored("verifies", |observation| {
        observation.store.generations[0].content = Err("the pack is short".into())
    });
    doctored("verifies", |observation| observation.store.unreadable = Some("gone".into()));
    doctored("is what the engine flushed", |observation| {
        observation.store.generations[0].content = Ok("other".into())
    });
    doctored("gold: its state", |observation| {
        of(observation, "gold", Place::Replacement).decided.as_mut().unwrap().digest = Some("f".repeat(64));
    });
    doctored("silver: its state", |observation| {
        let decided = of(observation, "silver", Place::Replacement).decided.as_mut().unwrap();
        decided.reason = "NothingToRestore".into();
    });
    doctored("gold: its state", |observation| {
        observation.trails.retain(|trail| trail.place == Place::Source)
    });
    doctored("gold: its state", |observation| {
        observation.scene = scene(&["--fault", "engine:gold=restarts@1s"]);
        let empty = blake3::hash(b"").to_hex().as_str().to_owned();
        of(observation, "gold", Place::Source).flushes.push(Flushed {
            at: at(500),
            last: true,
            digest: empty.clone(),
        });
        of(observation, "gold", Place::Replacement).decided.as_mut().unwrap().digest = Some(empty);
    });
    doctored("at most once", |observation| {
        let mut pen = Pen::default();
        for pod in ["new-gold", "new-silver"] {
            pen.done(
                3_800,
                5,
                Action::Restore {
                    uid: PodUid(pod.into()),
                    action: RestoreAction::FinishClaim { lineage: "l".into() },
                },
            );
        }
        observation.target = Recording::of(pen.steps);
    });
    doctored("at most once", |observation| {
        let mut pen = Pen::default();
        for _ in 0..2 {
            pen.done(
                3_800,
                5,
                Action::Restore { uid: PodUid("new-gold".into()), action: RestoreAction::ImportState },
            );
        }
        observation.target = Recording::of(pen.steps);
    });
}

#[test]
fn a_real_engine_must_reuse_what_was_saved_and_go_on_the_same() {
    let talk = |saved, cached, same| {
        move |observation: &mut Observation| {
            let conversation = Conversation { saved, cached, same };
            of(observation, "gold", Place::Replacement).conversation = Some(conversation);
        }
    };
    doctored("gold: its state", talk(1000, 900, true));
    doctored("gold: its state", talk(1000, 995, false));
    let mut observation = good();
    talk(1000, 995, true)(&mut observation);
    assert_eq!(broken(&observation), Vec::<&str>::new());
}

#[test]
fn endurance_is_looked_at() {
    doctored("one deadline", |observation| {
        let mut again = active_notice();
        again.deadline = at(27_000);
        let mut pen = Pen { next: 200, ..Pen::default() };
        pen.done(4_000, 5, Action::Node(NodeAction::MarkNode(again)));
        source(observation).append(&mut pen.steps);
    });
    doctored("one deadline", |observation| {
        let mut again = cordon(4_000);
        again.body["metadata"]["annotations"]["lifeboat.dev/evacuation"] = json!("{\"deadline\":1}");
        observation.requests.push(again);
    });
    doctored("no committed work", |observation| {
        let killed = AgentLife { began: at(0), ended: Some(at(3_000)), how: Some("killed".into()) };
        observation.source_lives.insert(0, killed);
        observation.store.generations.clear();
    });
    doctored("ended by itself", |observation| observation.source_lives[0].how = Some("exit code 101".into()));
    doctored("ended by itself", |observation| {
        let mut pen = Pen::default();
        pen.effect(
            10,
            5,
            Action::Pod { uid: PodUid("x".into()), action: PodAction::InspectEngine },
            Outcome::Panicked,
        );
        observation.target = Recording::of(pen.steps);
    });
    doctored("own node", |observation| {
        observation.requests.push(request("list", "pods", "", 10, 200, Value::Null));
    });
    doctored("own node", |observation| {
        let other = request("patch", "nodes", TARGET, 10, 403, Value::Null);
        observation.requests.push(other);
    });
    doctored("fault of the plan struck", |observation| observation.struck.push(("imds=hang".into(), false)));
}

#[test]
fn an_excuse_needs_a_fault_and_a_reason() {
    let nothing = |observation: &mut Observation| {
        let decided = of(observation, "gold", Place::Replacement).decided.as_mut().unwrap();
        decided.reason = "NothingToRestore".into();
        decided.message = "no lineage".into();
    };
    let gold = |observation: &Observation| {
        let checks = judge(observation);
        checks.into_iter().find(|check| check.what.starts_with("gold")).unwrap().finding
    };
    let mut observation = good();
    nothing(&mut observation);
    assert!(gold(&observation).is_broken());
    observation.scene = scene(&["--fault", "engine:silver=hang"]);
    assert!(gold(&observation).is_broken(), "another's trouble is no excuse");
    observation.scene = scene(&["--fault", "engine:gold=hang"]);
    assert!(matches!(gold(&observation), Finding::Excused(_)));
    of(&mut observation, "gold", Place::Replacement).decided.as_mut().unwrap().reason = "Restored".into();
    of(&mut observation, "gold", Place::Replacement).decided.as_mut().unwrap().digest = Some("0".repeat(64));
    assert!(gold(&observation).is_broken(), "wrong bytes are never excused");
}
