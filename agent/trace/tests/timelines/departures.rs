//! One notice of two minutes: who is saved, who is evicted, when.

use crate::stage::{Stage, TERMINATE, failed, holding, pod, stateful};
use evacuation::effect::{Action, Hold, PodAction};
use evacuation::event::{Done, Event, FailureKind, Outcome};
use evacuation::moment::Span;
use evacuation::pod::{Owner, PodFacts, Role};
use evacuation::policy::{EvictOrder, Policy, RespectPdb};
use evacuation::report::{DepartureOutcome, StateOutcome};

#[test]
fn one_stateful_pod_is_saved_and_then_evicted_with_its_own_grace() {
    let mut stage = Stage::with(&[stateful("gold")]).by_hand(&["flush", "save", "commit"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    stage.done("flush", "gold");
    stage.until(20_000);
    stage.done("save", "gold");
    assert!(stage.times("evict", "gold").is_empty(), "{}", stage.story());
    stage.until(20_050);
    stage.done("commit", "gold");
    assert_eq!(stage.times("evict", "gold"), [20_050]);
    assert_eq!(stage.grace("evict", "gold"), 30);
    stage.until(22_000);
    stage.gone("gold");
    let entry = stage.entry("gold").unwrap();
    assert_eq!((entry.departure, entry.state), (DepartureOutcome::Gone, StateOutcome::Saved));
    assert!(stage.report().unwrap().complete);
    assert_eq!(stage.times("write_report", ""), [22_000]);
}

#[test]
fn the_cordon_is_acknowledged_before_the_first_eviction() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(1_500);
    assert!(stage.times("evict", "web").is_empty());
    stage.done("mark_node", "");
    assert_eq!(stage.times("evict", "web"), [1_500]);
}

#[test]
fn a_cordon_that_never_succeeds_is_not_waited_for_beyond_the_cut_off() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["mark_node"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert!(stage.times("evict", "web").is_empty());
    assert_eq!(stage.times("delete_pod", "web"), [98_000]);
}

#[test]
fn an_api_server_that_forbids_the_cordon_does_not_stop_the_evictions() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.answers.insert("mark_node".into(), failed(FailureKind::Permanent));
    stage.notice(TERMINATE, "n", 120);
    // An API server that has just started forbids everything for a moment.
    stage.until(2_900);
    assert!(stage.times("evict", "web").is_empty());
    stage.until(4_500);
    assert_eq!(stage.times("evict", "web").len(), 1);
    stage.gone("web");
    assert!(stage.report().unwrap().complete);
}

