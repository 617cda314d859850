//! The protocol, spoken with a real HTTP client.

use super::{Identity, Imds, Reply, TOKEN, TOKEN_TTL};
use evacuation::moment::Span;
use evacuation::notice::InstanceAction;
use fault_plan::Fault;
use host::clock;
use http::StatusCode;
use jiff::Timestamp;
use std::time::Duration;

async fn imds(faults: &[&str]) -> Imds {
    let identity = Identity { instance: "i-1".into(), zone: "us-east-1a".into(), spot: true };
    let faults: Vec<Fault> = faults.iter().map(|text| text.parse().unwrap()).collect();
    Imds::start(identity, &faults).await.unwrap()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(500)).build().unwrap()
}

async fn token(imds: &Imds, ttl: &str) -> reqwest::Response {
    client().put(format!("{}/latest/api/token", imds.url())).header(TOKEN_TTL, ttl).send().await.unwrap()
}

async fn get(imds: &Imds, token: &str, path: &str) -> reqwest::Response {
    let url = format!("{}/latest/meta-data/{path}", imds.url());
    client().get(url).header(TOKEN, token).send().await.unwrap()
}

#[tokio::test]
async fn a_token_needs_a_ttl_from_1_to_21600_and_everything_else_needs_a_token() {
    let imds = imds(&[]).await;
    for bad in ["0", "21601", "-1", "soon"] {
        assert_eq!(token(&imds, bad).await.status(), 400, "{bad}");
    }
    let answer = token(&imds, "60").await;
    assert_eq!(answer.headers()[TOKEN_TTL], "60");
    let token = answer.text().await.unwrap();
    assert_eq!(get(&imds, "", "instance-id").await.status(), 401);
    assert_eq!(get(&imds, "wrong", "instance-id").await.status(), 401);
    assert_eq!(get(&imds, &token, "instance-id").await.text().await.unwrap(), "i-1");
    assert_eq!(get(&imds, &token, "instance-life-cycle").await.text().await.unwrap(), "spot");
    assert_eq!(get(&imds, &token, "events/maintenance/scheduled").await.text().await.unwrap(), "[]");
}

#[tokio::test]
async fn a_token_runs_out() {
    let imds = imds(&[]).await;
    let token = token(&imds, "1").await.text().await.unwrap();
    assert_eq!(get(&imds, &token, "instance-id").await.status(), 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(get(&imds, &token, "instance-id").await.status(), 401);
}

#[tokio::test]
async fn there_is_no_notice_until_there_is_one_and_it_has_a_date_to_count_from() {
    let imds = imds(&[]).await;
    let token = token(&imds, "60").await.text().await.unwrap();
    let none = get(&imds, &token, "spot/instance-action").await;
    assert_eq!(none.status(), 404);
    assert!(none.text().await.unwrap().starts_with("<?xml"));
    let time = Timestamp::from_second(1_900_000_000).unwrap();
    imds.interrupt(InstanceAction::Stop, time, None);
    let answer = get(&imds, &token, "spot/instance-action").await;
    let date = answer.headers()["date"].to_str().unwrap().to_owned();
    assert!(date.ends_with(" GMT"), "{date}");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body, serde_json::json!({"action": "stop", "time": "2030-03-17T17:46:40Z"}));
    assert_eq!(get(&imds, &token, "spot/termination-time").await.status(), 404, "only where it terminates");
    assert_eq!(get(&imds, &token, "events/recommendations/rebalance").await.status(), 404);
    imds.recommend_rebalance();
    assert_eq!(get(&imds, &token, "events/recommendations/rebalance").await.status(), 200);
    imds.withdraw();
    assert_eq!(get(&imds, &token, "spot/instance-action").await.status(), 404);
}

#[tokio::test]
async fn a_repeated_notice_moves_with_every_poll() {
    let imds = imds(&[]).await;
    let token = token(&imds, "60").await.text().await.unwrap();
    imds.interrupt(InstanceAction::Terminate, Timestamp::now(), Some(Span::from_secs(30)));
    let first = get(&imds, &token, "spot/instance-action").await.text().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_ne!(first, get(&imds, &token, "spot/instance-action").await.text().await.unwrap());
}

#[tokio::test]
async fn each_fault_of_the_plan_is_what_it_says() {
    for (fault, says) in
        [("imds=503", "503"), ("imds=garbage", "garbage"), ("imds=401*1", "401"), ("imds=hang", "hang")]
    {
        let imds = imds(&[fault]).await;
        let token = token(&imds, "60").await.text().await.unwrap();
        assert_eq!(get(&imds, &token, "instance-id").await.status(), 200, "{fault}: not before the notice");
        imds.begin(clock::now());
        let url = format!("{}/latest/meta-data/instance-id", imds.url());
        let answer = client().get(url).header(TOKEN, &token).send().await;
        match says {
            "hang" => assert!(answer.unwrap_err().is_timeout()),
            "garbage" => assert!(answer.unwrap().json::<serde_json::Value>().await.is_err()),
            code => assert_eq!(answer.unwrap().status().as_str(), code),
        }
        assert!(imds.struck(says), "{fault}");
    }
}

#[tokio::test]
async fn while_it_is_down_connections_are_refused_and_then_it_is_back() {
    let imds = imds(&["imds=down@0s+1s"]).await;
    let token = token(&imds, "60").await.text().await.unwrap();
    imds.begin(clock::now());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let url = format!("{}/latest/meta-data/instance-id", imds.url());
    assert!(client().get(&url).header(TOKEN, &token).send().await.unwrap_err().is_connect());
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(get(&imds, &token, "instance-id").await.status(), 200);
}

#[tokio::test]
async fn a_scripted_answer_needs_a_token_too_and_may_have_a_date_of_its_own() {
    let imds = imds(&[]).await;
    let token = token(&imds, "60").await.text().await.unwrap();
    imds.set("meta-data/instance-id", Reply::ok("scripted").dated("Mon, 01 Jan 2018 08:20:00 GMT"));
    imds.once("meta-data/instance-id", Reply::status(StatusCode::NOT_FOUND));
    assert_eq!(get(&imds, "wrong", "instance-id").await.status(), 401);
    assert_eq!(get(&imds, &token, "instance-id").await.status(), 404);
    let answer = get(&imds, &token, "instance-id").await;
    assert_eq!(answer.headers()["date"], "Mon, 01 Jan 2018 08:20:00 GMT");
    assert_eq!(answer.text().await.unwrap(), "scripted");
    assert_eq!(imds.connections(), 4, "each client of these tests makes its own");
    imds.limit_tokens(1);
    assert_eq!(self::token(&imds, "60").await.headers()[TOKEN_TTL], "1");
}
