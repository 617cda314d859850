use super::table::EffectLabels;
use super::*;
use crate::fleet::reports::{PodSummary, Reading, Summary};
use crate::runtime::metrics::kinds::{End, FaultKind, Went};
use evacuation::effect::Action;
use evacuation::event::Done;
use prometheus_client::metrics::MetricType;

#[test]
fn what_is_counted_is_in_the_text() {
    let metrics = Metrics::new();
    metrics.imds_error(FaultKind::Timeout);
    let anomaly = Action::Anomaly { what: String::new() };
    let refused = Outcome::Failed { kind: FailureKind::Refused, why: String::new() };
    metrics.effect(ActionName::from(&anomaly), &refused, Span::from_secs(1));
    metrics.save(&Outcome::Done(Done::Nothing), Span::from_secs(2), 100, 40);
    metrics.kube_request(RequestVerb::Create, RequestCode::of("429"), Span::from_millis(3));
    metrics.cordoned(Span::from_millis(30));
    let text = metrics.render();
    for line in [
        "lifeboat_imds_errors_total{kind=\"timeout\"} 1",
        "lifeboat_effects_total{action=\"anomaly\",outcome=\"refused\"} 1",
        "lifeboat_state_saved_bytes_total 100",
        "lifeboat_state_sent_bytes_total 40",
        "lifeboat_kube_requests_total{verb=\"create\",code=\"429\"} 1",
        "lifeboat_notice_to_cordon_seconds_count 1",
        concat!("lifeboat_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1.0"),
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_status_outside_its_set_is_counted_as_other() {
    let metrics = Metrics::new();
    metrics.kube_request(RequestVerb::Create, RequestCode::of("418"), Span::ZERO);
    metrics.kube_request(RequestVerb::Create, RequestCode::of("599"), Span::ZERO);
    assert!(metrics.render().contains("lifeboat_kube_requests_total{verb=\"create\",code=\"other\"} 2"));
}

#[test]
fn a_pod_that_leaves_with_its_node_is_named_only_as_long_as_that_is_so() {
    let metrics = Metrics::new();
    let terminate = NoticeKind::Interruption(evacuation::notice::InstanceAction::Terminate);
    assert!(!metrics.render().contains("target_pod"), "{}", metrics.render());
    metrics.disrupted("chat", "llama-0", terminate);
    let line =
        "lifeboat_pod_disrupted{target_namespace=\"chat\",target_pod=\"llama-0\",reason=\"terminate\"} 1";
    let text = metrics.render();
    assert!(text.contains(line), "{text}");
    metrics.undisrupted();
    assert!(!metrics.render().contains("target_pod"), "{}", metrics.render());
}

#[test]
fn a_label_of_any_value_is_on_what_is_taken_away_again_and_nowhere_else() {
    let rows = rows();
    let open = rows.iter().filter(|row| row.labels.iter().any(Label::is_open)).map(|row| row.name);
    assert_eq!(open.collect::<Vec<_>>(), ["pod_disrupted"]);
}

/// The texts that a `match` over `of` gives, read from its source: the compiler sees to it that none is missing there.
fn texts<'s>(source: &'s str, of: &str) -> Vec<&'s str> {
    let arms = source.lines().filter(|line| line.trim_start().starts_with(of) && line.contains("=> \""));
    arms.filter_map(|line| line.split('"').nth(1)).collect()
}

#[test]
fn every_value_that_the_code_has_is_in_its_labels_set() {
    let rows = rows();
    let check = |metric: &str, label: usize, texts: Vec<&str>| {
        assert!(texts.len() > 1, "{metric}: {texts:?}");
        let row = rows.iter().find(|row| row.name == metric).unwrap();
        for text in texts {
            assert!(row.labels[label].values.iter().any(|value| value == text), "{text} is not in {metric}");
        }
    };
    // The others' lists are made from their enums by the compiler.
    check("effects", 1, texts(include_str!("labels.rs"), "Outcome::"));
    check("notices", 0, texts(include_str!("../../../core/src/notice.rs"), "NoticeKind::"));
}

