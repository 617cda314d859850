//! The watch of the own node and of the pods bound to it, and of nothing else.

use super::ended_pods::EndedPods;
use super::follow::follow;
use super::missing_node::{MISSING_MAX, MissingNode};
use super::needless_gate::NeedlessGates;
use super::{About, Cluster, node};
use crate::kube::drill_request;
use crate::pods::PodRef;
use crate::pods::annotations::AnnotationError;
use crate::pods::reader::{PodReader, PodRecord};
use crate::runtime::metrics::labels::WatchedResource;
use evacuation::event::NodeFacts;
use evacuation::moment::{Moment, Span};
use evacuation::pod::PodUid;
use host::clock;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::runtime::watcher::{Config, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks whether an API server that failed is back.
pub(super) const PROBE: Duration = Duration::from_secs(1);
/// Wrong annotations of one pod that are published.
const PUBLISHED_PER_POD: usize = 16;

/// Something of this node changed.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterEvent {
    /// The own node as it is now.
    Node(NodeFacts),
    /// One of its pods as it is now.
    Pod(Box<PodRecord>),
    /// One of its pods is no more, or nothing of it but its name.
    PodGone(PodUid),
    /// Every pod of this node has been shown; sent after each complete list.
    PodsListed,
    /// Somebody asks for a drill: the annotation as it is written.
    Rehearsal(String),
    /// The API server answers, or has ceased to.
    Reachable(bool),
}

/// What one of the two watches saw.
enum WatchUpdate {
    Node(Box<Event<Node>>),
    Pod(Box<Event<Pod>>),
    Failed,
}

impl Cluster {
    /// Watches until the receiver is dropped. Only changes are sent: a pod that is as it was is not.
    pub async fn watch(self, events: mpsc::Sender<ClusterEvent>) {
        self.watch_missing(events, MISSING_MAX).await;
    }

    /// The same, with how long the own node may be missing before that is said.
    pub(super) async fn watch_missing(self, events: mpsc::Sender<ClusterEvent>, patience: Span) {
        let (sights, seen) = mpsc::channel(64);
        let node = self.options.node.clone();
        let nodes = follow(
            self.clone(),
            Api::<Node>::all(self.client.clone()),
            Config::default().fields(&format!("metadata.name={node}")),
            WatchedResource::Nodes,
            sights.clone(),
            |event| event.map_or(WatchUpdate::Failed, |event| WatchUpdate::Node(Box::new(event))),
        );
        let pods = follow(
            self.clone(),
            Api::<Pod>::all(self.client.clone()),
            Config::default().fields(&format!("spec.nodeName={node}")),
            WatchedResource::Pods,
            sights,
            |event| event.map_or(WatchUpdate::Failed, |event| WatchUpdate::Pod(Box::new(event))),
        );
        tokio::select! {
            () = nodes => {}
            () = pods => {}
            () = NodeView::new(self, events, patience).keep(seen) => {}
        }
    }
}

/// What has been told of the node, so that only changes are told.
struct NodeView {
    cluster: Cluster,
    events: mpsc::Sender<ClusterEvent>,
    distiller: PodReader,
    node: Option<NodeFacts>,
    pods: BTreeMap<PodUid, PodRecord>,
    /// Pods of the list that is being read; the others are gone when it ends.
    listed: BTreeSet<PodUid>,
    published: BTreeMap<PodUid, BTreeSet<AnnotationError>>,
    needless: NeedlessGates,
    ended: EndedPods,
    missing: MissingNode,
    reachable: Option<bool>,
    /// The drill that is asked for.
    rehearsal: Option<String>,
}

/// The receiver was dropped.
struct NobodyListens;

impl NodeView {
    fn new(cluster: Cluster, events: mpsc::Sender<ClusterEvent>, patience: Span) -> Self {
        let distiller = PodReader::new(cluster.options.daemons.clone(), cluster.options.bare_may_go);
        Self {
            events,
            distiller,
            node: None,
            pods: BTreeMap::new(),
            listed: BTreeSet::new(),
            published: BTreeMap::new(),
            needless: NeedlessGates::new(cluster.clone()),
            ended: EndedPods::new(cluster.clone()),
            missing: MissingNode::new(patience),
            cluster,
            reachable: None,
            rehearsal: None,
        }
    }

