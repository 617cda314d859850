//! Disruption budgets that never allow an eviction, and pods that more than one of them selects.

use super::control_plane::not_read;
use super::finding::Finding;
use crate::commands::doctor::cluster_reads::{ReadResult, name, opted_in};
use evacuation::policy::RespectPdb;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

const CHECK: &str = "budgets";

/// Judges the budgets of pods that opted in.
pub fn check(
    budgets: &ReadResult<Vec<PodDisruptionBudget>>,
    pods: &ReadResult<Vec<Pod>>,
    respect: RespectPdb,
) -> Vec<Finding> {
    let Ok(pods) = pods else { return vec![] };
    let budgets = match budgets {
        Ok(budgets) => budgets,
        Err(unread) => return vec![not_read(CHECK, "disruption budgets", unread)],
    };
    let mut found = Vec::new();
    let mut watched = 0;
    for pod in pods.iter().filter(|pod| opted_in(pod)) {
        let over: Vec<&PodDisruptionBudget> = budgets.iter().filter(|budget| selects(budget, pod)).collect();
        watched += over.len();
        if over.len() > 1 {
            let names = over.iter().map(|budget| called(budget)).collect::<Vec<_>>().join(", ");
            found.push(
                Finding::warning(CHECK, format!("two disruption budgets select the same pod: {names}"))
                    .because(
                        "the API server then refuses every eviction of it with an error, whatever they allow",
                    )
                    .mend("make their selectors disjoint, or delete one of them")
                    .about(name(pod)),
            );
        }
        found.extend(
            over.into_iter().filter(|budget| never_allows(budget)).map(|budget| never(budget, pod, respect)),
        );
    }
    if found.is_empty() {
        let what = match watched {
            0 => "no disruption budget is over an opted-in pod".to_owned(),
            _ => "the disruption budgets of opted-in pods allow an eviction".to_owned(),
        };
        found.push(Finding::ok(CHECK, what));
    }
    found
}

fn never(budget: &PodDisruptionBudget, pod: &Pod, respect: RespectPdb) -> Finding {
    let budget = called(budget);
    let what = format!("disruption budget {budget} never allows an eviction");
    let fix = format!(
        "let one pod go: kubectl -n {} patch pdb {} --type merge -p '{{\"spec\":{{\"minAvailable\":null,\"maxUnavailable\":1}}}}', with two replicas or more",
        budget.split('/').next().unwrap_or_default(),
        budget.split('/').nth(1).unwrap_or_default()
    );
    let finding = match respect {
        RespectPdb::Always => Finding::failure(CHECK, what).because("with --respect-pdb always the pod stays and dies with its node"),
        RespectPdb::UntilDeadline => Finding::warning(CHECK, what).because(
            "under a notice its replacement is made only at the pod's last safe second, when lifeboat deletes it; and every drain \
             of the node by others hangs",
        ),
    };
    finding.mend(fix).about(name(pod))
}

fn called(budget: &PodDisruptionBudget) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&budget.metadata.namespace), part(&budget.metadata.name))
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    if budget.metadata.namespace != pod.metadata.namespace {
        return false;
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    // No selector selects none, an empty one all.
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    selector
        .is_some_and(|selector| Selector::try_from(selector).is_ok_and(|selector| selector.matches(&labels)))
}

/// By what it says, and where that depends on how many pods there are by what the disruption controller made of it.
fn never_allows(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    let says = |value: &Option<IntOrString>, percent: &str| match value {
        Some(IntOrString::String(text)) => text.trim() == percent,
        Some(IntOrString::Int(_)) | None => false,
    };
    if spec.max_unavailable == Some(IntOrString::Int(0))
        || says(&spec.max_unavailable, "0%")
        || says(&spec.min_available, "100%")
    {
        return true;
    }
    budget
        .status
        .as_ref()
        .is_some_and(|status| status.expected_pods > 0 && status.desired_healthy >= status.expected_pods)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use serde_json::{Value, json};

    fn pod() -> Pod {
        serde_json::from_value(
            json!({"metadata": {"namespace": "chat", "name": "a", "labels": {"app": "chat"},
            "annotations": {"lifeboat.dev/engine": "http"}}}),
        )
        .unwrap()
    }

    fn budget(name: &str, spec: Value, expected: i32, desired: i32) -> PodDisruptionBudget {
        let mut spec = spec;
        if spec.get("selector").is_none() {
            spec["selector"] = json!({"matchLabels": {"app": "chat"}});
        }
        serde_json::from_value(json!({"metadata": {"namespace": "chat", "name": name}, "spec": spec,
            "status": {"expectedPods": expected, "desiredHealthy": desired, "currentHealthy": 0, "disruptionsAllowed": 0}}))
        .unwrap()
    }

    fn found(budgets: Vec<PodDisruptionBudget>) -> Vec<Finding> {
        check(&Ok(budgets), &Ok(vec![pod()]), RespectPdb::UntilDeadline)
    }

    #[test]
    fn a_budget_that_allows_nobody_ever_is_named_with_its_pod() {
        for (spec, expected, desired) in [
            (json!({"maxUnavailable": 0}), 0, 0),
            (json!({"maxUnavailable": "0%"}), 0, 0),
            (json!({"minAvailable": "100%"}), 0, 0),
            (json!({"minAvailable": 2}), 2, 2),
        ] {
            let found = found(vec![budget("strict", spec.clone(), expected, desired)]);
            assert_eq!(found[0].severity, Severity::Warning, "{spec}");
            assert!(found[0].what.contains("chat/strict") && found[0].about == ["chat/a"], "{found:?}");
            assert!(found[0].fix.contains("-n chat patch pdb strict"), "{found:?}");
        }
    }

    #[test]
    fn one_that_allows_some_and_one_over_others_are_as_they_should_be() {
        let other = json!({"maxUnavailable": 0, "selector": {"matchLabels": {"app": "other"}}});
        for budgets in [
            vec![],
            vec![budget("one", json!({"maxUnavailable": 1}), 2, 1)],
            vec![budget("half", json!({"minAvailable": "50%"}), 2, 1)],
            vec![budget("other", other, 1, 1)],
        ] {
            assert_eq!(found(budgets.clone())[0].severity, Severity::Ok, "{budgets:?}");
        }
    }

    #[test]
    fn selectors_by_expressions_count_and_an_empty_one_selects_all() {
        let by = |selector: Value| {
            found(vec![budget("x", json!({"maxUnavailable": 0, "selector": selector}), 1, 1)])[0].severity
        };
        assert_eq!(
            by(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["chat", "b"]}]})),
            Severity::Warning
        );
        assert_eq!(
            by(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["chat"]}]})),
            Severity::Ok
        );
        assert_eq!(by(json!({})), Severity::Warning);
    }

    #[test]
    fn two_budgets_over_one_pod_refuse_for_ever() {
        let found = found(vec![
            budget("a", json!({"maxUnavailable": 1}), 2, 1),
            budget("b", json!({"maxUnavailable": 1}), 2, 1),
        ]);
        assert!(found.len() == 1 && found[0].what.contains("chat/a, chat/b"), "{found:?}");
    }

    #[test]
    fn where_budgets_are_always_respected_such_a_pod_dies_with_its_node() {
        let budgets = Ok(vec![budget("strict", json!({"maxUnavailable": 0}), 1, 1)]);
        assert_eq!(check(&budgets, &Ok(vec![pod()]), RespectPdb::Always)[0].severity, Severity::Failure);
    }
}
