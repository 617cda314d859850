//! The watch against a stand-in IMDS.

mod dateless;

use super::*;
use evacuation::notice::{InstanceAction, NoticeKind};
use fakes::imds::{self, Identity, Poll, Reply};
use host::clock;
use http::StatusCode;
use std::collections::BTreeSet;

const LIFE_CYCLE: &str = "meta-data/instance-life-cycle";
const INTERRUPTION: &str = "meta-data/spot/instance-action";
const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
const MAINTENANCE: &str = "meta-data/events/maintenance/scheduled";

/// Fast enough for a test, with time for an answer between.
const POLL: Duration = Duration::from_millis(20);
const DATE: &str = "Mon, 01 Jan 2018 08:20:00 GMT";

async fn instance(spot: bool) -> imds::Imds {
    let identity = Identity { instance: "i-1".into(), zone: "us-east-1a".into(), spot };
    imds::Imds::start(identity, &[]).await.unwrap()
}

fn code(code: u16) -> Reply {
    Reply::status(StatusCode::from_u16(code).unwrap())
}

/// The token that a request carried.
fn token(poll: &Poll) -> &str {
    poll.headers.get("x-aws-ec2-metadata-token").map_or("", |token| token.to_str().unwrap())
}

struct Running {
    fake: imds::Imds,
    events: mpsc::Receiver<ImdsEvent>,
    faults: Arc<Faults>,
    cancel: CancellationToken,
}

impl Running {
    async fn on(fake: imds::Imds) -> Self {
        let imds = Imds::new(&fake.url(), POLL).unwrap();
        let faults = imds.faults();
        let (out, events) = mpsc::channel(64);
        let cancel = CancellationToken::new();
        tokio::spawn(imds.watch(out, cancel.clone()));
        Self { fake, events, faults, cancel }
    }

    async fn spot() -> Self {
        let mut run = Self::on(instance(true).await).await;
        assert_eq!(run.next().await, ImdsEvent::LifeCycle(LifeCycle::Spot));
        assert_eq!(run.next().await, ImdsEvent::Reachable(true, "it answers".to_owned()));
        run
    }

    async fn next(&mut self) -> ImdsEvent {
        tokio::time::timeout(Duration::from_secs(5), self.events.recv())
            .await
            .expect("an event")
            .expect("a watch")
    }

    /// The next event that is not about being reachable or the life cycle.
    async fn next_notice(&mut self) -> ImdsEvent {
        loop {
            match self.next().await {
                ImdsEvent::Reachable(..) | ImdsEvent::LifeCycle(_) => {}
                event => return event,
            }
        }
    }

    async fn next_reachable(&mut self) -> (bool, String) {
        loop {
            if let ImdsEvent::Reachable(reachable, why) = self.next().await {
                return (reachable, why);
            }
        }
    }

    /// Nothing more is told while several polls go by.
    async fn quiet(&mut self) {
        tokio::time::sleep(POLL * 8).await;
        let told = self.events.try_recv();
        assert!(told.is_err(), "{told:?}");
    }

    fn count(&self, kind: FaultKind) -> u64 {
        self.faults.counts().find(|(counted, _)| *counted == kind).unwrap().1
    }
}

fn notice(event: ImdsEvent) -> Notice {
    match event {
        ImdsEvent::Notice(notice) => notice,
        other => panic!("not a notice: {other:?}"),
    }
}

#[tokio::test]
async fn time_left_is_counted_from_the_answers_own_date_whatever_the_nodes_clock_says() {
    let mut run = Running::spot().await;
    let body = r#"{"action": "terminate", "time": "2018-01-01T08:22:00Z"}"#;
    run.fake.set(INTERRUPTION, Reply::ok(body).dated(DATE));
    let seen = notice(run.next_notice().await);
    assert_eq!(seen.kind, NoticeKind::Interruption(InstanceAction::Terminate));
    assert_eq!(seen.left_ms, 120_000, "eight years ago by this machine's clock");
}

