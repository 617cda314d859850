use super::*;

const AFTER: Span = Span::from_secs(60);

fn at(seconds: u64) -> Moment {
    Moment::from_millis(1_000_000) + Span::from_secs(seconds)
}

fn uid(name: &str) -> PodUid {
    PodUid(format!("uid-{name}"))
}

/// Pods as `name@node`, and the nodes with an agent.
fn picture(pods: &[&str], agents: &[&str]) -> ClusterSnapshot {
    let gated = pods.iter().map(|text| {
        let (name, node) = text.split_once('@').unwrap();
        let pod = PodRef { namespace: "chat".into(), name: name.into(), uid: uid(name) };
        (uid(name), GatedPod { pod, node: node.into() })
    });
    ClusterSnapshot { gated: gated.collect(), agents: agents.iter().map(|&node| node.to_owned()).collect() }
}

fn opened(effects: &[Open]) -> Vec<&str> {
    effects.iter().map(|open| open.gated.pod.name.as_str()).collect()
}

#[test]
fn a_gate_is_opened_when_no_agent_was_there_for_the_whole_time_and_not_before() {
    let mut orphans = OrphanedGates::new(AFTER);
    let alone = picture(&["a@node-1"], &["node-2"]);
    assert_eq!(orphans.handle(at(0), &alone), []);
    assert_eq!(orphans.waiting(), 1);
    assert_eq!(orphans.handle(at(59), &alone), []);
    let effects = orphans.handle(at(60), &alone);
    assert_eq!(opened(&effects), ["a"]);
    assert_eq!(effects[0].without_agent, AFTER);
    assert_eq!(effects[0].gated.node, "node-1");
}

#[test]
fn a_pod_whose_agent_is_ready_is_never_the_fleets_business() {
    let mut orphans = OrphanedGates::new(AFTER);
    for second in 0..1000 {
        assert_eq!(orphans.handle(at(second), &picture(&["a@node-1"], &["node-1"])), []);
    }
    assert_eq!(orphans.waiting(), 0);
}

#[test]
fn an_agent_that_comes_in_between_begins_the_time_anew() {
    let mut orphans = OrphanedGates::new(AFTER);
    let alone = picture(&["a@node-1"], &[]);
    assert_eq!(orphans.handle(at(0), &alone), []);
    assert_eq!(orphans.handle(at(59), &picture(&["a@node-1"], &["node-1"])), []);
    assert_eq!(orphans.waiting(), 0);
    assert_eq!(orphans.handle(at(61), &alone), []);
    assert_eq!(orphans.handle(at(120), &alone), []);
    assert_eq!(opened(&orphans.handle(at(121), &alone)), ["a"]);
}

#[test]
fn each_pod_has_its_own_time() {
    let mut orphans = OrphanedGates::new(AFTER);
    assert_eq!(orphans.handle(at(0), &picture(&["a@node-1"], &[])), []);
    let both = picture(&["a@node-1", "b@node-1"], &[]);
    assert_eq!(orphans.handle(at(30), &both), []);
    assert_eq!(opened(&orphans.handle(at(60), &both)), ["a"]);
    assert_eq!(opened(&orphans.handle(at(90), &both)), ["b"]);
}

#[test]
fn a_namesake_created_later_waits_its_own_time() {
    let mut orphans = OrphanedGates::new(AFTER);
    assert_eq!(orphans.handle(at(0), &picture(&["a@node-1"], &[])), []);
    let mut again = picture(&["a@node-1"], &[]);
    let mut other = again.gated.pop_first().unwrap().1;
    other.pod.uid = PodUid("another".into());
    again.gated.insert(other.pod.uid.clone(), other);
    assert_eq!(orphans.handle(at(60), &again), []);
    assert_eq!(orphans.waiting(), 1);
    assert_eq!(orphans.handle(at(120), &again).len(), 1);
}

#[test]
fn what_was_asked_for_is_not_asked_for_again_until_it_failed() {
    let mut orphans = OrphanedGates::new(AFTER);
    let alone = picture(&["a@node-1"], &[]);
    assert_eq!(orphans.handle(at(0), &alone), []);
    assert_eq!(orphans.handle(at(60), &alone).len(), 1);
    assert_eq!(orphans.handle(at(70), &alone), []);
    orphans.answered(at(70), &uid("a"), GateOpening::Failed);
    assert_eq!(orphans.handle(at(74), &alone), []);
    let again = orphans.handle(at(75), &alone);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].without_agent, Span::from_secs(75));
    orphans.answered(at(76), &uid("a"), GateOpening::Done);
    // The watch has not shown it yet.
    assert_eq!(orphans.handle(at(1000), &alone), []);
    assert_eq!(orphans.waiting(), 0);
    assert_eq!(orphans.handle(at(1001), &picture(&[], &[])), []);
}

#[test]
fn an_agent_that_was_found_at_the_last_look_begins_the_time_anew() {
    let mut orphans = OrphanedGates::new(AFTER);
    let alone = picture(&["a@node-1"], &[]);
    assert_eq!(orphans.handle(at(0), &alone), []);
    assert_eq!(orphans.handle(at(60), &alone).len(), 1);
    orphans.answered(at(60), &uid("a"), GateOpening::AgentThere);
    assert_eq!(orphans.handle(at(119), &alone), []);
    assert_eq!(orphans.handle(at(120), &alone).len(), 1);
}

#[test]
fn so_many_are_opened_at_once_longest_waiting_first_and_the_rest_as_they_are_answered() {
    let mut orphans = OrphanedGates::new(AFTER);
    // The one that sorts last was there first.
    assert_eq!(orphans.handle(at(0), &picture(&["zz@node-1"], &[])), []);
    let names: Vec<String> = (0..AT_ONCE).map(|n| format!("p{n:02}@node-1")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("zz@node-1");
    let all = picture(&all, &[]);
    assert_eq!(orphans.handle(at(1), &all), []);
    let first = orphans.handle(at(61), &all);
    assert_eq!(first.len(), AT_ONCE);
    assert_eq!(opened(&first)[0], "zz");
    assert_eq!(orphans.handle(at(62), &all), []);
    orphans.answered(at(62), &uid("zz"), GateOpening::Done);
    assert_eq!(opened(&orphans.handle(at(62), &all)), [format!("p{:02}", AT_ONCE - 1)]);
}

#[test]
fn an_answer_for_a_pod_that_is_gone_changes_nothing() {
    let mut orphans = OrphanedGates::new(AFTER);
    orphans.answered(at(0), &uid("a"), GateOpening::Failed);
    assert_eq!(orphans.waiting(), 0);
    assert_eq!(orphans.handle(at(1), &picture(&["a@node-1"], &[])), []);
    assert_eq!(orphans.handle(at(10), &picture(&["a@node-1"], &[])), []);
}
