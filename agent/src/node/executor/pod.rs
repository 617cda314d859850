//! Effects about a pod of this node that serves or leaves: whose they are.

use super::Clients;
use super::commit::{CommitRequest, commit};
use super::engine::{flush, look, probe};
use super::failure::EffectFailure;
use super::intent::{abandon, intend};
use super::save::save;
use crate::kube::About;
use crate::node::executor::pod_context::PodContext;
use evacuation::effect::{KubeEvent, PodAction};
use evacuation::event::Done;
use evacuation::moment::Moment;
use host::hold;

pub(super) async fn perform(
    clients: &Clients,
    context: &PodContext,
    action: PodAction,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let pod = context.pod_ref();
    match action {
        PodAction::SetHold { hold } => hold::write_hold(&context.folder(clients)?, hold).await?,
        PodAction::InspectEngine => return look(clients, context, deadline).await,
        PodAction::WriteIntent { departure, by } => {
            return intend(clients, context, &departure, by, deadline).await;
        }
        PodAction::AbandonIntent { why } => abandon(clients, context, why, deadline).await?,
        PodAction::Quiesce => context.engine(clients).await?.quiesce(deadline).await?,
        PodAction::Resume => context.engine(clients).await?.resume(deadline).await?,
        PodAction::Flush { kind } => return flush(clients, context, kind, deadline).await,
        PodAction::ProbeEngine => return probe(clients, context, deadline).await,
        PodAction::Save { kind, rank } => {
            context.rank.set(rank);
            return save(clients, context, kind, deadline).await;
        }
        PodAction::Reprioritise { rank } => context.rank.set(rank),
        PodAction::Commit { kind, partial, without_endangered } => {
            return commit(clients, context, CommitRequest { kind, partial, without_endangered }, deadline)
                .await;
        }
        PodAction::Evict { grace } => clients.cluster.evict(&pod, grace, deadline).await?,
        PodAction::MarkDisrupted => {
            clients.cluster.mark_disrupted(&pod, "the Spot instance is being interrupted", deadline).await?;
        }
        PodAction::DeletePod { grace } => clients.cluster.delete(&pod, grace, deadline).await?,
        PodAction::Publish(KubeEvent { reason, note, warning }) => {
            clients.cluster.publish(About::Pod(&pod), &reason, &note, warning, deadline).await?;
        }
    }
    Ok(Done::Nothing)
}