    async fn keep(mut self, mut seen: mpsc::Receiver<WatchUpdate>) {
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                () = self.events.closed() => return,
                sight = seen.recv() => match sight {
                    None => return,
                    Some(WatchUpdate::Failed) => self.reachable(false).await,
                    Some(WatchUpdate::Node(event)) => self.node_event(*event).await,
                    Some(WatchUpdate::Pod(event)) => self.pod_event(*event).await,
                },
                // A watch that was taken up again says nothing until something changes.
                _ = probe.tick(), if self.waits_for_probe() => self.probe().await,
                () = reached(self.ended.next()) => self.end_pods().await,
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn node_event(&mut self, event: Event<Node>) -> Result<(), NobodyListens> {
        self.reachable(true).await?;
        match event {
            Event::Apply(node) | Event::InitApply(node) => {
                let facts = node::facts(&node);
                if facts.name != self.cluster.options.node {
                    return Ok(());
                }
                let rehearsal = drill_request::raw(&node).map(str::to_owned);
                *self.cluster.seen() = Some(node);
                self.missing.found();
                if self.node.as_ref() != Some(&facts) {
                    self.node = Some(facts.clone());
                    self.tell(ClusterEvent::Node(facts)).await?;
                }
                if self.rehearsal != rehearsal {
                    self.rehearsal.clone_from(&rehearsal);
                    if let Some(asked) = rehearsal {
                        self.tell(ClusterEvent::Rehearsal(asked)).await?;
                    }
                }
                Ok(())
            }
            // A node object that is deleted under a running kubelet is registered again.
            Event::Delete(_) => {
                *self.cluster.seen() = None;
                Ok(())
            }
            Event::InitDone => {
                if self.node.is_none() {
                    self.missing.missing(clock::now());
                }
                Ok(())
            }
            Event::Init => Ok(()),
        }
    }

    async fn pod_event(&mut self, event: Event<Pod>) -> Result<(), NobodyListens> {
        match event {
            // The list has only been asked for.
            Event::Init => {
                self.listed.clear();
                Ok(())
            }
            Event::InitApply(pod) => {
                self.reachable(true).await?;
                if let Some(uid) = &pod.metadata.uid {
                    self.listed.insert(PodUid(uid.clone()));
                }
                self.pod(pod).await
            }
            Event::InitDone => {
                self.reachable(true).await?;
                let shown: BTreeSet<&PodUid> = self.pods.keys().chain(self.ended.uids()).collect();
                let removed: Vec<PodUid> =
                    shown.into_iter().filter(|uid| !self.listed.contains(*uid)).cloned().collect();
                for uid in removed {
                    self.removed(uid).await?;
                }
                self.listed.clear();
                self.tell(ClusterEvent::PodsListed).await
            }
            Event::Apply(pod) => {
                self.reachable(true).await?;
                self.pod(pod).await
            }
            Event::Delete(pod) => {
                self.reachable(true).await?;
                match pod.metadata.uid {
                    Some(uid) => self.removed(PodUid(uid)).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn pod(&mut self, pod: Pod) -> Result<(), NobodyListens> {
        if pod.metadata.uid.as_ref().is_some_and(|uid| self.ended.is_gone(&PodUid(uid.clone()))) {
            return Ok(());
        }
        let now = clock::now();
        let Some((record, errors)) = self.distiller.distil(&pod, now) else { return Ok(()) };
        if record.node != self.cluster.options.node {
            return Ok(());
        }
        self.ended.look(&pod, &record, now);
        self.end_pods().await?;
        if self.ended.is_gone(&record.facts.uid) {
            return Ok(());
        }
        self.needless.look(&pod, &record, &errors);
        self.publish(&record, errors);
        if self.pods.get(&record.facts.uid) == Some(&record) {
            return Ok(());
        }
        self.pods.insert(record.facts.uid.clone(), record.clone());
        self.tell(ClusterEvent::Pod(Box::new(record))).await
    }

    /// The pods that have ended and are still shown are gone.
    async fn end_pods(&mut self) -> Result<(), NobodyListens> {
        for uid in self.ended.due(clock::now()) {
            self.gone(uid).await?;
        }
        Ok(())
    }

    /// The object is no more.
    async fn removed(&mut self, uid: PodUid) -> Result<(), NobodyListens> {
        self.ended.forget(&uid);
        self.gone(uid).await
    }

    async fn gone(&mut self, uid: PodUid) -> Result<(), NobodyListens> {
        self.distiller.forget(&uid);
        self.published.remove(&uid);
        self.needless.forget(&uid);
        if self.pods.remove(&uid).is_none() {
            return Ok(());
        }
        self.tell(ClusterEvent::PodGone(uid)).await
    }

    /// Tells a pod's owner what is wrong with its annotations, once for each value.
    fn publish(&mut self, record: &PodRecord, errors: Vec<AnnotationError>) {
        if errors.is_empty() {
            return;
        }
        let published = self.published.entry(record.facts.uid.clone()).or_default();
        for error in errors {
            if published.len() >= PUBLISHED_PER_POD || !published.insert(error.clone()) {
                continue;
            }
            self.cluster.metrics.annotation_error();
            let pod = PodRef::from(&record.facts);
            tracing::warn!(pod = %record.facts.display_name(), %error, "annotation was not followed");
            let cluster = self.cluster.clone();
            // On its own: the watch does not wait for news to be written.
            tokio::spawn(async move {
                let deadline = clock::now() + Span::from_secs(5);
                // A failure has been logged, and news is all this was.
                let _ = cluster
                    .publish(About::Pod(&pod), "InvalidAnnotation", &error.to_string(), true, deadline)
                    .await;
            });
        }
    }

    /// Asks for the node by name, if that would be news.
    async fn probe(&mut self) -> Result<(), NobodyListens> {
        if self.reachable != Some(false) && !self.missing.is_overdue(clock::now()) {
            return Ok(());
        }
        let deadline = clock::now() + Span::from_secs(2);
        match self.cluster.read_node(deadline).await {
            Ok(_) => self.reachable(true).await,
            Err(error) if error.is_not_found() => {
                if self.missing.is_overdue(clock::now()) {
                    self.missing.say(self.cluster.clone());
                }
                self.reachable(true).await
            }
            Err(_) => Ok(()),
        }
    }

    /// Nothing else may ever happen here: the ticks must be waited for beforehand.
    fn waits_for_probe(&self) -> bool {
        self.reachable == Some(false) || self.missing.is_awaited()
    }

    async fn reachable(&mut self, reachable: bool) -> Result<(), NobodyListens> {
        if self.reachable == Some(reachable) {
            return Ok(());
        }
        self.reachable = Some(reachable);
        self.tell(ClusterEvent::Reachable(reachable)).await
    }

    async fn tell(&self, event: ClusterEvent) -> Result<(), NobodyListens> {
        self.events.send(event).await.map_err(|_| NobodyListens)
    }
}

/// Without end where there is no such moment.
async fn reached(moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(clock::instant(moment)).await,
        None => std::future::pending().await,
    }
}
