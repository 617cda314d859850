//! DELETE and eviction of pods, with graces, preconditions and disruption budgets.

use super::status::Refusal;
use super::storage::{Storage, wire_time};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// A PodDisruptionBudget that covers the pods with one label.
///
/// It does not count healthy pods as the real controller does: it refuses as long as it is told to, with
/// the real server's words.
#[derive(Debug)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The label it selects by.
    pub label: (String, String),
    /// When it refuses.
    pub refuses: Mutex<Refuses>,
}

/// When a budget refuses an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuses {
    /// So many times more.
    Times(u32),
    /// Always.
    Always,
}

impl Budget {
    fn refuses_now(&self) -> bool {
        let mut refuses = self.refuses.lock();
        match &mut *refuses {
            Refuses::Times(0) => false,
            Refuses::Times(left) => {
                *left -= 1;
                true
            }
            Refuses::Always => true,
        }
    }

    fn covers(&self, pod: &Value) -> bool {
        let (key, value) = &self.label;
        pod["metadata"]["namespace"] == self.namespace && pod["metadata"]["labels"][key] == *value
    }
}

/// DELETE of any object. Pods are deleted gracefully; everything else at once.
///
/// # Errors
/// 404, or 409 for a precondition that does not hold.
pub fn delete(
    storage: &Storage,
    resource: &'static str,
    namespace: &str,
    name: &str,
    options: &Value,
) -> Result<Arc<Value>, Refusal> {
    let object = storage.get(resource, namespace, name).ok_or_else(|| Refusal::not_found(resource, name))?;
    preconditions(resource, name, &object, options)?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let asked = options["gracePeriodSeconds"].as_u64();
    let grace = grace(resource, &object, asked);
    if grace == 0 {
        // Without a kubelet in between: `kubectl delete --force`, and the kubelet's own last DELETE.
        return storage
            .remove(resource, namespace, name, &uid)
            .ok_or_else(|| Refusal::not_found(resource, name));
    }
    storage.update(resource, namespace, name, |pod| {
        preconditions(resource, name, pod, options)?;
        // A deletion that has begun can only be made shorter, and only in the object: the kubelet keeps the
        // grace it began with (measured with kubelet 1.34.4: evicted with 60 s, deleted with 2 s, it lived 60 s).
        if pod["metadata"]["deletionGracePeriodSeconds"].as_u64().is_some_and(|begun| begun <= grace) {
            return Ok(None);
        }
        let mut pod = pod.clone();
        let until = Timestamp::now() + jiff::SignedDuration::from_secs(grace as i64);
        pod["metadata"]["deletionTimestamp"] = json!(wire_time(until));
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        Ok(Some(pod))
    })
}

/// POST …/eviction.
///
/// # Errors
/// 404, 409 for a precondition, 429 with a cause where a budget refuses, 500 for two budgets on one pod.
pub fn evict(
    storage: &Storage,
    budgets: &[Budget],
    namespace: &str,
    name: &str,
    eviction: &Value,
) -> Result<(), Refusal> {
    if eviction["metadata"]["name"].as_str().is_some_and(|named| named != name) {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
    }
    let pod = storage.get("pods", namespace, name).ok_or_else(|| Refusal::not_found("pods", name))?;
    // Only `deleteOptions` is read: `delete_options`, which some clients send, is an unknown field that the
    // real server drops without a word, and with it the precondition and the grace.
    let options = &eviction["deleteOptions"];
    preconditions("pods", name, &pod, options)?;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let free = !pod["metadata"]["deletionTimestamp"].is_null()
        || ["Pending", "Succeeded", "Failed"].contains(&phase);
    let covering: Vec<&Budget> = budgets.iter().filter(|budget| !free && budget.covers(&pod)).collect();
    match covering.as_slice() {
        [] => {}
        [budget] if !budget.refuses_now() => {}
        [budget] => {
            let message =
                format!("The disruption budget {} needs 1 healthy pods and has 1 currently", budget.name);
            let cause = json!({"reason": "DisruptionBudget", "message": message});
            let refusal = Refusal::new(
                http::StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
            );
            return Err(Refusal { details: json!({"causes": [cause]}), ..refusal });
        }
        _ => {
            return Err(Refusal::new(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    }
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": wire_time(Timestamp::now())});
    storage.update("pods", namespace, name, |pod| {
        preconditions("pods", name, pod, options)?;
        let patch = json!({"status": {"conditions": [condition]}});
        super::patch::apply("application/strategic-merge-patch+json", pod, &patch).map(Some)
    })?;
    delete(storage, "pods", namespace, name, options).map(drop)
}

fn preconditions(resource: &str, name: &str, object: &Value, options: &Value) -> Result<(), Refusal> {
    for (field, words, happened) in
        [("uid", "UID", "deleted and then recreated"), ("resourceVersion", "ResourceVersion", "modified")]
    {
        let (wanted, found) = (&options["preconditions"][field], &object["metadata"][field]);
        if !wanted.is_null() && wanted != found {
            let why = format!(
                "the {words} in the precondition ({}) does not match the {words} in record ({}). \
                 The object might have been {happened}",
                wanted.as_str().unwrap_or_default(),
                found.as_str().unwrap_or_default()
            );
            return Err(Refusal::conflict(resource, name, &why));
        }
    }
    Ok(())
}

/// The grace of a deletion: what was asked for, else the pod's own. Nothing waits for a kubelet where no
/// kubelet has the pod, or where it has finished.
fn grace(resource: &str, object: &Value, asked: Option<u64>) -> u64 {
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let nowhere = object["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    if resource != "pods" || nowhere || ["Succeeded", "Failed"].contains(&phase) {
        return 0;
    }
    asked.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30)
}
