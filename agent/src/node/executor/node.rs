//! Effects about the node itself.

use super::Clients;
use super::failure::EffectFailure;
use crate::kube::About;
use bytes::Bytes;
use checkpoint::store::{Condition, StoreError};
use checkpoint::{key, retry};
use evacuation::effect::{KubeEvent, NodeAction};
use evacuation::event::{Done, FailureKind};
use evacuation::moment::{Moment, Span};
use evacuation::notice::NoticeKind;
use evacuation::report::{DepartureOutcome, Report, StateOutcome};
use host::clock;

/// The largest report that is read back, bytes.
const REPORT_MAX: u64 = 4 << 20;

/// How long a report waits for what earlier lives knew: no longer than half of the time it has, either.
const EARLIER_MAX: Span = Span::from_secs(5);

pub(super) async fn perform(
    clients: &Clients,
    action: NodeAction,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    match action {
        NodeAction::MarkNode(active_notice) => {
            clients.cluster.mark(&active_notice, deadline).await?;
            if active_notice.is_hard() {
                clients.metrics.cordoned(clock::now().since(active_notice.began));
            }
        }
        NodeAction::ClearNodeMark { uncordon, over } => {
            clients.cluster.unmark(uncordon, &over, deadline).await?;
        }
        NodeAction::WriteReport(report) => write_report(clients, &report, deadline).await?,
        NodeAction::Publish(KubeEvent { reason, note, warning }) => {
            clients.cluster.publish(About::Node, &reason, &note, warning, deadline).await?;
        }
    }
    Ok(Done::Nothing)
}