#[test]
fn a_pod_that_can_be_held_is_evicted_first_and_released_when_it_is_saved() {
    let mut stage = Stage::with(&[holding("gold")]).by_hand(&["flush", "save", "write_intent"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(300);
    assert!(stage.times("evict", "gold").is_empty(), "the intent comes first");
    stage.done("write_intent", "gold");
    assert_eq!(stage.times("evict", "gold"), [300]);
    assert_eq!((stage.hold("gold"), stage.grace("evict", "gold")), (Some(115_000), 114));
    stage.until(30_000);
    stage.done("flush", "gold");
    stage.until(60_000);
    assert_eq!(stage.hold("gold"), Some(115_000));
    stage.done("save", "gold");
    assert_eq!(stage.hold("gold"), Some(0), "released with the commit");
}

#[test]
fn a_held_pod_that_is_busy_generates_until_the_last_moment_that_fits() {
    let mut stage = Stage::with(&[]);
    let busy = Outcome::Done(Done::Inspected { state_bytes: 10 << 30, busy: true, doubt: None });
    stage.answers.insert("inspect_engine gold".into(), busy);
    stage.sees(&holding("gold"));
    // 10 GiB at 1 GiB/s and a quarter more, a second for the flush and a quarter more, a second to spare.
    stage.hear(Event::LinkMeasured { bytes_per_second: 1 << 30 });
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert_eq!(stage.times("evict", "gold"), [0]);
    assert_eq!(stage.times("flush", "gold"), [115_000 - 1_000 - 2_000 - 12_500 - 1_250 - 1_000]);
}

#[test]
fn a_hold_that_cannot_be_written_makes_it_flush_first() {
    let mut stage = Stage::with(&[holding("gold")]).by_hand(&["flush"]);
    stage.answers.insert("set_hold gold".into(), failed(FailureKind::Permanent));
    stage.notice(TERMINATE, "n", 120);
    stage.until(5_000);
    assert!(stage.times("evict", "gold").is_empty());
    stage.done("flush", "gold");
    assert_eq!(stage.times("evict", "gold"), [5_000]);
    assert_eq!(stage.grace("evict", "gold"), 30);
}

#[test]
fn a_stateful_set_pod_is_never_held_and_must_be_gone_fifteen_seconds_early() {
    let named = PodFacts { owner: Owner::Named, ..holding("db-0") };
    let mut stage = Stage::with(&[named]).by_hand(&["flush"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(30_100);
    // Its flush took 30 s and timed out: it is lost, and goes at once.
    assert_eq!(stage.times("evict", "db-0"), [30_000]);

    let named = PodFacts { owner: Owner::Named, ..stateful("db-0") };
    let mut stage = Stage::with(&[named]).by_hand(&["save"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    // Deadline, less 15 s for the name, 15 s of grace, 2 s for the commit.
    assert_eq!(stage.times("commit", "db-0"), [83_000]);
    assert_eq!(stage.times("evict", "db-0"), [83_000]);
    assert_eq!(stage.entry("db-0").unwrap().state, StateOutcome::Partial);
}

#[test]
fn three_tiers_on_a_short_link_are_saved_and_evicted_highest_first() {
    let tier = |name: &str, priority| PodFacts { priority, ..stateful(name) };
    let pods = [
        tier("bronze", 10),
        tier("silver", 100),
        tier("gold", 1000),
        PodFacts { priority: 500, ..pod("web") },
    ];
    let mut stage = Stage::with(&pods).by_hand(&["save"]);
    stage.notice(TERMINATE, "n", 120);
    let ranks: Vec<_> = ["gold", "silver", "bronze"]
        .iter()
        .flat_map(|name| stage.actions("save", name))
        .map(
            |save| {
                if let Action::Pod { action: PodAction::Save { rank, .. }, .. } = save { rank } else { 99 }
            },
        )
        .collect();
    assert_eq!(ranks, [0, 1, 2]);
    assert_eq!(stage.order("flush"), ["gold", "silver", "bronze"]);
    assert_eq!(stage.order("evict"), ["web"], "what has no state does not wait");
    stage.until(20_000);
    stage.done("save", "silver");
    stage.done("save", "gold");
    let saved: Vec<_> = stage.order("evict").into_iter().filter(|name| name != "web").collect();
    assert_eq!(saved, ["silver", "gold"], "each goes when it is safe");
    stage.until(97_999);
    assert!(!stage.order("evict").contains(&"bronze".to_owned()));
    stage.until(98_000);
    // The lowest tier did not fit: what is whole of it is committed, and it goes.
    assert_eq!(stage.times("commit", "bronze"), [98_000]);
    assert!(stage.order("evict").contains(&"bronze".to_owned()));
}

#[test]
fn pods_that_are_ready_at_once_are_evicted_highest_first() {
    let tier = |name: &str, priority| PodFacts { priority, ..pod(name) };
    let mut stage = Stage::with(&[tier("high", 1000), tier("low", 10), tier("middle", 100)]);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.order("evict"), ["high", "middle", "low"]);
}

#[test]
fn lowest_first_lets_a_tier_wait_for_the_lower_one_up_to_its_share() {
    let policy = Policy { evict_order: EvictOrder::LowestFirst, ..Policy::default() };
    let mut stage = Stage::new(policy);
    for (name, priority) in [("low", 0), ("middle", 10), ("high", 20)] {
        stage.sees(&PodFacts { priority, ..pod(name) });
    }
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.order("evict"), ["low"]);
    stage.until(10_000);
    stage.gone("low");
    assert_eq!(stage.order("evict"), ["low", "middle"]);
    stage.until(115_000);
    // `middle` never ended: `high` goes when two thirds of the 115 s are over.
    assert_eq!(stage.times("evict", "high"), [76_666]);
}

#[test]
fn a_stuck_budget_is_asked_again_every_second_and_the_pod_let_go_at_the_last_safe_second() {
    let mut stage = Stage::with(&[pod("web")]);
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    let asked = stage.times("evict", "web");
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= 1_000 && pair[1] - pair[0] >= 100));
    assert!(asked.len() > 95 && asked.iter().all(|at| *at < 98_000));
    assert_eq!(stage.times("mark_disrupted", "web"), [98_000]);
    assert_eq!((stage.times("delete_pod", "web"), stage.grace("delete_pod", "web")), (vec![98_000], 17));
    let entry = stage.entry("web").unwrap();
    assert_eq!(entry.departure, DepartureOutcome::DeletedAtCutOff);
    assert_eq!(entry.refusals as usize, asked.len());
}

#[test]
fn with_respect_pdb_always_a_refused_pod_is_never_deleted_and_dies_with_its_node() {
    let mut stage = Stage::new(Policy { respect_pdb: RespectPdb::Always, ..Policy::default() });
    stage.sees(&pod("web"));
    stage.answers.insert("evict web".into(), failed(FailureKind::Refused));
    stage.notice(TERMINATE, "n", 120);
    stage.until(110_000);
    assert!(stage.times("evict", "web").iter().any(|at| *at > 105_000));
    stage.until(130_000);
    assert!(stage.times("delete_pod", "web").is_empty());
    let entry = stage.entry("web").unwrap();
    assert_eq!(entry.departure, DepartureOutcome::Abandoned);
    assert_eq!(entry.reason.as_deref(), Some("the deadline came first: refused"));
}

#[test]
fn with_respect_pdb_always_an_eviction_without_an_answer_is_no_reason_to_delete() {
    let mut stage =
        Stage::new(Policy { respect_pdb: RespectPdb::Always, ..Policy::default() }).by_hand(&["evict"]);
    stage.sees(&pod("web"));
    stage.notice(TERMINATE, "n", 120);
    stage.until(130_000);
    assert!(stage.times("delete_pod", "web").is_empty(), "{}", stage.story());
}

#[test]
fn a_hanging_engine_delays_the_flush_of_a_lower_tier_by_five_seconds_at_most() {
    let gold = PodFacts { priority: 100, ..stateful("gold") };
    let mut stage = Stage::with(&[gold, stateful("silver")]).by_hand(&[
        "flush gold",
        "quiesce gold",
        "inspect_engine gold",
    ]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert_eq!(
        stage.times("evict", "silver"),
        [5_000],
        "it lets gold flush first, for five seconds and no more"
    );
    // Two seconds for the quiesce, thirty for the flush.
    assert_eq!(stage.times("evict", "gold"), [32_000]);
    let entry = stage.entry("gold").unwrap();
    assert_eq!(entry.state, StateOutcome::Lost);
    assert_eq!(entry.state_reason.as_deref(), Some("the engine did not finish its flush within 30.000 s"));
}

#[test]
fn a_lower_tier_waits_one_turn_in_all_for_its_slot_and_for_what_outranks_it() {
    let mut stage = Stage::new(Policy { flush_slots: 1, ..Policy::default() }).by_hand(&["flush gold"]);
    stage.sees(&PodFacts { priority: 100, ..stateful("gold") });
    stage.sees(&stateful("silver"));
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert_eq!(stage.times("flush", "silver"), [5_000], "{}", stage.story());
}

#[test]
fn an_engine_serves_until_it_is_its_turn_to_flush() {
    let mut stage = Stage::with(&[PodFacts { priority: 100, ..stateful("gold") }, stateful("silver")])
        .by_hand(&["flush gold"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(3_000);
    assert!(stage.times("quiesce", "silver").is_empty(), "{}", stage.story());
    stage.done("flush", "gold");
    assert_eq!(stage.times("quiesce", "silver"), [3_000]);
}

#[test]
fn a_stateful_set_pod_gets_no_grace_beyond_the_moment_at_which_its_name_must_be_free() {
    let mut stage = Stage::with(&[PodFacts { owner: Owner::Named, ..holding("db-0") }]).by_hand(&["save"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(90_000);
    // 15 s before the deadline of 115 s; it was saved until 83 s.
    assert_eq!((stage.times("evict", "db-0"), stage.grace("evict", "db-0")), (vec![83_000], 17));
    let holds = stage.actions("set_hold", "db-0");
    let late = holds.iter().any(|action| {
        matches!(action, Action::Pod { action: PodAction::SetHold { hold: Hold::Until(until), .. }, .. } if until.as_millis() > 1_100_000)
    });
    assert!(!late, "{}", stage.story());
}

#[test]
fn shadow_batch_and_negative_priorities_are_shed_at_once_and_never_saved() {
    let shadow = PodFacts { role: Role::Shadow, ..holding("shadow") };
    let batch = PodFacts { role: Role::Batch, priority: 50, ..pod("batch") };
    let negative = PodFacts { priority: -1, ..stateful("negative") };
    let mut stage = Stage::with(&[shadow, batch, negative, pod("web")]).by_hand(&["evict"]);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.order("evict"), ["batch", "shadow", "negative", "web"]);
    for name in ["write_intent", "flush", "save"] {
        assert!(stage.order(name).is_empty(), "{name}");
    }
    stage.until(116_000);
    assert_eq!(stage.entry("shadow").unwrap().state, StateOutcome::None);
}

#[test]
fn a_grace_of_an_hour_is_cut_to_what_is_left() {
    let slow = PodFacts { grace: Span::from_secs(3600), ..pod("slow") };
    let mut stage = Stage::with(&[slow]);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.grace("evict", "slow"), 115);
    stage.until(116_000);
    assert_eq!(stage.entry("slow").unwrap().departure, DepartureOutcome::Leaving);
    assert_eq!(stage.times("write_report", ""), [113_500, 115_000]);
}

#[test]
fn with_nothing_to_save_and_nobody_there_the_report_is_written_at_once() {
    let mut stage = Stage::with(&[]);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!(stage.times("write_report", ""), [0]);
    assert!(stage.report().unwrap().complete);
    stage.until(200_000);
    assert_eq!(stage.times("write_report", ""), [0]);
}

#[test]
fn a_report_that_hangs_is_not_in_the_way_of_the_one_at_the_deadline() {
    let mut stage = Stage::with(&[pod("web")]).by_hand(&["write_report"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(116_000);
    assert_eq!(stage.times("write_report", ""), [113_500, 115_100]);
}

#[test]
fn a_pod_that_finishes_on_the_way_is_waited_for_no_longer() {
    let job = pod("job");
    let mut stage = Stage::with(std::slice::from_ref(&job));
    stage.answers.insert("evict job".into(), failed(FailureKind::Refused));
    stage.notice(TERMINATE, "n", 120);
    stage.until(10_000);
    stage.sees(&PodFacts { owner: Owner::Finished, running: false, ..job });
    assert!(stage.report().unwrap().complete);
    assert_eq!(stage.entry("job").unwrap().departure, DepartureOutcome::Stays);
}

#[test]
fn the_most_important_engine_flushes_alone_first_and_a_hanging_one_is_not_waited_for_long() {
    let ranked = |name: &str, priority: i32| evacuation::pod::PodFacts { priority, ..stateful(name) };
    let pods = [ranked("gold", 1000), ranked("twin", 1000), ranked("silver", 100)];
    let mut stage = Stage::with(&pods).by_hand(&["flush"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(2_000);
    assert_eq!(
        (stage.times("flush", "gold"), stage.times("flush", "twin")),
        (vec![0], vec![0]),
        "of one value: together"
    );
    assert!(stage.times("flush", "silver").is_empty(), "it would share the disk");
    stage.done("flush", "gold");
    assert!(stage.times("flush", "silver").is_empty());
    stage.done("flush", "twin");
    assert_eq!(stage.times("flush", "silver"), [2_000], "as soon as they are through");

    let mut stage = Stage::with(&pods).by_hand(&["flush"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(60_000);
    assert_eq!(stage.times("flush", "silver"), [5_000], "it hangs: five seconds, no more");
}

/// A final flush of an engine that has shown nothing of its weights.
fn unproven() -> Stage {
    let mut stage = Stage::with(&[stateful("gold")]);
    let flushed = Outcome::Done(Done::Flushed { bytes: 1 << 30, evidence: false });
    stage.answers.insert("flush gold".into(), flushed);
    stage
}

#[test]
fn an_engine_without_evidence_is_probed_while_its_state_is_sent() {
    let mut stage = unproven().by_hand(&["save", "probe_engine"]);
    stage.notice(TERMINATE, "n", 120);
    assert_eq!((stage.times("save", "gold"), stage.times("probe_engine", "gold")), (vec![0], vec![0]));
    assert_eq!(stage.due("probe_engine", "gold"), Some(2_000), "two seconds at most");
    stage.done("save", "gold");
    assert!(stage.times("commit", "gold").is_empty(), "the manifest is to hold what it shows");
    stage.answers_now("probe_engine", "gold", Outcome::Done(Done::Probed));
    assert_eq!(stage.times("commit", "gold"), [0]);
    stage.until(120_000);
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::Saved);
}

#[test]
fn a_state_without_evidence_is_never_called_saved() {
    let mut stage = unproven().by_hand(&["probe_engine"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(1_999);
    assert!(stage.times("commit", "gold").is_empty());
    stage.until(2_001);
    assert_eq!(stage.times("commit", "gold").len(), 1, "what has no answer is not waited for longer");
    stage.until(120_000);
    let entry = stage.entry("gold").unwrap();
    assert_eq!(entry.state, StateOutcome::SavedWithoutEvidence);
    assert!(entry.state_reason.unwrap().contains("lifeboat.dev/compat-key"));
    let told = |action: &Action| matches!(action, Action::Pod { action: PodAction::Publish(event), .. } if event.reason == "SavedWithoutEvidence" && event.warning);
    assert!(stage.asked.iter().any(|(_, action)| told(action)));
}

#[test]
fn a_probe_takes_a_tenth_of_what_is_left_at_most() {
    let mut stage = unproven().by_hand(&["probe_engine"]);
    stage.notice(TERMINATE, "n", 15);
    assert_eq!(stage.times("probe_engine", "gold"), [0]);
    let due = stage.due("probe_engine", "gold").unwrap();
    assert!(due <= 1_000, "{due}");
}

#[test]
fn a_probe_goes_on_when_the_deadline_moves_nearer() {
    let mut stage = unproven().by_hand(&["save", "probe_engine"]);
    stage.notice(TERMINATE, "n", 120);
    stage.until(500);
    stage.notice(TERMINATE, "nearer", 60);
    assert_eq!(stage.times("save", "gold"), [0, 500], "with less time");
    stage.answers_now("probe_engine", "gold", Outcome::Done(Done::Probed));
    stage.done("save", "gold");
    stage.until(60_000);
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::Saved);
}

#[test]
fn what_an_earlier_life_saved_without_evidence_is_not_called_saved() {
    let mut stage = Stage::with(&[stateful("gold")]);
    let kept = Done::IntentWritten { committed: Some(("gold/1-1".into(), 1 << 30)), evidence: false };
    stage.answers.insert("write_intent gold".into(), Outcome::Done(kept));
    stage.notice(TERMINATE, "n", 120);
    stage.until(120_000);
    assert_eq!(stage.entry("gold").unwrap().state, StateOutcome::SavedWithoutEvidence);
}
