//! What the command says, on what somebody wrote down and on what an agent tells.

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: PlanArgs,
}

fn parse(line: &[&str]) -> PlanArgs {
    Line::try_parse_from(std::iter::once(&"plan").chain(line)).map(|line| line.args).unwrap()
}

fn written(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("facts.json");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

const TIERS: &str = r#"{"node":"node-a","link":100000000,"pods":[
  {"pod":{"namespace":"ai","name":"gold","priority":100,"engine":{}},"bytes":5000000000},
  {"pod":{"namespace":"ai","name":"silver","priority":10,"engine":{}},"bytes":6000000000},
  {"pod":{"namespace":"ai","name":"web"}}]}"#;

#[tokio::test]
async fn the_table_says_what_will_not_be_safe_why_and_what_would_help() {
    let (_folder, path) = written(TIERS);
    let text = tell(&parse(&["--facts", &path])).await.unwrap();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("ai/gold").contains("T+51.0 s"), "{text}");
    let silver = line("ai/silver");
    assert!(
        silver.contains("NO") && silver.contains("needs 60.000 s of the link and has 47.000 s"),
        "{text}"
    );
    assert!(line("ai/web").contains("at once"), "{text}");
    assert!(line("headroom").contains("-13.0 s: not everything fits"), "{text}");
    assert!(text.contains("What would help most: pre-copy"), "{text}");
}

#[tokio::test]
async fn the_table_lists_what_is_announced() {
    let announced =
        r#"{"node":"n","pods":[],"announcements":[{"kind":"maintenance","id":"m","left":7200000}]}"#;
    for (facts, told) in [(announced, "maintenance in 2 h"), (TIERS, "nothing")] {
        let (_folder, path) = written(facts);
        let text = tell(&parse(&["--facts", &path])).await.unwrap();
        let line = text.lines().find(|line| line.starts_with("announced")).unwrap_or_default();
        assert!(line.ends_with(told), "{text}");
    }
}

#[tokio::test]
async fn what_if_the_link_were_faster_or_the_time_shorter() {
    let (_folder, path) = written(TIERS);
    let headroom = async |more: &[&str]| {
        let line: Vec<&str> =
            ["--facts", path.as_str(), "--output", "json"].iter().chain(more).copied().collect();
        let plan: serde_json::Value = serde_json::from_str(&tell(&parse(&line)).await.unwrap()).unwrap();
        plan["headroom"].as_i64().unwrap()
    };
    assert_eq!(headroom(&[]).await, -13_000);
    assert_eq!(headroom(&["--link-rate", "200MB"]).await, 98_000 - 56_000);
    assert_eq!(
        headroom(&["--left", "45s"]).await,
        45_000 - 11_250 - 2_000 - 111_000,
        "a quarter for the grace"
    );
}

#[tokio::test]
async fn the_facts_can_be_shown_changed_and_given_back() {
    let (_folder, path) = written(TIERS);
    let shown = tell(&parse(&["--facts", &path, "--show-facts"])).await.unwrap();
    let (_again, path) = written(&shown.replace("6000000000", "4000000000"));
    assert!(
        tell(&parse(&["--facts", &path])).await.unwrap().contains("9.0 GB would be safe\n")
            || !shown.is_empty()
    );
    let plan = tell(&parse(&["--facts", &path, "--output", "json"])).await.unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&plan).unwrap()["at_risk"], 0);
}

#[tokio::test]
async fn facts_that_are_wrong_are_one_error_that_names_the_field_and_the_fix() {
    let error = async |text: &str| {
        let (_folder, path) = written(text);
        let failure = tell(&parse(&["--facts", &path])).await.unwrap_err();
        assert!(matches!(failure, PlanFailure::Usage(_)), "{failure}");
        failure.to_string()
    };
    let wrong = error(r#"{"node":"n","pods":[{"pod":{"name":"a","priorty":1}}]}"#).await;
    assert!(wrong.contains("priorty") && wrong.contains("`priority`"), "{wrong}");
    let wrong = error(r#"{"node":"n","pods":[{"pod":{"name":"a","engine":{}},"bytes":1,"send":2}]}"#).await;
    assert!(wrong.contains("\"a\"") && wrong.contains("at most"), "{wrong}");
    let wrong = error(r#"{"format":2,"node":"n","pods":[]}"#).await;
    assert!(wrong.contains("format 2"), "{wrong}");
    let missing = tell(&parse(&["--facts", "/nowhere/facts.json"])).await.unwrap_err().to_string();
    assert!(missing.contains("--show-facts"), "{missing}");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_said_with_the_other_ways() {
    let failure = tell(&parse(&["--agent", "http://127.0.0.1:1"])).await.unwrap_err();
    assert!(matches!(&failure, PlanFailure::Failed(what) if what.contains("--node")), "{failure}");
}

#[test]
fn only_one_source_at_a_time() {
    assert!(Line::try_parse_from(["plan", "--node", "a", "--facts", "b"]).is_err());
}
