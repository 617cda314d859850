//! What the real server refuses in an Event: an agent that forgets a field finds out in the drill.

use super::status::Refusal;
use serde_json::Value;

/// # Errors
/// 422 naming the field.
pub fn validate(api_version: &str, namespace: &str, event: &Value) -> Result<(), Refusal> {
    let name = event["metadata"]["name"].as_str().unwrap_or_default();
    let wrong = |why: String| Err(Refusal::invalid("Event", name, &why));
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let about = if api_version == "v1" { &event["involvedObject"] } else { &event["regarding"] };
    match about["namespace"].as_str().unwrap_or_default() {
        // About a Node: Events of cluster-scoped objects live in `default`.
        "" if !["default", "kube-system"].contains(&namespace) => {
            return wrong(format!(
                "involvedObject.namespace: Invalid value: \"\": does not match event.namespace {namespace:?}"
            ));
        }
        "" => {}
        of if of != namespace => {
            return wrong(format!(
                "involvedObject.namespace: Invalid value: {of:?}: does not match event.namespace"
            ));
        }
        _ => {}
    }
    if api_version != "events.k8s.io/v1" {
        return Ok(());
    }
    if event["eventTime"].is_null() {
        return wrong("eventTime: Required value".to_owned());
    }
    for (field, most) in
        [("reportingController", 253), ("reportingInstance", 128), ("action", 128), ("reason", 128)]
    {
        let value = text(field);
        if value.is_empty() {
            return wrong(format!("{field}: Required value"));
        }
        if value.len() > most {
            return wrong(format!("{field}: Invalid value: can have at most {most} characters"));
        }
    }
    if text("note").len() > 1024 {
        return wrong("note: Invalid value: can have at most 1024 characters".to_owned());
    }
    if !["Normal", "Warning"].contains(&text("type")) {
        return wrong(format!("type: Invalid value: {:?}", text("type")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_needs_its_fields_and_its_namespace() {
        let mut event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Node", "name": "n"}, "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "lifeboat.dev/agent",
            "reportingInstance": "n", "action": "Evacuate", "reason": "Noticed", "note": "x"});
        assert!(validate("events.k8s.io/v1", "default", &event).is_ok());
        assert!(validate("events.k8s.io/v1", "chat", &event).is_err());
        event["note"] = json!("x".repeat(1025));
        assert!(validate("events.k8s.io/v1", "default", &event).unwrap_err().message.contains("note"));
        event["note"] = json!("x");
        event["action"] = Value::Null;
        assert!(validate("events.k8s.io/v1", "default", &event).unwrap_err().message.contains("action"));
    }
}
