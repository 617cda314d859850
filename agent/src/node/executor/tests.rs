use super::pod_context::{Baseline, SourceSide};
use super::*;
use crate::kube::ClusterError;
use checkpoint::fingerprint::Fingerprint;
use checkpoint::key::{GenerationNumber, LineageId, Workload};
use checkpoint::manifest::Manifest;
use checkpoint::store::{Condition, StoreError, StoreOptions};
use evacuation::event::Source;
use std::io::Write;

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What `work` logs at the ordinary level.
    fn of(work: impl FnOnce()) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// A look at the engine of this pod ends so.
fn look_ends(metrics: &Metrics, failures: &Failures, pod: &str, outcome: &Outcome) {
    let uid = PodUid(pod.into());
    let action = Action::Pod { uid: uid.clone(), action: PodAction::InspectEngine };
    let head = EffectHead {
        id: EffectId(1),
        deadline: Moment::from_millis(1),
        attempt: 1,
        left: None,
        name: (&action).into(),
        counted: EffectClass::of(&action),
    };
    measure(metrics, &head, Some(EngineKind::LlamaServer), outcome, Span::ZERO);
    log(failures, (Some(uid), head.name), outcome, Span::ZERO);
}

#[test]
fn refusals_of_an_engine_are_logged_when_they_change_and_counted_each_time() {
    let (metrics, failures) = (Metrics::new(), Failures::default());
    let refused = |why: &str| Outcome::Failed { kind: FailureKind::Permanent, why: why.into() };
    let logged = Log::of(|| {
        for _ in 0..3 {
            look_ends(&metrics, &failures, "a", &refused("401: set lifeboat.dev/token-file"));
            look_ends(&metrics, &failures, "b", &refused("501: start it with --slot-save-path"));
        }
        look_ends(&metrics, &failures, "a", &refused("404"));
        look_ends(&metrics, &failures, "a", &Outcome::Done(Done::Nothing));
        look_ends(&metrics, &failures, "a", &refused("404"));
    });
    let lines = |why: &str| logged.iter().filter(|line| line.contains(why)).count();
    assert_eq!((lines("401"), lines("501"), lines("404")), (1, 1, 2), "{logged:#?}");
    assert!(logged.iter().any(|line| line.contains("404") && line.contains("unlogged=2")), "{logged:#?}");
    let counted = "lifeboat_engine_errors_total{engine=\"llama-server\",kind=\"permanent\"} 8";
    assert!(metrics.render().contains(counted), "{}", metrics.render());
}

#[test]
fn a_save_that_is_less_than_the_newest_generation_is_said_once() {
    let failures = Failures::default();
    let uid = PodUid("a".into());
    let action = Action::Pod { uid: uid.clone(), action: PodAction::InspectEngine };
    let saved = |bytes, left_out: Option<&str>| {
        let (left_out, newest) = (left_out.map(str::to_owned), Some(("llama-0/1-7".to_owned(), 100)));
        Outcome::Done(Done::Saved { bytes, sent: 1, left_out, newest })
    };
    let name: ActionName = (&action).into();
    let logged = Log::of(|| {
        for bytes in [60, 61, 62] {
            log(
                &failures,
                (Some(uid.clone()), name),
                &saved(bytes, Some("slot 2: answered 501")),
                Span::ZERO,
            );
        }
        log(&failures, (Some(uid.clone()), name), &saved(100, Some("slot 2: answered 501")), Span::ZERO);
        log(&failures, (Some(uid.clone()), name), &saved(60, None), Span::ZERO);
    });
    assert_eq!(logged.len(), 1, "{logged:#?}");
    assert!(logged[0].contains("llama-0/1-7") && logged[0].contains("slot 2: answered 501"), "{logged:#?}");
}

#[test]
fn a_lineage_whose_writer_has_no_possible_name_keeps_no_other_waiting() {
    let writer = checkpoint::manifest::Source {
        namespace: "chat".into(),
        name: "a/../b".into(),
        uid: "u".into(),
        node: "n".into(),
    };
    let name = ClusterError::Name { name: writer.name.clone() };
    assert_eq!(restore::standing(Err(name), &writer).unwrap(), Source::Living, "it is not taken");
    assert_eq!(restore::standing(Ok(None), &writer).unwrap(), Source::Gone);
    // One that may still be told is asked again.
    let node = ClusterError::NoAgent { node: "n".into() };
    assert!(restore::standing(Err(node), &writer).is_err());
}

#[tokio::test]
async fn an_intent_that_cannot_be_read_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("dir:{}", dir.path().display());
    let store = checkpoint::store::open(&url, StoreOptions::default()).await.unwrap();
    let workload = Workload::new("c", "chat", "llama").unwrap();
    let lineage = LineageId::new("llama-0").unwrap();
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    for odd in ["{}", "{\"format\": 99}", "not JSON"] {
        let key = workload.intent(&lineage);
        store.put(&key, odd.as_bytes().to_vec().into(), Condition::Always).await.unwrap();
        assert!(intent::announced(&store, &workload, &lineage, until).await.unwrap().is_none(), "{odd}");
    }
}

#[test]
fn what_a_cold_pod_saves_continues_nothing_of_the_pod_before_it() {
    let lineage = LineageId::new("llama-0").unwrap();
    let side = |uid: &str| {
        let source = checkpoint::manifest::Source {
            namespace: "chat".into(),
            name: "llama-0".into(),
            uid: uid.into(),
            node: "n".into(),
        };
        let manifest = Manifest {
            format: checkpoint::manifest::FORMAT,
            workload: Workload::new("c", "chat", "llama").unwrap(),
            lineage: lineage.clone(),
            source,
            revision: String::new(),
            spec_key: String::new(),
            fingerprint: Fingerprint::default(),
            notice_id: None,
            parent: None,
            created: jiff::Timestamp::UNIX_EPOCH,
            partial: false,
            engine: Default::default(),
            files: Vec::new(),
            mac: None,
        };
        let number = GenerationNumber { epoch: 1, n: 4 };
        SourceSide { baseline: Some(Baseline::found(manifest, number, "own")), ..SourceSide::default() }
    };
    let says = |side: &SourceSide| {
        let parent = side.baseline.as_ref().and_then(Baseline::as_parent);
        (parent.is_some(), save::newest(side, &lineage).is_some())
    };
    assert_eq!(says(&side("own")), (true, true));
    assert_eq!(says(&side("before")), (false, false), "its packs are built on, and that is all");
}

#[test]
fn a_look_that_had_no_time_left_for_the_store_is_no_answer() {
    let timed_out = |answered| StoreError::TimedOut {
        what: "LIST".into(),
        waited: std::time::Duration::ZERO,
        last: None,
        answered,
    };
    assert_eq!(restore::unheard(timed_out(false)).kind, FailureKind::Unreachable);
    assert_eq!(restore::unheard(timed_out(true)).kind, FailureKind::Transient);
}