#[test]
fn small_counters_are_there_at_zero_and_large_ones_and_gauges_are_not() {
    let text = Metrics::new().render();
    let series = |name: &str| {
        text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).collect::<Vec<_>>()
    };
    assert_eq!(series("lifeboat_late_answers_total"), ["lifeboat_late_answers_total 0"]);
    assert_eq!(series("lifeboat_engine_errors_total").len(), 3 * 8);
    assert_eq!(series("lifeboat_fleet_evacuations_total").len(), 5 * 4);
    assert!(series("lifeboat_fleet_evacuations_total").iter().all(|line| line.ends_with(" 0")));
    assert_eq!(EffectLabels::every().len(), 33 * 11);
    for absent in
        ["effects_total", "kube_requests_total", "store_usable", "fleet_leader", "pods", "plan_state_bytes"]
    {
        assert!(series(&format!("lifeboat_{absent}")).is_empty(), "{absent} is in\n{text}");
    }
}

/// Counts something of everything.
fn all_counted() -> Metrics {
    let metrics = Metrics::new();
    let (done, took) = (Outcome::Done(Done::Nothing), Span::from_millis(70));
    metrics.imds_reachable(true);
    metrics.journal_written(true);
    metrics.journal_lines_lost(1);
    metrics.evacuating(true);
    metrics.announcements(&[NoticeKind::Rebalance]);
    metrics.disrupted("chat", "llama-0", NoticeKind::Rebalance);
    metrics.effect(ActionName::from(&Action::Anomaly { what: String::new() }), &done, took);
    metrics.link(1);
    metrics.headroom(None);
    metrics.plan_state(&Plan {
        format: 1,
        node: "n".into(),
        window: took,
        link: None,
        headroom: None,
        safe: 0,
        at_risk: 0,
        pods: Vec::new(),
        advice: None,
    });
    metrics.store_usable(true);
    metrics.claims(ClaimsPlace::Lease, Reason::Ignored);
    metrics.read_rate(1.0);
    metrics.kube_request(RequestVerb::Get, RequestCode::TIMEOUT, took);
    metrics.pods(1, 2);
    metrics.fleet_leader(true);
    metrics.fleet_waiting(1);
    metrics.fleet_behind(1, 2);
    metrics.fleet_garbage(true, took, 1, 2);
    metrics
}

#[test]
fn each_row_is_exposed_under_its_documented_name() {
    let text = all_counted().render();
    for row in rows() {
        let name = row.full_name();
        let name = if let MetricType::Histogram = row.kind { format!("{name}_bucket") } else { name };
        let shown = text.lines().any(|line| {
            line.strip_prefix(&name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        });
        assert!(shown, "{name} is not in\n{text}");
    }
}

#[test]
fn a_report_is_counted_by_its_kind_its_end_and_what_became_of_each_pod() {
    let metrics = Metrics::new();
    let took = Span::from_secs(9);
    let pod = |departure, state| PodSummary {
        departure,
        state,
        bytes: 100,
        sent: 40,
        refusals: 2,
        committed: None,
        gone: Some(took),
    };
    let evacuation = Summary {
        kind: NoticeKind::Rebalance,
        end: End::Late,
        took,
        cordoned: None,
        pods: vec![
            pod(DepartureOutcome::Gone, StateOutcome::Partial),
            pod(DepartureOutcome::Abandoned, StateOutcome::Lost),
        ],
    };
    metrics.fleet_counts(
        &[Reading::Drill, Reading::Newer(2), Reading::Evacuation(evacuation)],
        [Went::WithReport],
    );
    let text = metrics.render();
    for line in [
        "lifeboat_fleet_reports_total{outcome=\"adopted\"} 1",
        "lifeboat_fleet_reports_total{outcome=\"drill\"} 1",
        "lifeboat_fleet_evacuations_total{kind=\"rebalance\",outcome=\"late\"} 1",
        "lifeboat_fleet_departures_total{outcome=\"abandoned\"} 1",
        "lifeboat_fleet_states_total{outcome=\"lost\"} 1",
        "lifeboat_fleet_state_bytes_total{outcome=\"partial\"} 100",
        "lifeboat_fleet_state_sent_bytes_total 80",
        "lifeboat_fleet_evictions_refused_total 4",
        "lifeboat_fleet_notice_to_gone_seconds_count 2",
        "lifeboat_fleet_spot_nodes_gone_total{how=\"with_report\"} 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
}
