//! What the agent's account may do: all that it needs, and no more.
//!
//! The API server is asked, right by right: as the agent itself by SelfSubjectAccessReview, which everybody may, and as
//! anybody else by SubjectAccessReview about the agent's account. What the admission policies then take back does not
//! show here.

use super::finding::Finding;
use crate::commands::doctor::cluster_reads::{PATIENCE, ReadResult, Unread, Version, Who, unread};
use crate::kube::Cluster;
use crate::kube::call::Call;
use futures::{StreamExt, stream};
use host::clock;
use serde_json::{Value, json};

const CHECK: &str = "rights";
/// Questions at once.
const AT_ONCE: usize = 6;
/// The first minor version with constrained impersonation.
const IMPERSONATION: u32 = 36;

/// A verb on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Right {
    verb: &'static str,
    group: &'static str,
    /// With its subresource, as RBAC writes it.
    resource: &'static str,
    /// In the agent's namespace only.
    own_namespace: bool,
    /// What does not work without it, or what it would allow.
    why: &'static str,
}

const fn right(verb: &'static str, resource: &'static str, why: &'static str) -> Right {
    Right { verb, group: "", resource, own_namespace: false, why }
}

const fn lease(verb: &'static str) -> Right {
    let why = "claims as Leases, where the store does not decide conditional writes, are impossible";
    Right { verb, group: "coordination.k8s.io", resource: "leases", own_namespace: true, why }
}

/// manifests/base/rbac.yaml; a test keeps it so.
const NEEDED: [Right; 13] = [
    right("get", "nodes", "the agent cannot look at its node after a lost race, so a cordon may fail"),
    right("list", "nodes", "the agent never sees its own node and is never ready"),
    right("watch", "nodes", "the agent never sees its own node and is never ready"),
    right("patch", "nodes", "no cordon, no taint, no deadline on the node: new pods land on a dying node"),
    right(
        "get",
        "pods",
        "whether the writer of a checkpoint still lives cannot be told, so its state cannot be claimed",
    ),
    right("list", "pods", "the agent sees no pods: nothing is saved, held or restored"),
    right("watch", "pods", "the agent sees no pods: nothing is saved, held or restored"),
    right(
        "delete",
        "pods",
        "a pod that a disruption budget keeps is not let go at its last safe second and dies unsaved",
    ),
    right(
        "patch",
        "pods/status",
        "no readiness gate is ever opened: restored pods get no traffic until the fleet role opens it",
    ),
    right("create", "events", "reports and restores leave no Events"),
    lease("get"),
    lease("create"),
    lease("update"),
];

const WITHOUT_EVICTION: &str =
    "nothing can be evicted: pods stay until they are deleted at their last safe second";

/// How it evicts on Kubernetes 1.36 and newer.
const IMPERSONATING: [Right; 2] = [
    Right {
        verb: "impersonate:associated-node",
        group: "authentication.k8s.io",
        resource: "nodes",
        own_namespace: false,
        why: WITHOUT_EVICTION,
    },
    right("impersonate-on:associated-node:create", "pods/eviction", WITHOUT_EVICTION),
];

/// How it evicts before that.
const EVICTING: Right = right("create", "pods/eviction", WITHOUT_EVICTION);

/// What it must not have: with the token of one stolen node somebody could.
const FORBIDDEN: [Right; 13] = [
    right("get", "secrets", "read every secret of the cluster"),
    right("list", "secrets", "read every secret of the cluster"),
    right("create", "pods", "run anything anywhere"),
    right("update", "pods", "change the image of any pod"),
    right("patch", "pods", "change the image of any pod"),
    right("create", "pods/exec", "run commands in any pod"),
    right("delete", "nodes", "remove nodes"),
    right("create", "nodes/proxy", "run commands in any pod through its kubelet"),
    right("create", "serviceaccounts/token", "become any service account"),
    right("impersonate", "users", "become anybody"),
    right("deletecollection", "pods", "delete all pods at once"),
    Right {
        verb: "bind",
        group: "rbac.authorization.k8s.io",
        resource: "clusterroles",
        own_namespace: false,
        why: "give itself any right",
    },
    Right { verb: "*", group: "*", resource: "*", own_namespace: false, why: "do anything" },
];

/// How the agent is told to evict, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As its node (`--impersonate-node`).
    AsNode,
    /// As its own account.
    Itself,
    /// Its settings are not known here.
    Unknown,
}

/// The answers, in the order of the questions.
type Answers = Vec<(Right, ReadResult<bool>)>;

