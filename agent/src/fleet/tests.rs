use super::*;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    fleet: FleetArgs,
}

/// The error of these arguments, beside those that are needed anyway.
fn refused(arguments: &[&str]) -> String {
    let all = ["fleet", "--identity", "fleet-1", "--node-name", "node-a"].iter().chain(arguments);
    Cli::try_parse_from(all).unwrap().fleet.validate().unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_said_with_the_flag_the_variable_and_the_fix() {
    let missing = Cli::try_parse_from(["fleet", "--node-name", "node-a"]).unwrap().fleet.validate();
    assert_eq!(
        missing.unwrap_err().to_string(),
        "--identity (POD_NAME) is missing: set it to metadata.name of the pod"
    );
    let namespace = refused(&["--namespace", "a/b"]);
    assert!(namespace.starts_with("--namespace (POD_NAMESPACE) \"a/b\""), "{namespace}");
    let short = refused(&["--orphan-after", "100ms"]);
    assert!(short.contains("LIFEBOAT_ORPHAN_AFTER") && short.contains("60s"), "{short}");
}

#[test]
fn a_minute_is_the_time_that_is_waited() {
    let settings = Cli::try_parse_from(["fleet", "--identity", "fleet-1", "--node-name", "node-a"])
        .unwrap()
        .fleet
        .validate()
        .unwrap();
    assert_eq!(settings.orphan_after, Span::from_secs(60));
    assert_eq!(settings.namespace, None);
}
