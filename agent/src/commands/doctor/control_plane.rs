//! The API server: whether it answers, its version, its clock, and the admission policies that keep the agent's account on
//! its own node.

use super::finding::Finding;
use super::rights::Way;
use crate::commands::doctor::cluster_reads::{ClusterReads, ReadResult, Unread, Version, one};
use crate::kube::Cluster;
use futures::future::join_all;
use serde_json::Value;

/// Nothing older was tried (manifests/overlays/before-1.36).
const OLDEST: u32 = 30;
/// The first with constrained impersonation and MutatingAdmissionPolicy.
const NEWEST_KIND: u32 = 36;
/// manifests/base/policy.yaml and fleet.yaml; a test keeps it so.
const POLICIES: [&str; 5] = [
    "lifeboat-agent-nodes",
    "lifeboat-agent-pods",
    "lifeboat-agent-events",
    "lifeboat-agent-leases",
    "lifeboat-fleet",
];
/// manifests/base/admission.yaml.
const OPT_IN: &str = "lifeboat-opt-in";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// It answers, and is one that lifeboat runs on.
pub fn check(sight: &ClusterReads, way: Way) -> Vec<Finding> {
    const CHECK: &str = "api-server";
    match (&sight.who, &sight.version) {
        (Err(unread), _) => vec![
            Finding::failure(CHECK, format!("it does not answer: {}", unread.why))
                .because("the agent cannot cordon, evict or see pods without it")
                .mend("look at the kubeconfig or service account, DNS, and the network to the control plane: kubectl get --raw /readyz"),
        ],
        (Ok(_), Err(unread)) => vec![Finding::skipped(CHECK, "its version", &unread.why)],
        (Ok(_), Ok(version)) => vec![judge_version(version, way)],
    }
}

fn judge_version(version: &Version, way: Way) -> Finding {
    const CHECK: &str = "api-server";
    let text = &version.text;
    match version.minor {
        minor if minor < OLDEST => {
            Finding::failure(CHECK, format!("Kubernetes {text} is older than 1.{OLDEST}"))
                .because(
                    "tokens name no node there, so the admission policies refuse all that the agent changes",
                )
                .mend(format!("upgrade the cluster to 1.{OLDEST} or newer"))
        }
        minor if minor < NEWEST_KIND && way == Way::AsNode => Finding::failure(
            CHECK,
            format!("Kubernetes {text} has no constrained impersonation, and the agent is told to use it"),
        )
        .because("every eviction is refused")
        .mend("use manifests/overlays/before-1.36 (LIFEBOAT_IMPERSONATE_NODE=false and the right to evict)"),
        minor if minor < NEWEST_KIND => {
            Finding::ok(CHECK, format!("Kubernetes {text}: overlays/before-1.36 is for it"))
        }
        _ => Finding::ok(CHECK, format!("Kubernetes {text}")),
    }
}

/// Reads the policies and judges them.
pub async fn policies(cluster: &Cluster, minor: Option<u32>, account: &str) -> Vec<Finding> {
    let read = |name: &'static str| async move {
        let policy =
            one::<Value>(cluster, format!("{ADMISSION}/validatingadmissionpolicies/{name}"), name).await;
        let binding =
            one::<Value>(cluster, format!("{ADMISSION}/validatingadmissionpolicybindings/{name}"), name)
                .await;
        judge_policy(name, &policy, &binding, account)
    };
    let mut found = join_all(POLICIES.into_iter().map(read)).await;
    if minor.is_none_or(|minor| minor >= NEWEST_KIND) {
        let policy =
            one::<Value>(cluster, format!("{ADMISSION}/mutatingadmissionpolicies/{OPT_IN}"), OPT_IN).await;
        let binding =
            one::<Value>(cluster, format!("{ADMISSION}/mutatingadmissionpolicybindings/{OPT_IN}"), OPT_IN)
                .await;
        found.push(judge_opt_in(&policy, &binding));
    }
    found
}

