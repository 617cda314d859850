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

#[test]
fn what_a_store_is_used_for_is_checked_with_it() {
    let store = ["--store", "dir:/tmp/x"];
    let with = |more: &[&str]| refused(&[&store[..], more].concat());
    let often = with(&["--adopt-every", "10ms"]);
    assert!(often.contains("LIFEBOAT_ADOPT_EVERY") && often.contains("30s"), "{often}");
    let early = with(&["--adopt-after", "0s"]);
    assert!(early.contains("LIFEBOAT_ADOPT_AFTER") && early.contains("2m"), "{early}");
    let garbage = with(&["--collect-garbage-every", "1s"]);
    assert!(garbage.contains("LIFEBOAT_COLLECT_GARBAGE_EVERY") && garbage.contains("1h"), "{garbage}");
    let grace = with(&["--collect-garbage-every", "1h", "--grace", "1m"]);
    assert!(grace.contains("grace"), "{grace}");
    let cluster = with(&["--cluster-name", "a/b"]);
    assert!(cluster.starts_with("--cluster-name"), "{cluster}");
    let nothing = refused(&["--collect-garbage-every", "1h"]);
    assert!(nothing.contains("LIFEBOAT_STORE"), "{nothing}");
}

#[test]
fn garbage_is_collected_only_where_it_is_asked_for() {
    let settings = |more: &[&str]| {
        let all = ["fleet", "--identity", "fleet-1", "--node-name", "node-a"].iter().chain(more);
        Cli::try_parse_from(all).unwrap().fleet.validate().unwrap()
    };
    assert!(settings(&[]).stored.is_none());
    let store = ["--store", "dir:/tmp/x"];
    assert!(settings(&store).stored.unwrap().garbage.is_none());
    let (every, policy) = settings(&[&store[..], &["--collect-garbage-every", "1h", "--keep", "5"]].concat())
        .stored
        .unwrap()
        .garbage
        .unwrap();
    assert_eq!((every.as_secs(), policy.keep), (3600, 5));
}