#[tokio::test]
async fn a_notice_is_told_once_and_again_only_when_it_changes() {
    let mut run = Running::spot().await;
    let body = |time: &str| Reply::ok(&format!(r#"{{"action":"stop","time":"{time}"}}"#)).dated(DATE);
    run.fake.set(INTERRUPTION, body("2018-01-01T08:22:00Z"));
    let first = notice(run.next_notice().await);
    run.quiet().await;
    run.fake.set(
        INTERRUPTION,
        Reply::ok("\n{ \"time\":\"2018-01-01T08:22:00Z\",\t\"action\":\"stop\" }").dated(DATE),
    );
    run.quiet().await;
    run.fake.set(INTERRUPTION, body("2018-01-01T08:21:00Z"));
    let second = notice(run.next_notice().await);
    assert_ne!(first.id, second.id);
    assert_eq!((first.left_ms, second.left_ms), (120_000, 60_000));
    run.quiet().await;
}

#[tokio::test]
async fn a_notice_is_withdrawn_after_two_answers_without_it_and_not_after_one() {
    let mut run = Running::spot().await;
    let body = r#"{"action":"terminate","time":"2018-01-01T08:22:00Z"}"#;
    run.fake.set(INTERRUPTION, Reply::ok(body).dated(DATE));
    let seen = notice(run.next_notice().await);
    run.fake.once(INTERRUPTION, code(404));
    run.quiet().await;
    run.fake.set(INTERRUPTION, code(404));
    assert_eq!(run.next_notice().await, ImdsEvent::Withdrawn { id: seen.id.clone(), is_over: false });
    run.fake.set(INTERRUPTION, Reply::ok(body).dated(DATE));
    assert_eq!(notice(run.next_notice().await).id, seen.id, "it came back");
}

#[tokio::test]
async fn a_fault_withdraws_nothing() {
    let mut run = Running::spot().await;
    run.fake.set(INTERRUPTION, Reply::ok(r#"{"action":"terminate","time":"2018-01-01T08:22:00Z"}"#));
    notice(run.next_notice().await);
    run.fake.set(INTERRUPTION, code(500));
    assert!(!run.next_reachable().await.0);
    run.quiet().await;
}

#[tokio::test]
async fn a_rebalance_recommendation_has_no_time_of_its_own() {
    let mut run = Running::spot().await;
    run.fake.set(REBALANCE, Reply::ok(r#"{"noticeTime": "2018-01-01T08:22:00Z"}"#).dated(DATE));
    let seen = notice(run.next_notice().await);
    assert_eq!((seen.kind, seen.left_ms), (NoticeKind::Rebalance, 0));
}

#[tokio::test]
async fn a_rebalance_recommendation_says_how_long_ago_it_was_given() {
    let mut run = Running::spot().await;
    run.fake.set(REBALANCE, Reply::ok(r#"{"noticeTime": "2018-01-01T08:05:00Z"}"#).dated(DATE));
    assert_eq!(notice(run.next_notice().await).left_ms, -15 * 60 * 1_000);
}

#[test]
fn of_more_events_than_are_followed_the_nearest_are() {
    let given = document::mail_date(DATE).unwrap();
    let event = |n: usize| {
        // The last one in the document ends first.
        let minute = 50 - n;
        format!(
            r#"{{"Code":"instance-stop","EventId":"e-{n}","NotBefore":"1 Jan 2018 09:{minute:02}:00 GMT","State":"active"}}"#
        )
    };
    let body = format!("[{}]", (0..40).map(event).collect::<Vec<_>>().join(","));
    let all = Document::Maintenance.read(body.as_bytes(), given, clock::now()).unwrap();
    let (first, last) = (all.notices[0].id.clone(), all.notices[39].id.clone());
    let mut told = Vec::new();
    ShownNotices::default().update(Document::Maintenance, all, &mut told);
    let told: Vec<_> = told.into_iter().map(|event| notice(event).id).collect();
    assert_eq!((told.len(), &told[0]), (32, &last));
    assert!(!told.contains(&first));
}

#[tokio::test]
async fn an_on_demand_node_is_asked_for_maintenance_and_no_more_for_interruptions() {
    let fake = instance(false).await;
    let body = r#"[
        {"Code":"system-reboot","Description":"scheduled","EventId":"instance-event-1","NotAfter":"21 Jan 2019 09:17:23 GMT",
         "NotBefore":"1 Jan 2018 09:20:00 GMT","State":"active"},
        {"Code":"instance-stop","EventId":"instance-event-2","NotBefore":"1 Jan 2018 09:20:00 GMT","State":"completed"},
        {"Code":"instance-stop","EventId":"instance-event-3","NotBefore":"1 Jan 2018 09:20:00 GMT","State":"canceled"},
        {"Code":"system-maintenance","EventId":"instance-event-4","NotBefore":"1 Jan 2018 09:20:00 GMT","State":"active"}
    ]"#;
    fake.set(MAINTENANCE, Reply::ok(body).dated(DATE));
    let mut run = Running::on(fake).await;
    let seen = notice(run.next().await);
    assert_eq!((seen.kind, seen.left_ms), (NoticeKind::Maintenance, 3_600_000));
    let event = seen.event.unwrap();
    assert!(
        !event.restart_completes && !event.resume_completes,
        "a reboot of the host is not one of the instance"
    );
    assert_eq!(event.window_left_ms, Some(((365 + 20) * 24 * 3600 + 57 * 60 + 23) * 1_000));
    assert_eq!(run.next().await, ImdsEvent::LifeCycle(LifeCycle::OnDemand));
    assert!(run.next_reachable().await.0, "404 is what such a node answers");
    run.quiet().await;
    let asked: Vec<String> = run.fake.polls().into_iter().map(|poll| poll.path).collect();
    for once in ["spot/", "rebalance"] {
        let times = asked.iter().filter(|path| path.contains(once)).count();
        assert_eq!(times, 1, "until the life cycle is known: {asked:?}");
    }
    assert_eq!(asked.iter().filter(|path| path.contains("maintenance")).count(), 1, "every 5 s: {asked:?}");
}

/// A list of one event, with more entries behind it.
fn events_and(state: &str, more: &str) -> String {
    format!(
        r#"[{{"Code":"instance-retirement","EventId":"e","NotBefore":"1 Jan 2018 09:20:00 GMT","State":"{state}"}}{more}]"#
    )
}

fn read(body: &str) -> DocumentContent {
    let given = document::mail_date(DATE).unwrap();
    Document::Maintenance.read(body.as_bytes(), given, clock::now()).unwrap()
}

#[test]
fn a_maintenance_event_that_is_no_longer_listed_is_withdrawn() {
    let mut standing = ShownNotices::default();
    let mut told = Vec::new();
    standing.update(Document::Maintenance, read(&events_and("active", "")), &mut told);
    let id = notice(told.remove(0)).id;
    standing.update(Document::Maintenance, read("[]"), &mut told);
    assert_eq!(told, [], "one answer may lag behind");
    for _ in 0..2 {
        standing.update(Document::Maintenance, read("[]"), &mut told);
    }
    assert_eq!(told, [ImdsEvent::Withdrawn { id, is_over: false }]);
}

#[test]
fn one_odd_entry_costs_itself_and_not_its_list() {
    let odd = [
        (r#"{"Code":"instance-stop","EventId":"o","NotBefore":"soon","State":"active"}"#, "NotBefore"),
        (r#"{"Code":"instance-stop","EventId":"o","State":"active"}"#, "EventId, NotBefore and State"),
        (r#"{"Code":7}"#, "Code"),
        ("[]", "no event"),
    ];
    for (entry, named) in odd {
        let mut standing = ShownNotices::default();
        let mut told = Vec::new();
        let content = read(&events_and("active", &format!(",{entry}")));
        let fault = content.odd.clone().unwrap().to_string();
        assert!(fault.contains("entry 2") && fault.contains(named), "{fault}");
        standing.update(Document::Maintenance, content, &mut told);
        let id = notice(told.remove(0)).id;
        for _ in 0..3 {
            standing.update(Document::Maintenance, read(&format!("[{entry}]")), &mut told);
        }
        assert_eq!(told, [], "the odd entry may be the one that is missing");
        standing.update(
            Document::Maintenance,
            read(&events_and("canceled", &format!(",{entry}"))),
            &mut told,
        );
        assert_eq!(told, [ImdsEvent::Withdrawn { id, is_over: true }]);
    }
    let past = r#",{"Code":"instance-stop","EventId":"o","NotBefore":"soon","State":"completed?"}"#;
    assert!(read(&events_and("active", past)).odd.is_none(), "what is not active announces nothing");
}

#[tokio::test]
async fn an_event_that_is_said_to_be_over_is_over_at_once() {
    for state in ["completed", "canceled"] {
        let event = |state: &str| {
            let from = "1 Jan 2018 09:20:00 GMT";
            let body = format!(
                r#"[{{"Code":"system-reboot","EventId":"e","NotBefore":"{from}","State":"{state}"}}]"#
            );
            Reply::ok(&body).dated(DATE)
        };
        let fake = instance(true).await;
        fake.set(MAINTENANCE, event("active"));
        let mut run = Running::on(fake).await;
        let id = notice(run.next_notice().await).id;
        run.fake.set(MAINTENANCE, event(state));
        // It is asked for every five seconds.
        let told = loop {
            let told = tokio::time::timeout(Duration::from_secs(9), run.events.recv()).await;
            match told.unwrap().unwrap() {
                ImdsEvent::Reachable(..) | ImdsEvent::LifeCycle(_) => {}
                event => break event,
            }
        };
        assert_eq!(told, ImdsEvent::Withdrawn { id, is_over: true });
    }
}

#[tokio::test]
async fn the_life_cycle_is_asked_again_until_it_is_known() {
    let fake = instance(true).await;
    fake.set(LIFE_CYCLE, code(404));
    let mut run = Running::on(fake).await;
    assert!(!run.next_reachable().await.0);
    run.quiet().await;
    run.fake.set(LIFE_CYCLE, Reply::ok("spot\n"));
    assert_eq!(run.next().await, ImdsEvent::LifeCycle(LifeCycle::Spot));
}

#[tokio::test]
async fn a_life_cycle_that_is_not_known_hides_no_notice() {
    let terminate = r#"{"action":"terminate","time":"2018-01-01T08:22:00Z"}"#;
    for unknown in [code(404), code(503), code(429), Reply::ok("?"), Reply::Hang] {
        let fake = instance(true).await;
        fake.set(LIFE_CYCLE, unknown);
        fake.set(INTERRUPTION, Reply::ok(terminate).dated(DATE));
        fake.set(REBALANCE, Reply::ok(r#"{"noticeTime": "2018-01-01T08:22:00Z"}"#).dated(DATE));
        let mut run = Running::on(fake).await;
        let kinds = [notice(run.next_notice().await).kind, notice(run.next_notice().await).kind];
        assert_eq!(kinds, [NoticeKind::Interruption(InstanceAction::Terminate), NoticeKind::Rebalance]);
    }
}

#[tokio::test]
async fn a_notice_that_came_before_the_life_cycle_is_watched_to_its_end() {
    let fake = instance(false).await;
    fake.set(LIFE_CYCLE, code(503));
    fake.set(INTERRUPTION, Reply::ok(r#"{"action":"stop","time":"2018-01-01T08:22:00Z"}"#).dated(DATE));
    let mut run = Running::on(fake).await;
    let id = notice(run.next_notice().await).id;
    run.fake.set(LIFE_CYCLE, Reply::ok("capacity-block"));
    while run.next().await != ImdsEvent::LifeCycle(LifeCycle::Other("capacity-block".into())) {}
    run.fake.set(INTERRUPTION, code(404));
    assert_eq!(run.next_notice().await, ImdsEvent::Withdrawn { id, is_over: false });
}

#[tokio::test]
async fn every_request_carries_a_token_and_one_token_and_one_connection_serve_them_all() {
    let mut run = Running::spot().await;
    tokio::time::sleep(POLL * 10).await;
    let polls = run.fake.polls();
    assert!(polls.len() > 10, "{polls:?}");
    assert_eq!((polls[0].method.as_str(), polls[0].path.as_str()), ("PUT", "/latest/api/token"));
    assert_eq!(polls[0].headers["x-aws-ec2-metadata-token-ttl-seconds"], "21600");
    assert!(polls[1..].iter().all(|poll| poll.method == "GET" && poll.code != 401), "{polls:?}");
    assert_eq!(polls[1..].iter().map(token).collect::<BTreeSet<_>>().len(), 1, "{polls:?}");
    assert_eq!(run.fake.connections(), 1);
    run.cancel.cancel();
    assert!(
        tokio::time::timeout(Duration::from_secs(2), async { while run.events.recv().await.is_some() {} })
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let fake = instance(true).await;
    fake.limit_tokens(1);
    let run = Running::on(fake).await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let polls = run.fake.polls();
    let tokens: BTreeSet<&str> = polls.iter().filter(|poll| poll.method == "GET").map(token).collect();
    assert!(tokens.len() > 1, "{polls:?}");
    assert!(polls.iter().all(|poll| poll.code != 401), "before it ends, not after: {polls:?}");
    assert_eq!(run.count(FaultKind::Unauthorized), 0);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_request_repeated() {
    let mut run = Running::spot().await;
    run.fake.arm(&["imds=401*1".parse().unwrap()]);
    run.fake.begin(clock::now());
    let body = r#"{"action":"hibernate","time":"2018-01-01T08:22:00Z"}"#;
    run.fake.set(INTERRUPTION, Reply::ok(body));
    assert_eq!(notice(run.next_notice().await).kind, NoticeKind::Interruption(InstanceAction::Hibernate));
    assert_eq!(run.count(FaultKind::Unauthorized), 0, "a token that ran out is no fault");
    // One that refuses every token is, and is not asked in a circle.
    run.fake.set(INTERRUPTION, code(401));
    let (reachable, why) = run.next_reachable().await;
    assert_eq!((reachable, why.as_str()), (false, "spot/instance-action: it answered 401"));
}

#[tokio::test]
async fn without_a_token_nothing_is_asked_in_the_old_way() {
    let fake = instance(true).await;
    fake.set("api/token", code(403));
    let mut run = Running::on(fake).await;
    let (reachable, why) = run.next_reachable().await;
    assert!(!reachable && why.contains("enabled"), "{why}");
    tokio::time::sleep(POLL * 5).await;
    assert!(run.fake.polls().iter().all(|poll| poll.method == "PUT"));
    assert!(run.count(FaultKind::Forbidden) > 1, "it is asked again all the same");
}

#[tokio::test]
async fn what_imds_answers_in_error_is_counted_told_once_and_never_ends_the_polling() {
    let mut run = Running::spot().await;
    // A notice that would be one if it were not so long.
    let too_large =
        format!(r#"{{"action":"stop","time":"2018-01-01T08:22:00Z","pad":"{}"}}"#, "x".repeat(70_000));
    for (reply, kind) in [
        (Reply::ok("<html>not json</html>"), FaultKind::Garbage),
        (Reply::ok(r#"{"action":"explode","time":"2018-01-01T08:22:00Z"}"#), FaultKind::Garbage),
        (Reply::ok(r#"{"action":"terminate","time":"soon"}"#), FaultKind::Garbage),
        (Reply::ok(&too_large), FaultKind::Garbage),
        (code(301), FaultKind::Garbage),
        (code(403), FaultKind::Forbidden),
        (code(429), FaultKind::Throttled),
        (code(503), FaultKind::ServerError),
        (Reply::Hang, FaultKind::Timeout),
    ] {
        let before = run.count(kind);
        run.fake.set(INTERRUPTION, reply);
        assert!(!run.next_reachable().await.0, "{kind:?}");
        let counted = async {
            while run.count(kind) < before + 2 {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(8), counted).await.expect("counted");
        assert!(run.events.try_recv().is_err(), "told once: {kind:?}");
        run.fake.set(INTERRUPTION, code(404));
        assert!(run.next_reachable().await.0, "{kind:?}");
    }
}

#[tokio::test]
async fn an_imds_that_asks_for_fewer_requests_gets_fewer() {
    let mut run = Running::spot().await;
    run.fake.set(INTERRUPTION, code(503));
    while run.next_reachable().await.0 {}
    let before = run.fake.polls().len();
    tokio::time::sleep(POLL * 40).await;
    let asked = run.fake.polls().len() - before;
    // 40 polls at full speed would be about 80 requests; doubling from 20 ms leaves five or six polls.
    assert!((2..30).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_imds_that_nobody_serves_is_told_as_refused_and_found_when_it_comes_back() {
    let fake = instance(true).await;
    fake.arm(&["imds=down".parse().unwrap()]);
    fake.begin(clock::now());
    let addr = fake.url().replace("http://", "");
    while tokio::net::TcpStream::connect(&addr).await.is_ok() {
        tokio::time::sleep(POLL).await;
    }
    let imds = Imds::new(&fake.url(), POLL).unwrap();
    let faults = imds.faults();
    let (out, mut events) = mpsc::channel(64);
    tokio::spawn(imds.watch(out, CancellationToken::new()));
    assert!(matches!(events.recv().await, Some(ImdsEvent::Reachable(false, _))));
    assert!(faults.counts().any(|(kind, count)| kind == FaultKind::Refused && count > 0));
    fake.arm(&[]);
    assert_eq!(events.recv().await, Some(ImdsEvent::LifeCycle(LifeCycle::Spot)));
    assert_eq!(events.recv().await, Some(ImdsEvent::Reachable(true, "it answers".to_owned())));
}

#[tokio::test]
async fn an_answer_without_a_date_is_measured_by_the_nodes_clock() {
    let time = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(120)).unwrap();
    let left = dateless::time_left(&format!(r#"{{"action":"terminate","time":"{time}"}}"#), POLL).await;
    assert!((110_000..=120_000).contains(&left), "{left}");
}

#[test]
fn an_endpoint_that_is_none_is_refused_with_what_to_give() {
    for bad in [
        "",
        "169.254.169.254",
        "https://169.254.169.254",
        "http://u:p@h",
        "http://h/latest",
        "ftp://h",
        "http://h?x",
    ] {
        let error = Imds::new(bad, POLL).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("give one like http://169.254.169.254"), "{error}");
    }
    Imds::new("http://[fd00:ec2::254]", POLL).unwrap();
    Imds::new("http://127.0.0.1:1338/", POLL).unwrap();
}
