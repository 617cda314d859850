//! The whole of it against an API server that answers as it is told: what is not reachable, refused or slow must not keep
//! the rest from being said. What real ones answer is in tests/nodes/doctor.rs.

use super::finding::Severity;
use super::*;
use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use clap::Parser;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    doctor: DoctorArgs,
}

fn args(more: &[&str]) -> DoctorArgs {
    let all = ["lifeboat", "--imds-endpoint=http://127.0.0.1:1", "--admin-addr=127.0.0.1:1"];
    Cli::try_parse_from(all.iter().chain(more)).unwrap().doctor
}

/// A kubeconfig of an API server that answers by this.
async fn api(folder: &Path, answer: fn(&Method, &str) -> (u16, Value)) -> PathBuf {
    let app = Router::new().fallback(move |request: Request| async move {
        let (code, body) = answer(request.method(), request.uri().path());
        (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": server}}], "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
    let path = folder.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn refused() -> (u16, Value) {
    (403, json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "it is forbidden"}))
}

/// Knows who asks, and refuses everything else.
fn only_who(_: &Method, path: &str) -> (u16, Value) {
    match path {
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
            (201, json!({"status": {"userInfo": {"username": "somebody"}}}))
        }
        "/version" => (200, json!({"major": "1", "minor": "36+", "gitVersion": "v1.36.0-eks-1"})),
        _ => refused(),
    }
}

fn of(report: &Report, check: &str) -> Vec<Severity> {
    report.findings.iter().filter(|one| one.check == check).map(|one| one.severity).collect()
}

#[tokio::test]
async fn what_may_not_be_read_is_skipped_with_the_reason_and_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = api(folder.path(), only_who).await;
    let report = examine(args(&["--kubeconfig", &kubeconfig.display().to_string()])).await.unwrap();
    assert_eq!(report.identity.as_deref(), Some("somebody"));
    assert_eq!(report.failures, 0, "{:#?}", report.findings);
    for check in
        ["imds", "store", "rights", "policies", "budgets", "agents", "daemonset", "fleet", "pods", "volumes"]
    {
        let found = if check == "budgets" { continue } else { of(&report, check) };
        assert!(found.contains(&Severity::Skipped), "{check}: {found:?}");
    }
    assert!(report.findings.iter().all(|one| one.severity != Severity::Skipped || !one.why.is_empty()));
}

#[tokio::test]
async fn an_api_server_that_is_down_hides_nothing_of_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = api(folder.path(), |_, _| (503, json!({"message": "down"}))).await;
    let store = format!("--store=dir:{}", folder.path().display());
    let report =
        examine(args(&["--node-name=node-a", &store, "--kubeconfig", &kubeconfig.display().to_string()]))
            .await
            .unwrap();
    assert_eq!(of(&report, "api-server"), [Severity::Failure]);
    assert_eq!(of(&report, "store"), [Severity::Ok]);
    assert_eq!(of(&report, "imds"), [Severity::Failure], "nobody listens at port 1");
    assert_eq!(of(&report, "agent"), [Severity::Skipped]);
}

#[tokio::test]
async fn a_wrong_setting_is_a_usage_error_that_names_it() {
    for (wrong, flag) in [("--pack-size=1KiB", "--pack-size"), ("--namespace=../x", "--namespace")] {
        match examine(args(&[wrong])).await {
            Err(DoctorFailure::Usage(why)) => assert!(why.contains(flag), "{why}"),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn with_neither_node_nor_cluster_there_is_nothing_to_look_at() {
    let failure = examine(args(&["--kubeconfig=/nowhere"])).await.unwrap_err();
    assert!(matches!(&failure, DoctorFailure::Failed(why) if why.contains("/nowhere")), "{failure}");
}

#[tokio::test]
async fn a_check_without_an_end_is_a_failure_of_that_check() {
    let found = bounded(Duration::from_millis(50), "store", std::future::pending()).await;
    assert_eq!((found[0].check, found[0].severity), ("store", Severity::Failure));
}