/// The report goes where it outlives the node: to the store, and in short to a Node Event. The whole
/// of it is in the journal already, as part of this effect.
async fn write_report(clients: &Clients, report: &Report, deadline: Moment) -> Result<(), EffectFailure> {
    let key = key::report(&clients.cluster_name, &report.node, &report_id(report))?;
    let summary = summary(report);
    let event = async {
        // A store that is away makes the core ask again; the Event is written once for what it says.
        let news = (report.notice.clone(), report.complete);
        if *clients.reported.lock() == Some(news.clone()) {
            return Ok(());
        }
        clients
            .cluster
            .publish(About::Node, "EvacuationReport", &summary, !report.complete, deadline)
            .await?;
        *clients.reported.lock() = Some(news);
        Ok(())
    };
    let object = async {
        let store = clients.store.get().await?;
        let until = clock::instant(deadline);
        let earlier: Option<Report> = match retry::get(store.as_ref(), &key, REPORT_MAX, until).await {
            Ok(object) => serde_json::from_slice(&object.bytes).ok(),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        // What this agent's earlier lives knew, and what they could still write.
        let patience = Span::from_millis(deadline.left(clock::now()).as_millis() / 2).min(EARLIER_MAX);
        let told = clients.earlier.within(patience).await;
        let told = told.iter().filter(|told| told.notice == report.notice).cloned();
        let whole = told.chain(earlier).fold(report.clone(), with_earlier);
        let body = serde_json::to_vec_pretty(&whole);
        let body = body.map_err(|error| EffectFailure::new(FailureKind::Permanent, error.to_string()))?;
        retry::put(store.as_ref(), &key, Bytes::from(body), Condition::Always, until).await?;
        Ok(())
    };
    let (event, object): (Result<(), EffectFailure>, Result<(), EffectFailure>) = tokio::join!(event, object);
    tracing::info!(summary, complete = report.complete, "report");
    if report.complete || report.written >= report.deadline {
        count(clients, report);
    }
    // One of the two is enough to outlive the node; the store is the one that is read by machines, and it is
    // tried again as long as that may help.
    match (object, event) {
        (Ok(()), _) => Ok(()),
        (Err(failure), Ok(())) if failure.kind == FailureKind::Permanent => Ok(()),
        (Err(failure), _) => Err(failure),
    }
}

/// Counts an evacuation once, however often its report is written.
fn count(clients: &Clients, report: &Report) {
    let counted = clients.counted.lock().replace(report.notice.clone());
    if counted.as_ref() == Some(&report.notice) {
        return;
    }
    if report.kind == NoticeKind::Drill {
        // What was rehearsed is no interruption.
        return clients.metrics.rehearsed(report.complete);
    }
    clients.metrics.evacuated(report.complete, report.written.since(report.noticed));
    for pod in &report.pods {
        clients.metrics.departure(pod.departure);
        clients.metrics.state(pod.state);
    }
}

/// The report together with what was written of the same evacuation before, by this agent or by an
/// earlier life of it that knew pods that are gone by now.
fn with_earlier(mut whole: Report, earlier: Report) -> Report {
    let adds_pods = whole.pods.iter().any(|pod| earlier.pods.iter().all(|told| told.uid != pod.uid));
    whole.complete |= earlier.complete && !adds_pods;
    whole.cordoned = earlier.cordoned.or(whole.cordoned);
    for told in earlier.pods {
        match whole.pods.iter_mut().find(|pod| pod.uid == told.uid) {
            None => whole.pods.push(told),
            Some(pod) if told.committed.is_some() && pod.committed.is_none() => *pod = told,
            Some(_) => {}
        }
    }
    whole
}

/// One object for each evacuation of each boot.
fn report_id(report: &Report) -> String {
    let short: String = report.notice.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    format!("{}-{short}", report.noticed.as_millis())
}

fn summary(report: &Report) -> String {
    let departed = |outcome| report.pods.iter().filter(|pod| pod.departure == outcome).count();
    let state = |outcome| report.pods.iter().filter(|pod| pod.state == outcome).count();
    format!(
        "{} notice: {} pods gone, {} leaving, {} deleted at their cut-off, {} abandoned; states {} saved, {} partial, {} without evidence, {} earlier, {} lost; \
         {} after the notice",
        report.kind.as_str(),
        departed(DepartureOutcome::Gone),
        departed(DepartureOutcome::Leaving),
        departed(DepartureOutcome::DeletedAtCutOff),
        departed(DepartureOutcome::Abandoned),
        state(StateOutcome::Saved),
        state(StateOutcome::Partial),
        state(StateOutcome::SavedWithoutEvidence),
        state(StateOutcome::Earlier),
        state(StateOutcome::Lost),
        report.written.since(report.noticed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::notice::{InstanceAction, NoticeKind};
    use evacuation::report::PodReport;

    fn report(complete: bool, pods: &[(&str, Option<u64>)]) -> Report {
        let pods = pods.iter().map(|(uid, committed)| PodReport {
            uid: (*uid).into(),
            namespace: "ns".into(),
            name: (*uid).into(),
            priority: 0,
            departure: DepartureOutcome::Gone,
            reason: None,
            state: StateOutcome::Saved,
            state_reason: None,
            generation: None,
            bytes: 0,
            sent: 0,
            refusals: 0,
            evicted: None,
            committed: committed.map(Moment::from_millis),
            gone: None,
        });
        Report {
            format: 1,
            node: "a".into(),
            boot: "b".into(),
            notice: "n".into(),
            kind: NoticeKind::Interruption(InstanceAction::Terminate),
            short: false,
            withdrawn: false,
            noticed: Moment::from_millis(1),
            deadline: Moment::from_millis(2),
            cordoned: None,
            written: Moment::from_millis(3),
            complete,
            pods: pods.collect(),
        }
    }

    #[test]
    fn an_agent_that_was_restarted_adds_to_the_report_and_takes_nothing_away() {
        let earlier = report(false, &[("gone", Some(5)), ("both", Some(6))]);
        let whole = with_earlier(report(true, &[("both", None), ("new", None)]), earlier);
        let committed: Vec<_> =
            whole.pods.iter().map(|pod| (pod.uid.as_str(), pod.committed.is_some())).collect();
        assert_eq!(committed, [("both", true), ("new", false), ("gone", true)]);
    }

    #[test]
    fn a_complete_report_stays_complete_unless_there_are_pods_that_it_did_not_know() {
        let told = report(true, &[("gone", Some(5))]);
        assert!(with_earlier(report(false, &[]), told.clone()).complete);
        assert!(!with_earlier(report(false, &[("new", None)]), told).complete);
    }
}
