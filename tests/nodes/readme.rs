//! README.md's way from nothing to a passed `doctor` and a passed drill of a live node, and the way back of
//! docs/operations.md, run as they are written there.
//!
//! kubectl, the API server, the kubelets, the S3 server and llama-server are real; the image and the overlay are the shipped
//! ones. `$EDITOR` is a script that does what a user does: it fills in what stands in capitals, takes the component, and
//! adds what is different on the testbed (tests/testbed/manifests). What it cannot show is AWS: the role, and the registry.

use crate::cast::{gate, name, node, ready, replacement, text, uid};
use crate::marks::{everything_of_node, is_clean};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use testbed::{Testbed, parts};

/// A user at work. What is still in capitals afterwards was forgotten.
const EDITOR: &str = r#"#!/bin/bash
set -eu
case $1 in
*/kustomization.yaml)
    cp "$TESTBED/node-folders.yaml" "$(dirname "$1")"
    sed -i -e 's#ACCOUNT.dkr.ecr.REGION.amazonaws.com/lifeboat#registry.local/lifeboat#' -e 's/newTag: VERSION.*/newTag: dev/' \
        -e 's#s3://BUCKET/PREFIX#s3://lifeboat/testbed#' -e 's/STORE_REGION=REGION/STORE_REGION=us-east-1/' \
        -e 's%^  # - ../../components/drill.*%  - ../../components/drill%' "$1"
    # The rest of the store's settings, as the testbed's own overlay has them.
    grep -E '^      - (LIFEBOAT_(STORE_(ENDPOINT|PATH_STYLE|CA_FILE)|PACK_SIZE|TRANSFER_MEMORY)|AWS_)' \
        "$TESTBED/kustomization.yaml" >"$1.more"
    sed -i -e "/LIFEBOAT_CLUSTER_NAME=CLUSTER/r $1.more" -e 's/CLUSTER_NAME=CLUSTER/CLUSTER_NAME=testbed/' "$1"
    printf '  - path: node-folders.yaml\n    target: {kind: DaemonSet, name: lifeboat}\n' >>"$1"
    ;;
*/llama-server.yaml)
    # This image has no entry point, and tells its threads apart from those of the other pods.
    sed -i -e 's#image: IMAGE#image: registry.local/llama-server:1\n          command: [/usr/bin/llama-server]#' \
        -e 's#-m, MODEL,#-m, /models/tiny-a.gguf, -np, "2", -c, "8192", -t, "1", --offline,#' "$1"
    ;;
esac
if grep -vE '^ *#' "$1" | grep -wE 'ACCOUNT|REGION|VERSION|BUCKET|PREFIX|CLUSTER|IMAGE|MODEL'; then exit 1; fi
"#;

/// The block of shell below the heading.
fn block(readme: &str) -> Result<&str> {
    let section = readme.split_once("\n## Install it\n").context("README.md has no section for this")?.1;
    let block = section.split_once("\n```sh\n").context("it has no block")?.1;
    Ok(block.split_once("\n```").context("its block does not end")?.0)
}

