//! Effects about the node itself.

use super::{Tools, failure::Failure};
use crate::clock;
use crate::cluster::About;
use bytes::Bytes;
use checkpoint::store::Condition;
use checkpoint::{key, retry};
use evacuation::effect::Action;
use evacuation::event::{Done, FailureKind};
use evacuation::moment::Moment;
use evacuation::report::{DepartureOutcome, Report, StateOutcome};

pub(super) async fn perform(tools: &Tools, action: Action, deadline: Moment) -> Result<Done, Failure> {
    match action {
        Action::Mark(standing) => {
            tools.cluster.mark(&standing, deadline).await?;
            if standing.is_hard() {
                tools.metrics.cordoned(clock::now().since(standing.began));
            }
            Ok(Done::Nothing)
        }
        Action::Unmark { uncordon } => {
            tools.cluster.unmark(uncordon, deadline).await?;
            Ok(Done::Nothing)
        }
        Action::WriteReport(report) => write_report(tools, &report, deadline).await,
        Action::Publish { reason, note, warning, .. } => {
            tools.cluster.publish(About::Node, &reason, &note, warning, deadline).await?;
            Ok(Done::Nothing)
        }
        Action::Anomaly { what } => {
            tracing::error!(what, "anomaly: please report this with the journal");
            tools.metrics.anomaly();
            Ok(Done::Nothing)
        }
        other => Err(Failure::new(FailureKind::Permanent, format!("{} is no effect about the node", other.name()))),
    }
}

/// The report goes where it outlives the node: to the store, and in short to a Node Event. The whole
/// of it is in the journal already, as part of this effect.
async fn write_report(tools: &Tools, report: &Report, deadline: Moment) -> Result<Done, Failure> {
    let key = key::report(&tools.cluster_name, &report.node, &report_id(report))?;
    let body = serde_json::to_vec_pretty(report).map_err(|e| Failure::new(FailureKind::Permanent, e.to_string()))?;
    let summary = summary(report);
    let event = tools.cluster.publish(About::Node, "EvacuationReport", &summary, !report.complete, deadline);
    let object = async {
        let store = tools.store.get().await.map_err(|why| Failure::new(FailureKind::Transient, why.as_ref()))?;
        let until = clock::instant(deadline);
        Ok(retry::put(store.as_ref(), &key, Bytes::from(body), Condition::Always, until).await?)
    };
    let (event, object): (_, Result<_, Failure>) = tokio::join!(event, object);
    tracing::info!(summary, complete = report.complete, "report");
    if report.complete {
        tools.metrics.evacuated(true, report.written.since(report.noticed));
        for pod in &report.pods {
            tools.metrics.departure(pod.departure);
            tools.metrics.state(pod.state);
        }
    }
    // One of the two is enough to outlive the node; the store is the one that is read by machines, but
    // a store that is away must not make us repeat the Event for ever.
    match (object, event) {
        (Ok(_), _) => Ok(Done::Nothing),
        (Err(failure), Ok(())) if failure.kind == FailureKind::Permanent => Ok(Done::Nothing),
        (Err(failure), _) => Err(failure),
    }
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
        "{} notice: {} pods gone, {} leaving, {} let go, {} abandoned; states {} saved, {} partial, {} earlier, {} lost; \
         {} after the notice",
        report.kind.as_str(),
        departed(DepartureOutcome::Gone),
        departed(DepartureOutcome::Leaving),
        departed(DepartureOutcome::LetGo),
        departed(DepartureOutcome::Abandoned),
        state(StateOutcome::Saved),
        state(StateOutcome::Partial),
        state(StateOutcome::Earlier),
        state(StateOutcome::Lost),
        report.written.since(report.noticed),
    )
}
