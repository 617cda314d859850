//! Claims as `coordination.k8s.io/v1` Leases in the agent's own namespace: for a store that does not decide
//! conditional writes.
//!
//! ```text
//!   only if absent      POST                            409 AlreadyExists   ─┐
//!   if it is still that PUT with uid, resourceVersion   409 Conflict, 404   ─┴─► the condition failed
//!   how old             managedFields[lifeboat].time    against the answer's Date: both are the API server's
//! ```
//!
//! One Lease per lineage. What counts is the document in its annotation; its spec is for people
//! (`kubectl -n lifeboat-system get leases`). Nobody deletes them: the agent has no right to, and a claim that is done
//! says that its state was restored.

use super::call::Call;
use super::{Cluster, ClusterError};
use async_trait::async_trait;
use bytes::Bytes;
use checkpoint::claim::{ClaimBoard, Posted, Posting};
use checkpoint::store::{Condition, StoreError, Version};
use evacuation::event::FailureKind;
use evacuation::moment::{Moment, Span};
use evacuation::names::{CLAIM_ANNOTATION, LINEAGE_ANNOTATION};
use host::{causes, clock};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// Under this name the API server notes when we last wrote.
const MANAGER: &str = "lifeboat";
/// One attempt; the claim's own retries repeat it until its deadline.
const PATIENCE: Span = Span::from_secs(4);

/// The Leases of the agent's namespace as a place for claims.
#[derive(Clone)]
pub struct LeaseBoard {
    cluster: Cluster,
}

impl fmt::Debug for LeaseBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseBoard").field("namespace", &self.namespace()).finish_non_exhaustive()
    }
}

impl LeaseBoard {
    /// A board over this connection; the namespace is that of the service account, or of the kubeconfig's context.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    fn namespace(&self) -> &str {
        self.cluster.client.default_namespace()
    }

    fn path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace())
    }

    /// The Lease that would be written.
    fn lease(&self, posting: &Posting<'_>, condition: &Condition) -> Value {
        let claim = posting.claim;
        let document = String::from_utf8_lossy(&posting.body);
        let mut metadata = json!({
            "name": name(posting.key),
            "namespace": self.namespace(),
            "labels": { "app.kubernetes.io/managed-by": "lifeboat" },
            "annotations": { CLAIM_ANNOTATION: document, LINEAGE_ANNOTATION: posting.key },
        });
        if let Condition::IfMatch(version) = condition {
            let version = version.to_string();
            let (version, uid) = version.split_once('@').unwrap_or((&version, ""));
            metadata["resourceVersion"] = json!(version);
            // A PUT of a Lease that was deleted creates it, whatever its resourceVersion says (seen on 1.36.3): the uid
            // makes that a conflict.
            metadata["uid"] = json!(uid);
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": claim.holder.to_string(),
                // Less than one is refused.
                "leaseDurationSeconds": i32::try_from(claim.lease_ms.div_ceil(1000).max(1)).unwrap_or(i32::MAX),
                "acquireTime": micro_time(posting.since),
                "renewTime": micro_time(Timestamp::now()),
                "leaseTransitions": i32::try_from(claim.epoch.saturating_sub(1)).unwrap_or(i32::MAX),
            },
        })
    }
}

