//! Whether a pod's template can land on a node: nodeSelector, required node affinity and taints, as the scheduler reads
//! them. Transient taints of a node (`node.kubernetes.io/…`, our own) are not looked at: they go again.

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, PodSpec, Taint, Toleration};
use std::collections::BTreeMap;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Land {
    /// It can.
    Yes,
    /// The node's labels are not those that are asked for.
    Labels,
    /// A taint that is not tolerated.
    Taint {
        /// Its key.
        key: String,
        /// Its effect.
        effect: String,
    },
}

/// Whether it can.
pub fn lands(spec: &PodSpec, node: &Node) -> Land {
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    if !selected || !is_attracted(spec, labels) {
        return Land::Labels;
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let refuses = |taint: &&Taint| {
        let lasting =
            !taint.key.starts_with("node.kubernetes.io/") && !taint.key.starts_with("lifeboat.dev/");
        let hard = matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        lasting && hard && !spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
    };
    match taints.into_iter().find(refuses) {
        Some(taint) => Land::Taint { key: taint.key.clone(), effect: taint.effect.clone() },
        None => Land::Yes,
    }
}

/// It tolerates every taint of this key and effect.
pub fn tolerates_key(spec: &PodSpec, key: &str, effect: &str) -> bool {
    let taint = Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
    spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, &taint))
}

/// `ToleratesTaint` of the scheduler, without the operators Lt and Gt, which then tolerate nothing.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        "Equal" => {
            key == taint.key
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// Its required node affinity, as far as that is about labels: one term is enough.
fn is_attracted(spec: &PodSpec, labels: &BTreeMap<String, String>) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, labels)))
}

fn matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>) -> bool {
    term.match_expressions.iter().flatten().all(|asked| {
        let found = labels.get(&asked.key);
        let listed = || found.is_some_and(|found| asked.values.iter().flatten().any(|value| value == found));
        match asked.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            // Gt and Lt: taken as met, so that no node is left out that may count.
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(mut more: Value) -> PodSpec {
        more["containers"] = json!([]);
        serde_json::from_value(more).unwrap()
    }

    fn node(taints: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"labels": {"pool": "gpu"}}, "spec": {"taints": taints}}))
            .unwrap()
    }

    #[test]
    fn a_taint_is_tolerated_by_key_value_and_effect_as_the_scheduler_reads_them() {
        let tainted = node(json!([{"key": "gpu", "value": "a", "effect": "NoSchedule"}]));
        let with =
            |toleration: Value| lands(&spec(json!({"tolerations": [toleration]})), &tainted) == Land::Yes;
        assert!(with(json!({"operator": "Exists"})), "everything");
        assert!(with(json!({"key": "gpu", "operator": "Exists"})));
        assert!(with(json!({"key": "gpu", "value": "a"})), "Equal is what is meant without an operator");
        assert!(!with(json!({"key": "gpu", "value": "b"})));
        assert!(!with(json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"})));
        assert!(!with(json!({"key": "other", "operator": "Exists"})));
    }

    #[test]
    fn what_passes_or_is_only_a_preference_keeps_nobody_away() {
        for taint in [
            json!({"key": "gpu", "effect": "PreferNoSchedule"}),
            json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}),
            json!({"key": "lifeboat.dev/interruption", "effect": "NoSchedule"}),
        ] {
            assert_eq!(lands(&spec(json!({})), &node(json!([taint]))), Land::Yes, "{taint}");
        }
    }

    #[test]
    fn labels_that_are_asked_for_must_be_there() {
        let bare = node(json!([]));
        assert_eq!(lands(&spec(json!({"nodeSelector": {"pool": "gpu"}})), &bare), Land::Yes);
        assert_eq!(lands(&spec(json!({"nodeSelector": {"pool": "cpu"}})), &bare), Land::Labels);
        let affinity = |terms: Value| {
            let required =
                json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
            lands(&spec(json!({"affinity": {"nodeAffinity": required}})), &bare)
        };
        let is = |operator: &str, value: &str| json!({"matchExpressions": [{"key": "pool", "operator": operator, "values": [value]}]});
        assert_eq!(affinity(json!([is("In", "cpu")])), Land::Labels);
        assert_eq!(affinity(json!([is("In", "cpu"), is("In", "gpu")])), Land::Yes, "one term is enough");
        assert_eq!(affinity(json!([is("NotIn", "gpu")])), Land::Labels);
    }

    #[test]
    fn everything_is_tolerated_only_by_what_names_no_other_effect() {
        let exists = |more: Value| {
            tolerates_key(&spec(json!({"tolerations": [more]})), "karpenter.sh/disrupted", "NoSchedule")
        };
        assert!(exists(json!({"operator": "Exists"})));
        assert!(!exists(json!({"operator": "Exists", "effect": "NoExecute"})), "as the base has it");
    }
}
