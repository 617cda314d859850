//! One watch of the API server, begun anew for as long as anybody listens.

use super::Cluster;
use crate::runtime::metrics::labels::WatchedResource;
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long the server keeps one watch open: half the silence that a notice can afford. It costs two
/// small requests per node in that time, less than the kubelet's own lease.
pub(super) const WATCH_SECONDS: u32 = 30;
/// A list that shows nothing for this long hangs: it is begun anew, over another connection.
const LIST_STALLED: Duration = Duration::from_secs(5);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Follows what `selection` selects until the receiver is dropped. `sight` makes what is sent of an event, or of a
/// failure (`None`).
pub(crate) async fn follow<K, S>(
    cluster: Cluster,
    api: Api<K>,
    selection: Config,
    resource: WatchedResource,
    sights: mpsc::Sender<S>,
    sight: impl Fn(Option<Event<K>>) -> S,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = selection.timeout(WATCH_SECONDS);
    loop {
        let mut stream = pin!(watcher(api.clone(), config.clone()).backoff(Pause::default()));
        // A quiet watch says nothing for hours; a list that does is stuck.
        let mut listing = true;
        loop {
            let next = if listing {
                timeout(LIST_STALLED + LONGEST_PAUSE, stream.next()).await.unwrap_or(None)
            } else {
                stream.next().await
            };
            let seen = match next {
                None => break,
                Some(Ok(event)) => {
                    match &event {
                        Event::Init => listing = true,
                        Event::InitDone => listing = false,
                        Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
                    }
                    Some(event)
                }
                Some(Err(error)) => {
                    listing = matches!(error, watcher::Error::InitialListFailed(_));
                    cluster.metrics.watch_restart(resource);
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        resource = resource.as_str(),
                        "watch failed"
                    );
                    None
                }
            };
            if sights.send(sight(seen)).await.is_err() {
                return;
            }
        }
        cluster.metrics.watch_restart(resource);
        if sights.send(sight(None)).await.is_err() {
            return;
        }
        sleep(LONGEST_PAUSE / 4).await;
    }
}

/// Pauses after failures: 100 ms, doubling to two seconds, each with up to half taken off so that the
/// nodes of a cluster do not come back all at once.
#[derive(Debug)]
struct Pause {
    next: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Default for Pause {
    fn default() -> Self {
        Self { next: FIRST_PAUSE }
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        Some(pause.mul_f64(1.0 - fastrand::f64() / 2.0))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }
}