/// Asks, and judges.
pub async fn check(
    cluster: &Cluster,
    who: &ReadResult<Who>,
    version: &ReadResult<Version>,
    account: &str,
    namespace: &str,
    way: Way,
) -> Vec<Finding> {
    let Ok(who) = who else { return vec![] };
    let this = who.name == account;
    let ask = |right: Right| async move {
        let answer = allowed(cluster, right, (!this).then_some(account), namespace).await;
        (right, answer)
    };
    let all = NEEDED.iter().chain(&IMPERSONATING).chain([&EVICTING]).chain(&FORBIDDEN);
    let answers: Answers = stream::iter(all.copied()).map(ask).buffered(AT_ONCE).collect().await;
    let minor = version.as_ref().ok().map(|version| version.minor);
    let mut found = judge(&answers, account, way, minor);
    if this && who.node.is_none() {
        found.push(
            Finding::failure(CHECK, "the token of this agent names no node")
                .because("the admission policies then refuse everything that it changes")
                .mend("use the token that the kubelet mounts (automountServiceAccountToken), not one made by hand; Kubernetes 1.30 or newer"),
        );
    }
    found
}

async fn allowed(
    cluster: &Cluster,
    right: Right,
    account: Option<&str>,
    namespace: &str,
) -> ReadResult<bool> {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let mut spec = json!({"resourceAttributes": {
        "namespace": if right.own_namespace { namespace } else { "" },
        "verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource,
    }});
    let kind = match account {
        None => "SelfSubjectAccessReview",
        Some(account) => {
            spec["user"] = account.into();
            spec["groups"] = json!([
                "system:serviceaccounts",
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated"
            ]);
            "SubjectAccessReview"
        }
    };
    let path = format!("/apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    let call = Call::create(path, format!("a {kind} for {} {}", right.verb, right.resource), body);
    let answer: Value = cluster.send(call, clock::now() + PATIENCE).await.map_err(|error| unread(&error))?;
    Ok(answer["status"]["allowed"] == true)
}

fn judge(answers: &Answers, account: &str, way: Way, minor: Option<u32>) -> Vec<Finding> {
    if let Some((_, Err(Unread { why, forbidden }))) = answers.iter().find(|(_, answer)| answer.is_err()) {
        let what = format!("what {account} may do");
        return vec![match forbidden {
            true => Finding::skipped(
                CHECK,
                what,
                format!("{why}; ask as the agent: kubectl exec ds/lifeboat -- lifeboat doctor"),
            ),
            false => Finding::failure(CHECK, format!("{what} could not be asked: {why}")).mend("try again"),
        }];
    }
    let has = |right: &Right| answers.iter().any(|(asked, answer)| asked == right && *answer == Ok(true));
    let as_node = IMPERSONATING.iter().all(has);
    // Where its settings are not known, either way is enough.
    let eviction: Vec<Right> = match way {
        Way::AsNode => IMPERSONATING.to_vec(),
        Way::Itself => vec![EVICTING],
        Way::Unknown if as_node => IMPERSONATING.to_vec(),
        Way::Unknown if has(&EVICTING) || minor.is_some_and(|minor| minor < IMPERSONATION) => vec![EVICTING],
        Way::Unknown => IMPERSONATING.to_vec(),
    };
    let missing = NEEDED.iter().chain(&eviction).filter(|right| !has(right));
    let mut found: Vec<Finding> = missing.map(|right| lacks(right, account)).collect();
    found.extend(FORBIDDEN.iter().filter(|right| has(right)).map(|right| exceeds(right, account)));
    if as_node && way != Way::Itself && has(&EVICTING) {
        let what = format!("{account} may create pods/eviction, although it evicts as its node");
        let fix =
            "remove the rule for pods/eviction create from its roles: manifests/base/rbac.yaml has none";
        found.push(
            Finding::warning(CHECK, what)
                .because("a stolen token of one node could evict any pod of the cluster")
                .mend(fix),
        );
    }
    if eviction == [EVICTING] && minor.is_some_and(|minor| minor >= IMPERSONATION) && has(&EVICTING) {
        found.push(
            Finding::note(
                CHECK,
                "the agent evicts as its own account, on a Kubernetes that has constrained impersonation",
            )
            .because("a stolen token of one node could evict any pod of the cluster")
            .mend("use manifests/base instead of overlays/before-1.36 (LIFEBOAT_IMPERSONATE_NODE=true)"),
        );
    }
    if found.is_empty() {
        let asked = NEEDED.len() + eviction.len();
        found.push(Finding::ok(
            CHECK,
            format!(
                "{account} has the {asked} rights that it needs, and none of {} that it must not have",
                FORBIDDEN.len()
            ),
        ));
    }
    found
}

fn lacks(right: &Right, account: &str) -> Finding {
    let place = if right.own_namespace { "Role lifeboat-agent-claims" } else { "ClusterRole lifeboat-agent" };
    let role = if right.resource == "pods/eviction" || right.group == "authentication.k8s.io" {
        "ClusterRole lifeboat-agent-eviction"
    } else {
        place
    };
    Finding::failure(CHECK, format!("{account} may not {} {}", right.verb, right.resource))
        .because(right.why)
        .mend(format!(
            "apply the manifests of your overlay again: {role} has the rule (kubectl apply -k OVERLAY)"
        ))
}

fn exceeds(right: &Right, account: &str) -> Finding {
    Finding::warning(CHECK, format!("{account} may {} {}", right.verb, right.resource))
        .because(format!("whoever takes over one node could {} with its agent's token", right.why))
        .mend(format!("find the role and remove its binding: kubectl get clusterrolebindings,rolebindings -A -o wide | grep {account}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    const ACCOUNT: &str = "system:serviceaccount:lifeboat-system:lifeboat-agent";

    /// Answers as RBAC would with exactly what the base has, then changed.
    fn answers(change: impl Fn(&Right) -> Option<bool>) -> Answers {
        let all = NEEDED.iter().chain(&IMPERSONATING).chain([&EVICTING]).chain(&FORBIDDEN);
        all.map(|right| {
            let base = NEEDED.contains(right) || IMPERSONATING.contains(right);
            (*right, Ok(change(right).unwrap_or(base)))
        })
        .collect()
    }

    fn severities(found: &[Finding]) -> Vec<Severity> {
        found.iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn what_the_base_grants_is_as_it_should_be_whether_the_settings_are_known_or_not() {
        for way in [Way::AsNode, Way::Unknown] {
            assert_eq!(
                severities(&judge(&answers(|_| None), ACCOUNT, way, Some(36))),
                [Severity::Ok],
                "{way:?}"
            );
        }
    }

    #[test]
    fn each_right_that_is_missing_is_named_with_what_does_not_work() {
        for gone in NEEDED.iter().chain(&IMPERSONATING) {
            let found =
                judge(&answers(|right| (right == gone).then_some(false)), ACCOUNT, Way::AsNode, Some(36));
            assert_eq!(severities(&found), [Severity::Failure], "{gone:?}");
            assert!(found[0].what.contains(gone.verb) && found[0].what.contains(gone.resource), "{found:?}");
            assert!(!found[0].why.is_empty() && found[0].fix.contains("Role lifeboat-agent"), "{found:?}");
        }
    }

    #[test]
    fn each_right_too_many_is_a_warning_that_names_it() {
        for more in &FORBIDDEN {
            let found =
                judge(&answers(|right| (right == more).then_some(true)), ACCOUNT, Way::AsNode, Some(36));
            assert_eq!(severities(&found), [Severity::Warning], "{more:?}");
            assert!(found[0].what.contains(more.resource), "{found:?}");
        }
        let found =
            judge(&answers(|right| (*right == EVICTING).then_some(true)), ACCOUNT, Way::AsNode, Some(36));
        assert_eq!(severities(&found), [Severity::Warning], "pods/eviction beside impersonation");
    }

    #[test]
    fn before_impersonation_the_account_itself_evicts() {
        let older = |right: &Right| match right {
            right if *right == EVICTING => Some(true),
            right if IMPERSONATING.contains(right) => Some(false),
            _ => None,
        };
        assert_eq!(severities(&judge(&answers(older), ACCOUNT, Way::Itself, Some(34))), [Severity::Ok]);
        assert_eq!(severities(&judge(&answers(older), ACCOUNT, Way::Unknown, Some(34))), [Severity::Ok]);
        assert_eq!(severities(&judge(&answers(older), ACCOUNT, Way::Unknown, Some(36))), [Severity::Note]);
        // Told to impersonate, and not allowed to.
        let found = judge(&answers(older), ACCOUNT, Way::AsNode, Some(36));
        assert!(
            found.iter().filter(|finding| finding.severity == Severity::Failure).count() == 2,
            "{found:?}"
        );
    }

    #[test]
    fn whoever_may_not_ask_skips_and_an_outage_is_a_failure() {
        for (forbidden, severity) in [(true, Severity::Skipped), (false, Severity::Failure)] {
            let mut all = answers(|_| None);
            all[3].1 = Err(Unread { why: "no".into(), forbidden });
            assert_eq!(severities(&judge(&all, ACCOUNT, Way::AsNode, None)), [severity]);
        }
    }

    /// `verb resource`, of every rule of the text, in its own flow style.
    fn rules(yaml: &str) -> Vec<String> {
        let list = |line: &str, key: &str| -> Option<Vec<String>> {
            let inside = line.trim().trim_start_matches("- ").strip_prefix(key)?.trim();
            let inside = inside.strip_prefix('[')?.strip_suffix(']')?;
            Some(inside.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect())
        };
        let (mut resources, mut found) = (Vec::new(), Vec::new());
        for line in yaml.lines() {
            if let Some(these) = list(line, "resources:") {
                resources = these;
            } else if let Some(verbs) = list(line, "verbs:") {
                found.extend(
                    resources.iter().flat_map(|of| verbs.iter().map(move |verb| format!("{verb} {of}"))),
                );
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_table_is_the_roles_of_the_manifests() {
        let mut table: Vec<String> = NEEDED
            .iter()
            .chain(&IMPERSONATING)
            .map(|right| format!("{} {}", right.verb, right.resource))
            .collect();
        table.sort();
        assert_eq!(table, rules(include_str!("../../../../manifests/base/rbac.yaml")));
    }
}
