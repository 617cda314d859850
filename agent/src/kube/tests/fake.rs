//! A small API server: one node, some pods, real HTTP, and whatever else a test wants it to answer.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use futures::StreamExt;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Value,
}

/// What a test wants answered instead, once.
pub enum Instead {
    Answer(u16, Value),
    Nothing,
    /// Somebody else adds this taint first.
    TaintedFirst(Value),
}

#[derive(Default)]
pub struct World {
    pub node: Value,
    pub pods: Vec<Value>,
    pub seen: Vec<Seen>,
    /// Method, end of the path, answer.
    pub instead: Vec<(Method, &'static str, Instead)>,
    version: u64,
    history: Vec<(u64, &'static str, Value)>,
}

pub struct Fake {
    pub url: String,
    world: Arc<Mutex<World>>,
    changes: broadcast::Sender<Option<(u64, &'static str, Value)>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub async fn start(node: Value, pods: Vec<Value>) -> Fake {
        let world = Arc::new(Mutex::new(World { node, pods, version: 10, ..World::default() }));
        let (changes, _) = broadcast::channel(64);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state((Arc::clone(&world), changes.clone()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Fake { url, world, changes, server }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn instead(&self, method: Method, path: &'static str, instead: Instead) {
        self.world().instead.push((method, path, instead));
    }

    /// Requests of a method on paths that end so.
    pub fn requests(&self, method: Method, end: &str) -> Vec<Seen> {
        self.world()
            .seen
            .iter()
            .filter(|seen| seen.method == method && seen.path.ends_with(end))
            .cloned()
            .collect()
    }

    /// A pod was added, changed or deleted, and those who watch see it.
    pub fn change(&self, kind: &str, mut pod: Value) {
        let mut world = self.world();
        let version = world.next();
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        world.pods.retain(|other| other["metadata"]["uid"] != pod["metadata"]["uid"]);
        if kind != "DELETED" {
            world.pods.push(pod.clone());
        }
        let change = (version, "pods", json!({ "type": kind, "object": pod }));
        world.history.push(change.clone());
        drop(world);
        let _ = self.changes.send(Some(change));
    }

    /// Every watch ends, as the server ends them from time to time.
    pub fn hang_up(&self) {
        let _ = self.changes.send(None);
    }

    /// Every watch ends, and the next one is told that what it knows is too old.
    pub fn forget_history(&self) {
        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}});
        let version = self.world().next();
        self.world().history = vec![(version, "pods", gone)];
        self.hang_up();
    }
}

impl World {
    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn pod(&mut self, name: &str) -> Option<&mut Value> {
        self.pods.iter_mut().find(|pod| pod["metadata"]["name"] == name)
    }
}

type Shared = (Arc<Mutex<World>>, broadcast::Sender<Option<(u64, &'static str, Value)>>);

async fn answer(
    State((world, changes)): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let query = uri.query().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let instead = {
        let mut world = world.lock().unwrap();
        world.seen.push(Seen {
            method: method.clone(),
            path: path.clone(),
            query: query.clone(),
            headers,
            body: body.clone(),
        });
        let found = world.instead.iter().position(|(of, end, _)| *of == method && path.ends_with(end));
        found.map(|at| world.instead.remove(at).2)
    };
    match instead {
        Some(Instead::Answer(code, body)) => return reply(code, body),
        Some(Instead::Nothing) => std::future::pending::<()>().await,
        Some(Instead::TaintedFirst(taint)) => {
            let mut world = world.lock().unwrap();
            let version = world.next();
            world.node["metadata"]["resourceVersion"] = json!(version.to_string());
            world.node["spec"]["taints"].as_array_mut().unwrap().push(taint);
        }
        None => {}
    }
    if query.contains("watch=true") || query.contains("watch=1") {
        return watch(&world, &changes, if path.ends_with("/nodes") { "nodes" } else { "pods" }, &query);
    }
    let mut world = world.lock().unwrap();
    let parts: Vec<&str> = path.trim_start_matches("/api/v1/").split('/').collect();
    match (method, parts.as_slice()) {
        (Method::GET, ["nodes"]) => reply(200, list("NodeList", vec![world.node.clone()], world.version)),
        (Method::GET, ["pods"]) => reply(200, list("PodList", world.pods.clone(), world.version)),
        (Method::GET, ["nodes", name]) if world.node["metadata"]["name"] == *name => {
            reply(200, world.node.clone())
        }
        (Method::PATCH, ["nodes", _]) => patch_node(&mut world, &body),
        (Method::POST, ["namespaces", _, "events"]) => reply(201, body),
        (method, ["namespaces", _, "pods", name, rest @ ..]) => {
            let name = (*name).to_owned();
            let Some(pod) = world.pod(&name) else {
                return status(404, "NotFound", &format!("pods {name:?} not found"));
            };
            let uid = match rest {
                ["eviction"] => &body["deleteOptions"]["preconditions"]["uid"],
                ["status"] => &body["metadata"]["uid"],
                _ => &body["preconditions"]["uid"],
            };
            if !uid.is_null() && *uid != pod["metadata"]["uid"] {
                let message = "Operation cannot be fulfilled: the UID in the precondition (x) does not match the UID in record (y).";
                return status(409, "Conflict", message);
            }
            reply(if method == Method::POST { 201 } else { 200 }, pod.clone())
        }
        _ => status(404, "NotFound", "the server could not find the requested resource"),
    }
}

fn patch_node(world: &mut World, patch: &Value) -> Response {
    let wanted = &patch["metadata"]["resourceVersion"];
    if !wanted.is_null() && *wanted != world.node["metadata"]["resourceVersion"] {
        return status(
            409,
            "Conflict",
            "Operation cannot be fulfilled on nodes: the object has been modified; please apply your changes to the latest version and try again",
        );
    }
    let version = world.next();
    merge(&mut world.node, patch);
    world.node["metadata"]["resourceVersion"] = json!(version.to_string());
    reply(200, world.node.clone())
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(json!({})), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn watch(
    world: &Mutex<World>,
    changes: &broadcast::Sender<Option<(u64, &'static str, Value)>>,
    of: &'static str,
    query: &str,
) -> Response {
    let from =
        query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")?.parse().ok()).unwrap_or(0);
    let world = world.lock().unwrap();
    let receiver = changes.subscribe();
    let line = |change: &Value| format!("{change}\n");
    let missed: Vec<String> = world
        .history
        .iter()
        .filter(|(at, kind, _)| *at > from && *kind == of)
        .map(|(_, _, change)| line(change))
        .collect();
    let live = futures::stream::unfold(receiver, move |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(Some((_, kind, change))) if kind == of => return Some((format!("{change}\n"), receiver)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    });
    let lines = futures::stream::iter(missed).chain(live).map(Ok::<_, std::convert::Infallible>);
    Body::from_stream(lines).into_response()
}

fn list(kind: &str, items: Vec<Value>, version: u64) -> Value {
    json!({ "apiVersion": "v1", "kind": kind, "metadata": { "resourceVersion": version.to_string() }, "items": items })
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    reply(
        code,
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message }),
    )
}

fn reply(code: u16, body: Value) -> Response {
    let code = StatusCode::from_u16(code).unwrap();
    match body {
        Value::String(text) => (code, text).into_response(),
        body => (code, Json(body)).into_response(),
    }
}