fn judge_policy(
    name: &str,
    policy: &ReadResult<Option<Value>>,
    binding: &ReadResult<Option<Value>>,
    account: &str,
) -> Finding {
    const CHECK: &str = "policies";
    const WHY: &str =
        "RBAC cannot say \"of its own node\": without this a stolen token of one node changes others too";
    let (policy, binding) = match (policy, binding) {
        (Ok(policy), Ok(binding)) => (policy, binding),
        (Err(unread), _) | (_, Err(unread)) => {
            return not_read(CHECK, "the admission policies of lifeboat", unread);
        }
    };
    let failure = |what: String, fix: &str| {
        Finding::failure(CHECK, what)
            .because(WHY)
            .mend(format!("{fix}: manifests/base/policy.yaml (kubectl apply -k OVERLAY)"))
    };
    let Some(policy) = policy else {
        return failure(format!("ValidatingAdmissionPolicy {name} is missing"), "apply the manifests again");
    };
    let Some(binding) = binding else {
        return failure(
            format!("ValidatingAdmissionPolicyBinding {name} is missing"),
            "apply the manifests again",
        );
    };
    let actions = binding["spec"]["validationActions"].as_array();
    if !actions.is_some_and(|actions| actions.iter().any(|action| action == "Deny")) {
        return failure(
            format!("the binding of {name} does not deny, it only tells"),
            "set validationActions to [Deny, Audit]",
        );
    }
    if policy["spec"]["failurePolicy"] == "Ignore" {
        return failure(format!("{name} lets pass what it cannot judge"), "set failurePolicy to Fail");
    }
    let about = name.starts_with("lifeboat-agent").then_some(account);
    if let Some(account) = about
        && !policy["spec"]["matchConditions"].to_string().contains(account)
    {
        return failure(format!("{name} is not about {account}"), "name the account in its matchConditions");
    }
    Finding::ok(CHECK, "the admission policies are there and deny").about(name)
}

fn judge_opt_in(policy: &ReadResult<Option<Value>>, binding: &ReadResult<Option<Value>>) -> Finding {
    const CHECK: &str = "opt-in-policy";
    match (policy, binding) {
        (Err(unread), _) | (_, Err(unread)) => not_read(CHECK, "the policy that completes pods", unread),
        (Ok(Some(_)), Ok(Some(_))) => Finding::ok(
            CHECK,
            "pods that opt in get gate, volume and hold by MutatingAdmissionPolicy lifeboat-opt-in",
        ),
        (Ok(_), Ok(_)) => {
            Finding::note(CHECK, "MutatingAdmissionPolicy lifeboat-opt-in or its binding is missing")
                .because("a pod must then say readiness gate, volume and preStop itself")
                .mend("apply manifests/base/admission.yaml")
        }
    }
}

/// Skipped where whoever asks may not, a failure otherwise.
pub fn not_read(check: &'static str, what: &str, unread: &Unread) -> Finding {
    match unread.forbidden {
        true => Finding::skipped(check, what, format!("{}; look with a kubeconfig that may", unread.why)),
        false => Finding::failure(check, format!("{what} could not be read: {}", unread.why))
            .mend("run it again; look at the API server"),
    }
}

