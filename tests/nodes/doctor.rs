//! `lifeboat doctor` on a cluster that is set up as the manifests say, and on the same cluster with three things broken: in
//! the agent's pod, with the shipped image and rights, and from outside with an administrator's kubeconfig.
//!
//! The engine is ours (tests/testbed/src/engine.rs); no state moves here.

use crate::cast::{Template, budget, name, node, priority_classes, ready, text};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::Duration;
use testbed::Testbed;
use testbed::parts;

/// The exit code, and what was found.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    report: Value,
}

impl Told {
    fn of(output: &Output) -> Result<Self> {
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {said}"))?;
        Ok(Self { code: output.status.code(), report })
    }

    fn findings(&self) -> Result<&Vec<Value>> {
        self.report["findings"].as_array().context("no findings")
    }

    /// The finding of this check that has this in what it says.
    fn find(&self, check: &str, word: &str) -> Result<&Value> {
        let found =
            self.findings()?.iter().find(|one| one["check"] == check && text(one, "/what").contains(word));
        found.with_context(|| format!("{check} does not say {word:?}: {:#}", self.report))
    }

    /// As it is where nothing is broken.
    fn has_passed(&self, checks: &[&str]) -> Result<()> {
        ensure!(self.code == Some(0) && self.report["failures"] == 0, "{self:#?}");
        for check in checks {
            let ok = self.findings()?.iter().any(|one| one["check"] == *check && one["severity"] == "ok");
            ensure!(ok, "{check} is not ok: {:#}", self.report);
        }
        Ok(())
    }
}

/// As README.md has it: in the agent's pod, of the node that pod is on.
fn inside(bed: &Testbed, agent: &Value) -> Result<Told> {
    let output = Command::new(bed.kubectl_path())
        .arg("--kubeconfig")
        .arg(bed.folder().kubeconfig("admin"))
        .args(["-n", "lifeboat-system", "exec", name(agent), "--", "lifeboat", "doctor", "--output", "json"])
        .output()?;
    Told::of(&output)
}

/// From a laptop.
fn outside(bed: &Testbed) -> Result<Told> {
    let output = Command::new(parts::agent()?)
        .args(["doctor", "--output", "json", "--kubeconfig"])
        .arg(bed.folder().kubeconfig("admin"))
        .env_remove("NODE_NAME")
        .output()?;
    Told::of(&output)
}

/// Asks until the API server's authorizer has the changed role: it learns of it by a watch.
async fn until_told(
    bed: &Testbed,
    ask: impl Fn(&Testbed) -> Result<Told>,
    check: &str,
    word: &str,
) -> Result<Told> {
    bed.until(word, Duration::from_secs(40), async |bed| {
        let told = ask(bed)?;
        told.find(check, word)?;
        Ok(Some(told))
    })
    .await
}

fn about(finding: &Value) -> Vec<&str> {
    finding["about"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn what_is_set_up_right_passes_and_each_thing_that_is_broken_is_named() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    // A taint that the agent's DaemonSet does not tolerate.
    bed.kubectl(&["taint", "node", "node-b", "example.com/inference=:NoSchedule"])?;
    bed.install_manifests(&json!({}))?;
    bed.apply(&priority_classes())?;
    let chat = Template::engine("chat", 1, 1 << 20).priority("gold").on("node-a");
    let no_hold = Template::engine("no-hold", 2, 1 << 20)
        .priority("silver")
        .on("node-a")
        .not_held()
        .annotated("lifeboat.dev/inject", "off");
    let agent = bed
        .until("the agent of node-a", Duration::from_secs(60), async |bed| {
            let ready = |agent: &Value| testbed::bed::condition(agent, "Ready") == Some("True");
            Ok(bed.agents().await?.into_iter().find(|agent| node(agent) == "node-a" && ready(agent)))
        })
        .await?;
    bed.apply(&[chat.deployment(1)])?;
    let chat = ready(&bed, "chat", 1, Some("node-a")).await?.remove(0);
    let chat = format!("default/{}", name(&chat));

    let told = inside(&bed, &agent)?;
    told.has_passed(&[
        "imds",
        "store",
        "clock",
        "rights",
        "agent",
        "agents",
        "daemonset",
        "volumes",
        "engines",
        "pods",
    ])?;
    ensure!(told.report["identity"] == "system:serviceaccount:lifeboat-system:lifeboat-agent", "{told:#?}");
    ensure!(told.report["node"] == "node-a", "{told:#?}");
    // What the agent's account may not read, it says.
    for check in ["policies", "budgets"] {
        let skipped = told.findings()?.iter().find(|one| one["check"] == check).context("not told")?;
        ensure!(skipped["severity"] == "skipped" && text(skipped, "/why").contains("forbidden"), "{skipped}");
    }
    let told = outside(&bed)?;
    told.has_passed(&["api-server", "rights", "policies", "agents", "daemonset", "pods", "budgets"])?;

    // Three things, and a node that nobody thought of.
    bed.apply(&[no_hold.deployment(1)])?;
    let no_hold = format!("default/{}", name(&ready(&bed, "no-hold", 1, Some("node-a")).await?[0]));
    let tolerates = json!([{"key": "example.com/inference", "operator": "Exists", "effect": "NoSchedule"}]);
    let far = Template::engine("far", 3, 1 << 20).on("node-b").edit(|spec| spec["tolerations"] = tolerates);
    bed.apply(&[far.deployment(1), budget("strict", "chat", 0)])?;
    bed.until("far on node-b", Duration::from_secs(30), async |bed| {
        Ok(bed.pods("far").await?.iter().any(|pod| node(pod) == "node-b").then_some(()))
    })
    .await?;
    let role = bed
        .get("/apis/rbac.authorization.k8s.io/v1/clusterroles/lifeboat-agent")
        .await?
        .context("no role")?;
    let rules = role["rules"].as_array().context("no rules")?;
    let Some(at) = rules.iter().position(|rule| rule["resources"][0] == "pods/status") else {
        bail!("no rule for pods/status: {role}");
    };
    let patch = json!([{"op": "remove", "path": format!("/rules/{at}")}]).to_string();
    bed.kubectl(&["patch", "clusterrole", "lifeboat-agent", "--type", "json", "-p", &patch])?;

    let told = until_told(&bed, |bed| inside(bed, &agent), "rights", "may not patch pods/status").await?;
    ensure!(told.code == Some(1) && told.report["failures"] == 1, "{told:#?}");
    let hold = told.find("pod-hold", "preStop")?;
    ensure!(hold["severity"] == "warning" && about(hold) == [no_hold.as_str()], "{hold}");

    let told = until_told(&bed, outside, "rights", "may not patch pods/status").await?;
    ensure!(told.code == Some(1), "{told:#?}");
    let hold = told.find("pod-hold", "preStop")?;
    ensure!(about(hold) == [no_hold.as_str()], "{hold}");
    let strict = told.find("budgets", "default/strict never allows")?;
    ensure!(about(strict) == [chat.as_str()] && strict["severity"] == "warning", "{strict}");
    let missing = told.find("agents", "no agent is on a node")?;
    ensure!(about(missing) == ["node-b"] && missing["severity"] == "failure", "{missing}");
    ensure!(
        text(missing, "/fix").contains("{key: example.com/inference, operator: Exists, effect: NoSchedule}"),
        "{missing}"
    );
    ensure!(told.report["failures"] == 2, "the right and the node: {told:#?}");
    Ok(())
}
