//! What the real server does to a Lease beside storing it.

use super::status::Refusal;
use super::storage::{Storage, wire_time};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// What it refuses.
///
/// # Errors
/// 422, as the real server's validation says it.
pub fn check(name: &str, lease: &Value) -> Result<(), Refusal> {
    let invalid = |why: &str| Err(Refusal::invalid("Lease.coordination.k8s.io", name, why));
    if lease["spec"]["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds < 1) {
        return invalid("spec.leaseDurationSeconds: Invalid value: must be greater than 0");
    }
    if lease["spec"]["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        return invalid("spec.leaseTransitions: Invalid value: must be greater than or equal to 0");
    }
    Ok(())
}

/// A PUT of a Lease that is not there: it creates it, also under a resourceVersion, unless it names a uid (seen on
/// 1.36.3).
///
/// # Errors
/// 409 for a uid, 422 as [`check`].
pub fn put(
    storage: &Storage,
    namespace: &str,
    name: &str,
    mut lease: Value,
    manager: Option<&str>,
) -> Result<Arc<Value>, Refusal> {
    if let Some(uid) = lease["metadata"]["uid"].as_str() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
        return Err(Refusal::conflict("leases.coordination.k8s.io", name, &why));
    }
    check(name, &lease)?;
    stamp(&mut lease, manager, storage.now());
    storage.create("leases", namespace, lease)
}

/// Notes in managedFields when this manager last changed something. (The fields themselves are not tracked.)
pub fn stamp(lease: &mut Value, manager: Option<&str>, now: Timestamp) {
    let manager = manager.unwrap_or("unknown");
    let mut entries = lease["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.retain(|entry| entry["manager"] != manager);
    entries.push(json!({
        "manager": manager, "operation": "Update", "apiVersion": "coordination.k8s.io/v1",
        "time": wire_time(now), "fieldsType": "FieldsV1", "fieldsV1": {},
    }));
    lease["metadata"]["managedFields"] = json!(entries);
}
