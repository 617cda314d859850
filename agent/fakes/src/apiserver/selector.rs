//! Field and label selectors: equality, inequality and existence, which is what agents send.

use super::status::Refusal;
use serde_json::Value;

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    namespace: Option<String>,
    fields: Vec<(String, bool, String)>,
    labels: Vec<(String, bool, Option<String>)>,
}

/// What the real server can select each resource by; it refuses anything else with 400.
const FIELDS: &[(&str, &str)] = &[
    ("pods", "spec.nodeName"),
    ("pods", "status.phase"),
    ("pods", "status.podIP"),
    ("events", "involvedObject.name"),
    ("events", "involvedObject.uid"),
    ("events", "regarding.name"),
    ("events", "reason"),
    ("events", "type"),
];

impl Selector {
    /// Reads the query's two selectors.
    ///
    /// # Errors
    /// 400 for a field that this resource cannot be selected by.
    pub fn new(
        resource: &str,
        namespace: Option<&str>,
        fields: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Self, Refusal> {
        let mut selector = Self { namespace: namespace.map(str::to_owned), ..Self::default() };
        for term in fields.unwrap_or_default().split(',').filter(|term| !term.is_empty()) {
            let (field, equal, value) = equality(term)
                .ok_or_else(|| Refusal::bad_request(format!("invalid field selector {term:?}")))?;
            let always = ["metadata.name", "metadata.namespace"].contains(&field);
            if !always && !FIELDS.contains(&(resource, field)) {
                return Err(Refusal::bad_request(format!("field label not supported: {field}")));
            }
            selector.fields.push((field.to_owned(), equal, value.to_owned()));
        }
        for term in labels.unwrap_or_default().split(',').filter(|term| !term.is_empty()) {
            let parsed = match equality(term) {
                Some((key, equal, value)) => (key.to_owned(), equal, Some(value.to_owned())),
                None => match term.strip_prefix('!') {
                    Some(key) => (key.to_owned(), false, None),
                    None => (term.to_owned(), true, None),
                },
            };
            selector.labels.push(parsed);
        }
        Ok(selector)
    }

    /// The object is meant.
    pub fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let namespaced = self.namespace.as_deref().is_none_or(|wanted| metadata["namespace"] == wanted);
        let fields = self.fields.iter().all(|(field, equal, value)| {
            let pointer = format!("/{}", field.replace('.', "/"));
            let found = object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
            (found == value) == *equal
        });
        let labels = self.labels.iter().all(|(key, equal, value)| match value {
            Some(value) => (metadata["labels"][key] == *value) == *equal,
            None => metadata["labels"][key].is_null() != *equal,
        });
        namespaced && fields && labels
    }
}

fn equality(term: &str) -> Option<(&str, bool, &str)> {
    if let Some((key, value)) = term.split_once("!=") {
        return Some((key, false, value));
    }
    let (key, value) = term.split_once("==").or_else(|| term.split_once('='))?;
    Some((key, true, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_and_labels_select() {
        let pod = json!({"metadata": {"name": "gold", "namespace": "chat", "labels": {"app": "gold"}},
            "spec": {"nodeName": "node-a"}});
        let of = |fields, labels| Selector::new("pods", None, fields, labels).unwrap().matches(&pod);
        assert!(of(Some("spec.nodeName=node-a"), None));
        assert!(!of(Some("spec.nodeName=node-b"), None));
        assert!(of(Some("metadata.name=gold,spec.nodeName!=node-b"), Some("app=gold")));
        assert!(of(None, Some("app,!other")));
        assert!(!of(None, Some("other")));
        assert!(!Selector::new("pods", Some("else"), None, None).unwrap().matches(&pod));
    }

    #[test]
    fn a_field_that_the_real_server_does_not_index_is_refused() {
        let refusal = Selector::new("pods", None, Some("spec.priority=3"), None).unwrap_err();
        assert_eq!(refusal.code, http::StatusCode::BAD_REQUEST);
    }
}