/// Lines from `from` to before `to`, with errors as a person sees them: the first one ends it.
fn run(bed: &Testbed, place: &Path, lines: &[&str]) -> Result<String> {
    let mut path = vec![place.join("bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &lines.join("\n")])
        .current_dir(place)
        .env("PATH", std::env::join_paths(path)?)
        .env("KUBECONFIG", bed.folder().kubeconfig("admin"))
        .env("EDITOR", place.join("bin/editor"))
        .env("TESTBED", parts::repository().join("tests/testbed/manifests"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}\n{said}\n{complained}", lines.join("\n"), output.status);
    Ok(said)
}

/// A checkout as a user has it, and the programs that he has installed.
fn checkout(bed: &Testbed, place: &Path) -> Result<()> {
    let copied =
        Command::new("cp").arg("-r").arg(parts::repository().join("manifests")).arg(place).status()?;
    ensure!(copied.success(), "the manifests cannot be copied");
    let programs = place.join("bin");
    std::fs::create_dir_all(&programs)?;
    std::os::unix::fs::symlink(bed.kubectl_path(), programs.join("kubectl"))?;
    std::os::unix::fs::symlink(parts::agent()?, programs.join("lifeboat"))?;
    let editor = programs.join("editor");
    std::fs::write(&editor, EDITOR)?;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Something to lose: a prompt in each of the server's slots. In both, since the agent asks a new engine for its weights in
/// one of them about now, and what comes in between is not put back (docs/limits.md).
async fn talk(pod: &Value) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}:8080/completion", text(pod, "/status/podIP"));
    for slot in 0..2 {
        let request = json!({"prompt": "all that was said ".repeat(60), "n_predict": 8, "id_slot": slot, "cache_prompt": true});
        let answer = http.post(&url).json(&request).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
    }
    Ok(())
}

#[tokio::test]
async fn the_readme_s_commands_lead_from_nothing_to_a_passed_doctor_and_a_passed_drill() -> Result<()> {
    let bed = Testbed::up(&["node-a", "node-b"]).await?;
    // What stands for the role of the nodes: the store's credentials and its CA.
    bed.install_credentials()?;
    let place = tempfile::tempdir()?;
    checkout(&bed, place.path())?;
    let readme = std::fs::read_to_string(parts::repository().join("README.md"))?;
    let lines: Vec<&str> = block(&readme)?.lines().collect();
    let rolled_out = lines.iter().position(|line| line.contains("deployment/llama-server"));
    let (before, after) = lines.split_at(rolled_out.context("nothing is rolled out")? + 1);

    run(&bed, place.path(), before)?;
    let old = ready(&bed, "llama-server", 1, None).await?.remove(0);
    talk(&old).await?;
    let said = run(&bed, place.path(), after)?;
    ensure!(said.contains("llama-server"), "neither the plan nor the drill speaks of the workload: {said}");
    let new = replacement(&bed, "llama-server", &old).await?;
    ensure!(node(&new) != node(&old), "{} is where {} was", name(&new), name(&old));
    ensure!(text(gate(&new)?, "/reason") == "Restored", "{}", gate(&new)?);
    ensure!(uid(&new) != uid(&old), "it was never moved");

    goes_away(&bed, place.path()).await
}

/// As docs/operations.md takes it away: the workload lives on, and nothing is left.
async fn goes_away(bed: &Testbed, place: &Path) -> Result<()> {
    let operations = std::fs::read_to_string(parts::repository().join("docs/operations.md"))?;
    let section = operations.split_once("\n## Taking it away\n").context("it is not told how")?.1;
    let delete =
        section.split('`').find(|word| word.starts_with("kubectl delete -k")).context("no command")?;
    let opt_out = json!([
        {"op": "remove", "path": "/spec/template/spec/readinessGates"},
        {"op": "remove", "path": "/spec/template/metadata/annotations/lifeboat.dev~1engine"},
    ]);
    bed.kubectl(&["patch", "deployment", "llama-server", "--type=json", "-p", &opt_out.to_string()])?;
    bed.kubectl(&["rollout", "status", "deployment/llama-server", "--timeout=120s"])?;
    bed.takes_rights_away();
    run(bed, place, &[delete])?;

    let kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,\
        mutatingadmissionpolicies,mutatingadmissionpolicybindings,daemonsets,deployments,leases,configmaps";
    let left = bed.kubectl(&["get", kinds, "-A", "-o", "name", "-l", "app.kubernetes.io/name=lifeboat"])?;
    ensure!(left.trim().is_empty(), "left in the cluster: {left}");
    let namespace = bed.get("/api/v1/namespaces/lifeboat-system").await?;
    ensure!(namespace.is_none(), "its namespace is left: {namespace:?}");
    for node in ["node-a", "node-b"] {
        let left = everything_of_node(bed, node).await?;
        ensure!(is_clean(&left) && !left.to_string().contains("lifeboat.dev/"), "{left}");
    }
    // The preStop is still there, and waits for nobody.
    let pod = ready(bed, "llama-server", 1, None).await?.remove(0);
    let began = std::time::Instant::now();
    bed.kubectl(&["delete", "pod", name(&pod), "--timeout=60s"])?;
    ensure!(
        began.elapsed().as_secs() < 30,
        "it took {} s to end without an agent",
        began.elapsed().as_secs()
    );
    ready(bed, "llama-server", 1, None).await.map(drop)
}
