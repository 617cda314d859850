//! The patch dialects, as far as an agent speaks them.
//!
//! *Strategic merge*: lists are replaced whole, except those which the API's types merge by a key. Of the lists
//! an agent touches these are `status.conditions` and `status.addresses` (by `type`); a node's taints are one
//! atomic list, which is why a patch of them must carry the resourceVersion.

use super::status::Refusal;
use serde_json::{Map, Value};

/// Lists that strategic merge merges, by where they are, with their key.
const MERGED: &[(&str, &str)] = &[
    ("/status/conditions", "type"),
    ("/status/addresses", "type"),
    ("/metadata/ownerReferences", "uid"),
    ("/spec/containers", "name"),
    ("/status/containerStatuses", "name"),
];

/// The object that a patch of this content type makes of `old`.
///
/// # Errors
/// 415 for an unknown dialect, 400 or 422 for a patch that cannot be applied.
pub fn apply(content_type: &str, old: &Value, patch: &Value) -> Result<Value, Refusal> {
    let mut new = old.clone();
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/merge-patch+json" => json_patch::merge(&mut new, patch),
        // Server-side apply keeps no field owners here: it merges, which is what an agent that owns its fields sees.
        "application/strategic-merge-patch+json" | "application/apply-patch+yaml" => {
            strategic(&mut new, patch, "");
        }
        "application/json-patch+json" => {
            let steps: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut new, &steps).map_err(|error| {
                let code = http::StatusCode::UNPROCESSABLE_ENTITY;
                Refusal::new(code, "Invalid", format!("the patch cannot be applied: {error}"))
            })?;
        }
        other => {
            let code = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let message = format!("the body of the request was in an unknown format - {other:?}");
            return Err(Refusal::new(code, "UnsupportedMediaType", message));
        }
    }
    Ok(new)
}

fn strategic(target: &mut Value, patch: &Value, path: &str) {
    match patch {
        Value::Object(patch) => {
            if patch.get("$patch").is_some_and(|directive| directive == "replace") {
                let mut whole = patch.clone();
                whole.remove("$patch");
                *target = Value::Object(whole);
                return;
            }
            let mut fields = taken(target);
            for (name, value) in patch {
                // `$setElementOrder/…` only sorts, `$retainKeys` only narrows unions: neither matters here.
                if name.starts_with('$') {
                    continue;
                }
                if value.is_null() {
                    fields.remove(name);
                } else {
                    let below = format!("{path}/{name}");
                    strategic(fields.entry(name.clone()).or_insert(Value::Null), value, &below);
                }
            }
            *target = Value::Object(fields);
        }
        Value::Array(items) => match MERGED.iter().find(|(list, _)| *list == path) {
            Some((_, key)) => merge_list(target, items, key),
            None => *target = patch.clone(),
        },
        other => *target = other.clone(),
    }
}

fn merge_list(target: &mut Value, items: &[Value], key: &str) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(list) = target else { return };
    for item in items {
        let found = list.iter().position(|old| old[key] == item[key]);
        if item.get("$patch").is_some_and(|directive| directive == "delete") {
            if let Some(at) = found {
                list.remove(at);
            }
            continue;
        }
        match found {
            Some(at) => strategic(&mut list[at], item, "/item"),
            None => list.push(item.clone()),
        }
    }
}

/// The fields of an object; none of anything else.
fn taken(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STRATEGIC: &str = "application/strategic-merge-patch+json";

    #[test]
    fn merge_patch_replaces_lists_and_removes_nulls() {
        let old = json!({"spec": {"taints": [{"key": "a"}], "unschedulable": true}});
        let patch = json!({"spec": {"taints": [{"key": "b"}], "unschedulable": null}});
        let new = apply("application/merge-patch+json", &old, &patch).unwrap();
        assert_eq!(new, json!({"spec": {"taints": [{"key": "b"}]}}));
    }

    #[test]
    fn strategic_merge_merges_conditions_by_type_and_replaces_taints() {
        let old = json!({"spec": {"taints": [{"key": "a"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let patch = json!({"spec": {"taints": [{"key": "b"}]},
            "status": {"conditions": [{"type": "lifeboat.dev/restored", "status": "True"}]}});
        let new = apply(STRATEGIC, &old, &patch).unwrap();
        assert_eq!(new["spec"]["taints"], json!([{"key": "b"}]));
        assert_eq!(new["status"]["conditions"].as_array().unwrap().len(), 2);
        let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let new = apply(STRATEGIC, &new, &patch).unwrap();
        assert_eq!(new["status"]["conditions"][0]["status"], "False");
    }

    #[test]
    fn json_patch_tests_before_it_changes() {
        let old = json!({"metadata": {"annotations": {"a/b": "1"}}});
        let patch = json!([{"op": "test", "path": "/metadata/annotations/a~1b", "value": "1"},
            {"op": "remove", "path": "/metadata/annotations/a~1b"}]);
        let new = apply("application/json-patch+json", &old, &patch).unwrap();
        assert_eq!(new, json!({"metadata": {"annotations": {}}}));
        let failed = apply("application/json-patch+json", &new, &patch).unwrap_err();
        assert_eq!(failed.code.as_u16(), 422);
        let unreadable = apply("application/json-patch+json", &new, &json!({"op": "remove"})).unwrap_err();
        assert_eq!(unreadable.code.as_u16(), 400);
    }

    #[test]
    fn an_unknown_dialect_is_refused() {
        assert_eq!(apply("application/json", &json!({}), &json!({})).unwrap_err().code.as_u16(), 415);
    }
}
