//! What a URL path of the API names.

/// The resources this server knows: plural, kind, apiVersion, namespaced.
const RESOURCES: &[(&str, &str, &str, bool)] = &[
    ("nodes", "Node", "v1", false),
    ("namespaces", "Namespace", "v1", false),
    ("pods", "Pod", "v1", true),
    ("events", "Event", "v1", true),
    ("events", "Event", "events.k8s.io/v1", true),
    ("poddisruptionbudgets", "PodDisruptionBudget", "policy/v1", true),
    ("priorityclasses", "PriorityClass", "scheduling.k8s.io/v1", false),
    ("leases", "Lease", "coordination.k8s.io/v1", true),
];

/// A resource, or one object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `pods`.
    pub resource: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `v1`.
    pub api_version: &'static str,
    /// The namespace; `None` for cluster-scoped objects and for all namespaces.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: Option<String>,
    /// `status`, `eviction`.
    pub subresource: Option<String>,
}

impl Target {
    /// Reads a path; `None` if it names nothing this server knows.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (api_version, rest): (String, &[&str]) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        // `namespaces/NAME` is a Namespace, `namespaces/NAME/pods` is something in it.
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            _ => (None, rest),
        };
        let plural = rest.first()?;
        let (resource, kind, api_version, namespaced) = RESOURCES
            .iter()
            .copied()
            .find(|(resource, _, known, _)| resource == plural && *known == api_version)?;
        if namespace.is_some() && !namespaced {
            return None;
        }
        let name = rest.get(1).map(|name| (*name).to_owned());
        let subresource = rest.get(2).map(|sub| (*sub).to_owned());
        if rest.len() > 3 || (name.is_some() && namespaced && namespace.is_none()) {
            return None;
        }
        Some(Self { resource, kind, api_version, namespace, name, subresource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> (Option<String>, Option<String>, Option<String>) {
        let target = Target::parse(path).unwrap();
        (target.namespace, target.name, target.subresource)
    }

    #[test]
    fn paths_name_resources_objects_and_subresources() {
        assert_eq!(parsed("/api/v1/nodes/node-a"), (None, Some("node-a".into()), None));
        assert_eq!(parsed("/api/v1/pods"), (None, None, None));
        let eviction = parsed("/api/v1/namespaces/chat/pods/gold/eviction");
        assert_eq!(eviction, (Some("chat".into()), Some("gold".into()), Some("eviction".into())));
        assert_eq!(parsed("/api/v1/namespaces/chat"), (None, Some("chat".into()), None));
        assert_eq!(Target::parse("/apis/events.k8s.io/v1/namespaces/x/events").unwrap().kind, "Event");
    }

    #[test]
    fn what_it_does_not_know_it_does_not_guess() {
        for path in
            ["/", "/api", "/api/v1", "/apis/apps/v1/deployments", "/api/v1/pods/gold", "/api/v2/nodes"]
        {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }
}
