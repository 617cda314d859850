//! Pods that have ended and whose name a finalizer keeps.

use super::*;
use crate::kube::ended_pods::EndedPods;
use crate::pods::reader::PodReader;

/// A pod that is being deleted, with a finalizer and its one container in this state.
fn kept(grace: u64, state: Value) -> Value {
    let mut pod = pod("a", "u1");
    pod["metadata"]["finalizers"] = json!(["example.com/backup"]);
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod["status"]["containerStatuses"] = json!([{ "name": "engine", "image": "e", "imageID": "e", "ready": false,
        "restartCount": 0, "state": state }]);
    pod
}

fn ended() -> Value {
    json!({ "terminated": { "exitCode": 0 } })
}

fn running() -> Value {
    json!({ "running": {} })
}

fn is_gone(event: &ClusterEvent) -> bool {
    matches!(event, ClusterEvent::PodGone(_))
}

/// A world whose pod was seen running, and what watches it.
async fn watched() -> (World, Watched) {
    let world = World::start(node(), vec![pod("a", "u1")]).await;
    let mut watched = Watched::of(world.cluster());
    watched.until(|event| *event == ClusterEvent::PodsListed).await;
    (world, watched)
}

/// The looks at pods at chosen moments, in milliseconds, without a watch.
struct Looks {
    ended: EndedPods,
    reader: PodReader,
    _world: World,
}

impl Looks {
    async fn start() -> Self {
        let world = World::start(node(), vec![]).await;
        let reader = PodReader::new(DaemonRules::default(), false);
        Self { ended: EndedPods::new(world.cluster()), reader, _world: world }
    }

    fn look(&mut self, pod: &Value, at: u64) {
        let (pod, now) = (serde_json::from_value(pod.clone()).unwrap(), Moment::from_millis(at));
        let (record, _) = self.reader.distil(&pod, now).unwrap();
        self.ended.look(&pod, &record, now);
    }

    fn due(&mut self, at: u64) -> Vec<String> {
        self.ended.due(Moment::from_millis(at)).into_iter().map(|uid| uid.0).collect()
    }
}

fn none() -> Vec<String> {
    Vec::new()
}

/// What comes until a pod is shown that came after all the rest.
async fn until_another(world: &World, watched: &mut Watched) -> Vec<String> {
    world.storage().create("pods", "chat", pod("z", "u9")).unwrap();
    let another =
        |event: &ClusterEvent| matches!(event, ClusterEvent::Pod(record) if record.facts.name == "z");
    pods_only(&watched.until(another).await)
}

#[tokio::test]
async fn a_pod_that_only_a_finalizer_keeps_is_gone_once_its_containers_have_ended() {
    let (world, mut watched) = watched().await;
    world.change_pod(&kept(30, running()));
    let leaving = watched.until(|event| matches!(event, ClusterEvent::Pod(_))).await;
    assert_eq!(pods_only(&leaving), ["pod a"]);
    world.change_pod(&kept(30, ended()));
    let gone = watched.until(is_gone).await;
    assert_eq!(pods_only(&gone).last().unwrap(), "gone u1");
    // Whatever becomes of the object, and its end, is no news.
    let mut labelled = kept(30, ended());
    labelled["metadata"]["labels"] = json!({ "x": "y" });
    labelled["spec"]["priority"] = json!(7);
    world.change_pod(&labelled);
    world.storage().remove("pods", "chat", "a", "u1").unwrap();
    assert_eq!(until_another(&world, &mut watched).await, ["pod z"]);
}

#[tokio::test]
async fn an_event_names_who_keeps_the_name_of_a_pod_that_has_ended_once() {
    let (world, mut watched) = watched().await;
    world.change_pod(&kept(30, ended()));
    watched.until(is_gone).await;
    world.change_pod(&kept(0, ended()));
    world.first_events().await;
    until_another(&world, &mut watched).await;
    let told = world.requests("create", "/events");
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0].body["reason"], &told[0].body["type"]), (&json!("NameKept"), &json!("Normal")));
    let message = told[0].body["message"].as_str().unwrap();
    assert!(message.contains("its name is kept by finalizer example.com/backup"), "{message}");
}

#[tokio::test]
async fn the_kubelets_last_delete_is_believed_at_once() {
    let mut looks = Looks::start().await;
    looks.look(&kept(30, ended()), 10_000);
    assert_eq!(looks.due(10_001), none());
    looks.look(&kept(0, ended()), 10_001);
    assert_eq!(looks.due(10_001), ["u1"]);
}

#[tokio::test]
async fn a_container_that_is_started_once_more_takes_its_end_back() {
    let mut looks = Looks::start().await;
    looks.look(&kept(30, ended()), 10_000);
    assert_eq!(looks.due(12_999), none());
    looks.look(&kept(30, running()), 12_999);
    assert_eq!(looks.due(60_000), none());
    looks.look(&kept(30, ended()), 60_000);
    assert_eq!(looks.due(62_999), none());
    assert_eq!(looks.due(63_000), ["u1"]);
    assert_eq!(looks.due(63_000), none(), "once");
}

#[tokio::test]
async fn what_had_ended_before_the_first_list_is_not_shown_at_all() {
    let world = World::start(node(), vec![kept(0, ended()), pod("b", "u2")]).await;
    let mut watched = Watched::of(world.cluster());
    let begun = watched.until(|event| *event == ClusterEvent::PodsListed).await;
    assert_eq!(pods_only(&begun), ["pod b", "listed"]);
    // Its name is free again, and a new pod has it.
    world.storage().remove("pods", "chat", "a", "u1").unwrap();
    world.storage().create("pods", "chat", pod("a", "u3")).unwrap();
    let later = watched.until(|event| matches!(event, ClusterEvent::Pod(_))).await;
    assert_eq!(pods_only(&later), ["pod a"]);
}

#[tokio::test]
async fn a_pod_without_a_finalizer_is_left_to_its_kubelet() {
    let mut looks = Looks::start().await;
    let mut cleaning = kept(30, ended());
    cleaning["metadata"]["finalizers"] = json!([]);
    looks.look(&cleaning, 10_000);
    assert_eq!(looks.due(60_000), none());
}

#[tokio::test]
async fn a_source_of_which_only_the_name_is_left_has_finished() {
    let world = World::start(node(), vec![kept(30, running())]).await;
    let finished = async || world.cluster().named_pod("chat", "a", soon()).await.unwrap().unwrap().finished;
    assert!(!finished().await);
    world.change_pod(&kept(30, ended()));
    assert!(finished().await);
}