#[async_trait]
impl ClaimBoard for LeaseBoard {
    async fn read(&self, key: &str, deadline: Instant) -> Result<Posted, StoreError> {
        let name = name(key);
        // No resourceVersion: the API server reads the newest, not its cache.
        let call = Call::get(format!("{}/{name}", self.path()), format!("lease {name}"));
        match self.cluster.send_dated::<Lease>(call, patience(deadline)).await {
            Ok((lease, date)) => posted(key, &name, lease.metadata, date),
            Err(error) if error.is_not_found() => Err(StoreError::NotFound { key: key.to_owned() }),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn write(
        &self,
        posting: &Posting<'_>,
        condition: &Condition,
        deadline: Instant,
    ) -> Result<Version, StoreError> {
        let (name, key) = (name(posting.key), posting.key);
        let (path, what) = (self.path(), format!("lease {name}"));
        let body = self.lease(posting, condition);
        let call = match condition {
            Condition::IfMatch(_) => {
                Call::update(format!("{path}/{name}?fieldManager={MANAGER}"), what, body)
            }
            Condition::IfAbsent | Condition::Always => {
                Call::create(format!("{path}?fieldManager={MANAGER}"), what, body)
            }
        };
        match self.cluster.send::<Lease>(call, patience(deadline)).await {
            Ok(lease) => Ok(version(&lease.metadata)),
            Err(error) if lost(&error, condition) => Err(StoreError::ConditionFailed { key: key.to_owned() }),
            Err(error) => Err(failed(&error)),
        }
    }

    fn describe(&self) -> String {
        format!("Leases in namespace {}", self.namespace())
    }
}

/// The name of a lineage's Lease. 160 bits of a hash: keys are longer than names may be, and hold other characters.
fn name(key: &str) -> String {
    format!("lifeboat-{}", &blake3::hash(key.as_bytes()).to_hex()[..40])
}

fn patience(deadline: Instant) -> Moment {
    clock::moment(deadline).min(clock::now() + PATIENCE)
}

/// A Lease as a claim. Its age is what the API server's clock says now less what it said at the last write.
fn posted(
    key: &str,
    name: &str,
    metadata: ObjectMeta,
    date: Option<Timestamp>,
) -> Result<Posted, StoreError> {
    let unusable = |why: &str| StoreError::Permanent { message: format!("lease {name} {why}") };
    let (Some(now), Some(written)) = (date, written(&metadata)) else {
        let message = format!("the answer to get lease {name} tells no time: is there a proxy in between?");
        return Err(StoreError::Transient { message });
    };
    let version = version(&metadata);
    let mut annotations = metadata.annotations.unwrap_or_default();
    if annotations.get(LINEAGE_ANNOTATION).is_none_or(|of| of != key) {
        return Err(unusable(&format!("is not the claim of {key}: look at its annotations, and delete it")));
    }
    let document =
        annotations.remove(CLAIM_ANNOTATION).ok_or_else(|| unusable("holds no claim: delete it"))?;
    let age = Duration::try_from(now.duration_since(written)).unwrap_or_default();
    Ok(Posted { bytes: Bytes::from(document), version, age })
}

/// When the API server last stored a write of ours: it stamps the fields of a manager whenever one of them changes, and
/// the claim's nonce changes each time. Without our entry (merged into another, as the oldest of many are) the newest
/// of all is the safe reading.
fn written(metadata: &ObjectMeta) -> Option<Timestamp> {
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    let ours = entries.iter().filter(|entry| entry.manager.as_deref() == Some(MANAGER));
    let newest = ours.filter_map(|entry| entry.time.as_ref()).max();
    let newest = newest.or_else(|| entries.iter().filter_map(|entry| entry.time.as_ref()).max());
    newest.or(metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

fn version(metadata: &ObjectMeta) -> Version {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}@{}", part(&metadata.resource_version), part(&metadata.uid)).into()
}

/// Somebody else was first: the Lease exists, has changed, or is gone.
fn lost(error: &ClusterError, condition: &Condition) -> bool {
    let ClusterError::Answered { status, .. } = error else { return false };
    status.code == 409 || (status.code == 404 && matches!(condition, Condition::IfMatch(_)))
}

/// In the words of the claim's errors.
fn failed(error: &ClusterError) -> StoreError {
    let mut message = causes::chain(error);
    if matches!(error, ClusterError::Answered { status, .. } if status.code == 403) {
        message.push_str("; the Role lifeboat-agent-claims (manifests/base/rbac.yaml) grants it");
    }
    match error.failure_kind() {
        FailureKind::Throttled => StoreError::Throttled { message },
        FailureKind::Transient | FailureKind::Unreachable => StoreError::Transient { message },
        _ => StoreError::Permanent { message },
    }
}

/// A time as metav1.MicroTime writes it.
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests;