/// Another clock, by how much it is ahead of this machine's, in milliseconds.
pub fn judge_clock(whose: &str, ahead: i64) -> Finding {
    const CHECK: &str = "clock";
    let seconds = ahead.unsigned_abs() / 1000;
    let way = if ahead > 0 { "behind" } else { "ahead of" };
    let what = format!("this machine's clock is {seconds} s {way} {whose}'s");
    let fix = "synchronise it: chronyc tracking; on EC2 use 169.254.169.123 as chrony's server";
    match seconds {
        0..5 => Finding::ok(CHECK, format!("this machine's clock agrees with {whose}'s")),
        5..60 => Finding::note(CHECK, what)
            .because("only times for people are wrong by that; deadlines do not use it")
            .mend(fix),
        60..600 => Finding::warning(CHECK, what)
            .because("tokens and certificates may seem expired, and S3 refuses at 900 s")
            .mend(fix),
        _ => Finding::failure(CHECK, what)
            .because("S3 refuses requests that are signed more than 15 minutes off")
            .mend(fix),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use serde_json::json;

    const ACCOUNT: &str = "system:serviceaccount:lifeboat-system:lifeboat-agent";

    fn policy(change: impl FnOnce(&mut Value, &mut Value)) -> Finding {
        let mut policy = json!({"spec": {"failurePolicy": "Fail",
            "matchConditions": [{"expression": format!("request.userInfo.username == '{ACCOUNT}'")}]}});
        let mut binding = json!({"spec": {"validationActions": ["Deny", "Audit"]}});
        change(&mut policy, &mut binding);
        judge_policy("lifeboat-agent-nodes", &Ok(Some(policy)), &Ok(Some(binding)), ACCOUNT)
    }

    #[test]
    fn a_policy_counts_if_it_denies_fails_closed_and_is_about_the_agent() {
        assert_eq!(policy(|_, _| ()).severity, Severity::Ok);
        let audit = policy(|_, binding| binding["spec"]["validationActions"] = json!(["Audit"]));
        assert!(audit.severity == Severity::Failure && audit.what.contains("deny"), "{audit:?}");
        let open = policy(|policy, _| policy["spec"]["failurePolicy"] = json!("Ignore"));
        assert!(open.severity == Severity::Failure && open.fix.contains("Fail"), "{open:?}");
        let other = policy(|policy, _| {
            policy["spec"]["matchConditions"] = json!([{"expression": "'elsewhere:lifeboat-agent'"}])
        });
        assert!(other.severity == Severity::Failure && other.what.contains(ACCOUNT), "{other:?}");
    }

    #[test]
    fn a_policy_or_a_binding_that_is_missing_is_named() {
        let there = || Ok(Some(json!({})));
        let none = judge_policy("lifeboat-agent-pods", &Ok(None), &there(), ACCOUNT);
        assert!(
            none.severity == Severity::Failure && none.what.contains("lifeboat-agent-pods is missing"),
            "{none:?}"
        );
        let none = judge_policy("lifeboat-agent-pods", &there(), &Ok(None), ACCOUNT);
        assert!(none.what.contains("Binding"), "{none:?}");
        let unread = Unread { why: "403".into(), forbidden: true };
        assert_eq!(judge_policy("x", &Err(unread), &there(), ACCOUNT).severity, Severity::Skipped);
    }

    #[test]
    fn the_names_are_those_of_the_manifests() {
        let both = concat!(
            include_str!("../../../../manifests/base/policy.yaml"),
            include_str!("../../../../manifests/base/fleet.yaml")
        );
        let mut named: Vec<&str> =
            both.lines().filter_map(|line| line.trim().strip_prefix("policyName: ")).collect();
        let mut known = POLICIES.to_vec();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
        assert!(
            include_str!("../../../../manifests/base/admission.yaml")
                .contains(&format!("policyName: {OPT_IN}"))
        );
    }

    #[test]
    fn a_version_is_judged_with_the_way_of_evicting() {
        let judge =
            |minor, way| judge_version(&Version { minor, text: format!("v1.{minor}.0") }, way).severity;
        assert_eq!(judge(29, Way::Itself), Severity::Failure);
        assert_eq!(judge(35, Way::AsNode), Severity::Failure);
        assert_eq!(judge(35, Way::Itself), Severity::Ok);
        assert_eq!(judge(36, Way::AsNode), Severity::Ok);
    }

    #[test]
    fn a_clock_is_judged_by_what_its_error_breaks() {
        let judge = |ahead| judge_clock("the store", ahead).severity;
        assert_eq!(judge(-4_999), Severity::Ok);
        assert_eq!(judge(30_000), Severity::Note);
        assert_eq!(judge(-120_000), Severity::Warning);
        assert_eq!(judge(900_000), Severity::Failure);
        assert!(judge_clock("S3", 30_000).what.contains("behind S3's"));
    }
}
