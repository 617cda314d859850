//! The commit of what was saved: from then on it can be found.

use super::Clients;
use super::failure::EffectFailure;
use crate::node::executor::intent::settle_intent;
use crate::node::executor::opened;
use crate::node::executor::pod_context::{Baseline, PodContext, SourceSide};
use crate::node::store::Opened;
use checkpoint::claim::{ClaimError, ClaimRequest, Holder};
use checkpoint::generation;
use checkpoint::hash::ContentHash;
use checkpoint::intent::IntentState;
use checkpoint::key::{LineageId, Workload};
use checkpoint::manifest::{self, Manifest};
use checkpoint::reuse::{self, NotReusable};
use evacuation::effect::FlushKind;
use evacuation::event::{Done, FailureKind};
use evacuation::moment::Moment;
use host::clock;
use std::sync::Arc;

/// What is to be committed.
#[derive(Clone, Copy)]
pub(super) struct CommitRequest {
    pub(super) kind: FlushKind,
    /// The manifest says that it is not all of the state.
    pub(super) partial: bool,
    /// Files on packs that are being removed as garbage are left out.
    pub(super) without_endangered: bool,
}

pub(super) async fn commit(
    clients: &Clients,
    context: &PodContext,
    request: CommitRequest,
    deadline: Moment,
) -> Result<Done, EffectFailure> {
    let kind = request.kind;
    let mut side = context.source.lock().await;
    let opened = opened(clients).await?;
    let (workload, lineage) = (context.workload(clients)?, context.lineage()?);
    let until = clock::instant(deadline);
    if side.final_commit.is_none() || kind == FlushKind::PreCopy {
        let epoch = writing_epoch(clients, context, &opened, &mut side, until).await?;
        let manifest =
            confirmed(clients, context, &mut side, &opened, (&workload, &lineage), request, until).await?;
        let writer = context.record().facts.uid.0;
        let Opened { store, conditions, .. } = &opened;
        let until = until.min(tokio::time::Instant::now() + reuse::GOOD_FOR);
        let committed = generation::commit(
            store.as_ref(),
            &manifest,
            epoch,
            &writer,
            clients.mac_key.as_ref(),
            conditions,
            until,
        );
        let generation = committed.await?;
        let bytes = manifest.bytes_total();
        let seen = side.saved.take().map(|saved| saved.round).unwrap_or_default();
        side.baseline = Some(Baseline {
            manifest: Arc::new(manifest),
            lineage: lineage.clone(),
            number: generation.number,
            round: Arc::new(seen),
            is_continued: true,
        });
        side.flushed = None;
        side.saved = None;
        context.set_unsaved(false);
        if kind == FlushKind::PreCopy {
            return Ok(Done::Committed { generation: format!("{lineage}/{}", generation.number), bytes });
        }
        side.final_commit = Some((generation.number, bytes));
    }
    let Some((number, bytes)) = side.final_commit else {
        return Err(EffectFailure::new(FailureKind::NotFound, "nothing is committed"));
    };
    settle_intent(clients, context, IntentState::Committed { number }, deadline).await?;
    Ok(Done::Committed { generation: format!("{lineage}/{number}"), bytes })
}

/// The manifest of what was saved, once it is certain that none of its packs is being removed as garbage.
async fn confirmed(
    clients: &Clients,
    context: &PodContext,
    side: &mut SourceSide,
    opened: &Opened,
    (workload, lineage): (&Workload, &LineageId),
    request: CommitRequest,
    until: tokio::time::Instant,
) -> Result<Manifest, EffectFailure> {
    let mut manifest = manifest_of(clients, context, side, workload, lineage, request.partial)?;
    let Some(reusable) = &mut side.reusable else { return Ok(manifest) };
    let store = opened.store.as_ref();
    match reusable.confirm(store, &manifest, name(clients, &manifest)?, until).await {
        Ok(()) => return Ok(manifest),
        Err(NotReusable::Packs { packs }) if request.without_endangered => {
            let left_out = manifest.leave_out(&packs);
            tracing::warn!(files = left_out, "left out: the packs they lie on are being removed as garbage");
        }
        Err(error) => return Err(error.into()),
    }
    if manifest.files.is_empty() {
        let why = "every file of the state lies on packs that are being removed as garbage";
        return Err(EffectFailure::new(FailureKind::NotFound, why));
    }
    // It has another name now; the list is the one that was just looked at.
    reusable.confirm(store, &manifest, name(clients, &manifest)?, until).await?;
    Ok(manifest)
}

fn name(clients: &Clients, manifest: &Manifest) -> Result<ContentHash, EffectFailure> {
    let (_, name) = manifest.encode(clients.mac_key.as_ref()).map_err(generation::CommitError::from)?;
    Ok(name)
}

fn manifest_of(
    clients: &Clients,
    context: &PodContext,
    side: &SourceSide,
    workload: &Workload,
    lineage: &LineageId,
    partial: bool,
) -> Result<Manifest, EffectFailure> {
    let Some(saved) = side.saved.as_ref().filter(|saved| !saved.files.is_empty() || saved.is_whole()) else {
        return Err(EffectFailure::new(FailureKind::NotFound, "no whole file of the state is in the store"));
    };
    let (flushed, record) = (side.flushed.as_ref(), context.record());
    let missing = flushed.is_some_and(|flushed| !flushed.missing.is_empty());
    Ok(Manifest {
        format: manifest::FORMAT,
        workload: workload.clone(),
        lineage: lineage.clone(),
        source: context.as_source(clients),
        revision: record.image_id.clone().unwrap_or_default(),
        spec_key: record.workload.spec_key.clone(),
        fingerprint: context.fingerprint().unwrap_or_default(),
        notice_id: side.departure.clone(),
        parent: side.baseline.as_ref().and_then(Baseline::as_parent),
        created: jiff::Timestamp::now(),
        partial: partial || missing || !saved.is_whole(),
        engine: flushed.map(|flushed| flushed.facts.clone()).unwrap_or_default(),
        files: saved.files.clone(),
        mac: None,
    })
}

/// The epoch under which this pod may write its lineage.
///
/// A lineage that is named by a pod's uid has one writer in all its life. One that is named by a
/// StatefulSet pod's name has one after the other, and each takes over with a claim of its own, also
/// where it restored nothing: else its commits could not be told from its predecessor's.
async fn writing_epoch(
    clients: &Clients,
    context: &PodContext,
    opened: &Opened,
    side: &mut SourceSide,
    until: tokio::time::Instant,
) -> Result<u64, EffectFailure> {
    if let Some(epoch) = side.epoch {
        return Ok(epoch);
    }
    let record = context.record();
    let epoch = if record.workload.named {
        let request = claim_request(clients, context, context.lineage()?);
        let workload = context.workload(clients)?;
        match opened.claims.take(opened.store.as_ref(), &workload, &request, until).await {
            Ok(mut held) => {
                held.finish(until).await?;
                held.epoch()
            }
            Err(ClaimError::Finished { epoch }) => epoch,
            Err(error) => return Err(error.into()),
        }
    } else {
        1
    };
    side.epoch = Some(epoch);
    Ok(epoch)
}

/// A claim of this pod on `lineage`.
pub(crate) fn claim_request(
    clients: &Clients,
    context: &PodContext,
    lineage: checkpoint::key::LineageId,
) -> ClaimRequest {
    let record = context.record();
    ClaimRequest {
        named: record.workload.named && lineage.as_str() == record.workload.lineage,
        lineage,
        holder: Holder {
            pod_uid: record.facts.uid.0,
            pod_name: record.facts.name,
            node: clients.node.clone(),
        },
        lease: clients.claim_lease,
    }
}
