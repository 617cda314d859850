//! One request: who, what, may they, and the answer.

use super::admission::{self, User};
use super::audit::Request;
use super::misconduct::Instead;
use super::path::Target;
use super::selector::Selector;
use super::status::{Refusal, answer};
use super::storage::Storage;
use super::watching::{self, Wanted};
use super::{ApiState, deletion, lease, patch};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use host::clock;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The largest watch the real server gives is random between 30 and 60 minutes: longer than any drill.
const WATCH_TIMEOUT: Duration = Duration::from_secs(1800);

/// A request, taken apart.
struct ApiCall<'a> {
    user: User,
    verb: &'static str,
    target: Target,
    query: BTreeMap<String, String>,
    content_type: &'a str,
    body: &'a Value,
}

/// Answers every path.
pub(super) async fn any(
    State(shared): State<Arc<ApiState>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let at = clock::now();
    let mut request = Request {
        at,
        answered: at,
        user: String::new(),
        verb: "",
        resource: String::new(),
        namespace: String::new(),
        name: String::new(),
        subresource: String::new(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        code: 0,
        refusal: None,
        uid: None,
    };
    let mut response = match respond(&shared, &method, &mut request).await {
        Ok(response) => response,
        Err(refusal) => {
            request.refusal = Some(format!("{}: {}", refusal.reason, refusal.message));
            refusal.into_response()
        }
    };
    // As every server must; by this one's own clock.
    if let Ok(date) = http::HeaderValue::from_str(&http_time(shared.storage.now())) {
        response.headers_mut().insert(http::header::DATE, date);
    }
    request.answered = clock::now();
    request.code = response.status().as_u16();
    shared.audit.push(request);
    response
}

/// Finds out what is asked for, notes it, and does it, or what the faults and the script want instead.
async fn respond(shared: &ApiState, method: &Method, request: &mut Request) -> Result<Response, Refusal> {
    if request.path == "/version" {
        return Ok(answer(StatusCode::OK, &json!({"major": "1", "minor": "33", "gitVersion": "v1.33.6"})));
    }
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    let token = header(http::header::AUTHORIZATION).and_then(|bearer| bearer.strip_prefix("Bearer "));
    let user = token.and_then(|token| shared.users.get(token)).cloned();
    let user = user.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"))?;
    request.user.clone_from(&user.name);
    let query: BTreeMap<String, String> = form(&request.query);
    let target = Target::parse(&request.path).ok_or_else(Refusal::no_such_path)?;
    request.resource = target.resource.to_owned();
    request.namespace = target.namespace.clone().unwrap_or_default();
    request.name = target.name.clone().unwrap_or_default();
    request.subresource = target.subresource.clone().unwrap_or_default();
    let object = shared.storage.get(target.resource, &request.namespace, &request.name);
    request.uid = object.and_then(|object| object["metadata"]["uid"].as_str().map(str::to_owned));
    let watches = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
    request.verb = match (method, target.subresource.as_deref()) {
        (&Method::GET, _) if target.name.is_none() && watches => "watch",
        (&Method::GET, _) if target.name.is_none() => "list",
        (&Method::GET, _) => "get",
        (&Method::POST, Some("eviction")) => "evict",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, _) => "delete",
        _ => {
            let message = "the server does not allow this method on the requested resource";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
        }
    };
    let content_type = request.headers.get(http::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Asked also about a drainer's requests, which count among those that a fault lets pass.
    let fault = shared.misconduct.strikes(request.verb, target.resource).filter(|_| user.node.is_some());
    let instead = shared.misconduct.scripted(request.verb, &request.path).or(fault);
    let call = ApiCall { user, verb: request.verb, target, query, content_type, body: &request.body };
    match instead {
        None => {}
        Some(Instead::Refuse(refusal)) => return Err(refusal),
        Some(Instead::Answer(code, Value::String(page))) => return Ok((code, page).into_response()),
        Some(Instead::Answer(code, body)) => return Ok(answer(code, &body)),
        Some(Instead::Stall(Some(until))) => tokio::time::sleep_until(clock::instant(until)).await,
        Some(Instead::Stall(None)) => std::future::pending().await,
        Some(Instead::ForeignWrite) => foreign_write(&shared.storage, &request.name),
    }
    serve(shared, &call)
}

fn serve(shared: &ApiState, call: &ApiCall<'_>) -> Result<Response, Refusal> {
    let storage = &shared.storage;
    let Target { resource, kind, api_version, namespace, name, subresource } = &call.target;
    admission::admit(storage, &call.user, call.verb, &call.target)?;
    let of = namespace.as_deref().unwrap_or_default();
    let name = name.as_deref().unwrap_or_default();
    let query = |key: &str| call.query.get(key).map(String::as_str);
    let selector =
        || Selector::new(resource, namespace.as_deref(), query("fieldSelector"), query("labelSelector"));
    match call.verb {
        "list" => {
            let selector = selector()?;
            let (objects, version) = storage.list(resource);
            let items: Vec<&Value> =
                objects.iter().map(AsRef::as_ref).filter(|object| selector.matches(object)).collect();
            let list = json!({"kind": format!("{kind}List"), "apiVersion": api_version,
                "metadata": {"resourceVersion": version.to_string()}, "items": items});
            Ok(answer(StatusCode::OK, &list))
        }
        "watch" => {
            if query("sendInitialEvents").is_some() {
                // The streaming list is a gate of the server; one without it answers so, and clients fall back.
                let why = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the \
                           WatchList feature gate is enabled";
                return Err(Refusal::invalid("ListOptions", "", why));
            }
            let after = query("resourceVersion").filter(|version| !["", "0"].contains(version));
            let after = after.map(str::parse::<u64>).transpose();
            let after = after.map_err(|_| Refusal::bad_request("invalid resource version"))?;
            let seconds = query("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
            let wanted = Wanted {
                resource,
                kind,
                api_version,
                selector: selector()?,
                after,
                bookmarks: query("allowWatchBookmarks") == Some("true"),
                timeout: seconds.map_or(WATCH_TIMEOUT, Duration::from_secs),
            };
            Ok(watching::watch(Arc::clone(storage), wanted))
        }
        "get" => {
            let object = storage.get(resource, of, name).ok_or_else(|| Refusal::not_found(resource, name))?;
            Ok(answer(StatusCode::OK, &object))
        }
        "create" => {
            if call.body["metadata"]["namespace"].as_str().is_some_and(|inside| inside != of) {
                return Err(Refusal::bad_request(
                    "the namespace of the object does not match the namespace on the request",
                ));
            }
            if *resource == "events" {
                super::event::validate(api_version, of, call.body)?;
            }
            let mut object = call.body.clone();
            if *resource == "leases" {
                lease::check(name_in(&object), &object)?;
                lease::stamp(&mut object, query("fieldManager"), storage.now());
            }
            let made = storage.create(resource, of, object)?;
            Ok(answer(StatusCode::CREATED, &made))
        }
        "evict" => {
            deletion::evict(storage, &shared.budgets, of, name, call.body)?;
            let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            Ok(answer(StatusCode::CREATED, &success))
        }
        "delete" => {
            let mut options = call.body.clone();
            if let Some(grace) = query("gracePeriodSeconds").and_then(|grace| grace.parse::<u64>().ok()) {
                options["gracePeriodSeconds"] = json!(grace);
            }
            let object = deletion::delete(storage, resource, of, name, &options)?;
            Ok(answer(StatusCode::OK, &object))
        }
        "update" if *resource == "leases" && storage.get(resource, of, name).is_none() => {
            let made = lease::put(storage, of, name, call.body.clone(), query("fieldManager"))?;
            Ok(answer(StatusCode::CREATED, &made))
        }
        _ => {
            let changed = storage.update(resource, of, name, |old| {
                let new = match call.verb {
                    "patch" => patch::apply(call.content_type, old, call.body)?,
                    _ => call.body.clone(),
                };
                let mut new = changed(resource, name, subresource.as_deref(), old, new)?;
                if *resource == "leases" {
                    lease::check(name, &new)?;
                    lease::stamp(&mut new, query("fieldManager"), storage.now());
                }
                Ok(Some(new))
            })?;
            Ok(answer(StatusCode::OK, &changed))
        }
    }
}

/// What an update may change: identity never, a pod's spec hardly, the status only under `/status`.
fn changed(
    resource: &str,
    name: &str,
    sub: Option<&str>,
    old: &Value,
    mut new: Value,
) -> Result<Value, Refusal> {
    for field in ["resourceVersion", "uid"] {
        let (was, is) = (&old["metadata"][field], &new["metadata"][field]);
        if !is.is_null() && was != is {
            let why = match field {
                "uid" => "Precondition failed: UID in precondition does not match UID in object meta",
                _ => {
                    "the object has been modified; please apply your changes to the latest version and try again"
                }
            };
            return Err(Refusal::conflict(resource, name, why));
        }
    }
    for field in
        ["uid", "name", "namespace", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        match old["metadata"].get(field) {
            Some(was) => new["metadata"][field] = was.clone(),
            None => {
                if let Some(metadata) = new["metadata"].as_object_mut() {
                    metadata.remove(field);
                }
            }
        }
    }
    match sub {
        Some("status") => {
            let mut whole = old.clone();
            whole["status"] = new["status"].take();
            Ok(whole)
        }
        Some(other) => Err(Refusal::not_found(resource, &format!("{name}/{other}"))),
        None => {
            if ["nodes", "pods"].contains(&resource) {
                new["status"] = old["status"].clone();
            }
            if resource == "pods" && new["spec"] != old["spec"] {
                let why = "spec: Forbidden: pod updates may not change fields other than \
                           `spec.containers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations`";
                return Err(Refusal::invalid("Pod", name, why));
            }
            Ok(new)
        }
    }
}

/// Somebody else's taint, which must survive: the `api=conflict` fault.
pub const FOREIGN_TAINT: &str = "example.com/maintenance";

fn foreign_write(storage: &Storage, node: &str) {
    let outcome = storage.update("nodes", "", node, |old| {
        let mut new = old.clone();
        let count =
            new["metadata"]["annotations"]["example.com/writes"].as_str().and_then(|n| n.parse().ok());
        new["metadata"]["annotations"]["example.com/writes"] =
            json!((count.unwrap_or(0_u32) + 1).to_string());
        let taints = new["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let mut taints: Vec<Value> =
            taints.into_iter().filter(|taint| taint["key"] != FOREIGN_TAINT).collect();
        taints.push(json!({"key": FOREIGN_TAINT, "value": "soon", "effect": "PreferNoSchedule"}));
        new["spec"]["taints"] = json!(taints);
        Ok(Some(new))
    });
    if let Err(refusal) = outcome {
        tracing::debug!(?refusal, "no node to write to");
    }
}

fn name_in(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// A time as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_time(time: jiff::Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A query string, decoded.
fn form(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = form("fieldSelector=spec.nodeName%3Dnode-a&watch=true&x=a+b%");
        assert_eq!(query["fieldSelector"], "spec.nodeName=node-a");
        assert_eq!(query["x"], "a b%");
    }

    #[test]
    fn a_pods_spec_stands_and_its_status_changes_only_under_status() {
        let old =
            json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"a": 1}, "status": {"b": 1}});
        let mut new = old.clone();
        new["status"]["b"] = json!(2);
        assert_eq!(changed("pods", "p", None, &old, new.clone()).unwrap()["status"]["b"], 1);
        assert_eq!(changed("pods", "p", Some("status"), &old, new.clone()).unwrap()["status"]["b"], 2);
        new["spec"]["a"] = json!(2);
        assert_eq!(changed("pods", "p", None, &old, new.clone()).unwrap_err().code.as_u16(), 422);
        new["metadata"]["resourceVersion"] = json!("6");
        assert_eq!(changed("pods", "p", None, &old, new).unwrap_err().code.as_u16(), 409);
    }
}
