//! Contract v1, answered.

use super::operation::Operations;
use super::state::{State, TOKEN};
use super::{Behaviour, Call, SidecarOptions, now};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use engines::contract::{
    Accepted, DoneAnswer, FlushRequest, FlushRound, Info, Operation, PREFIX, PROTOCOL, Refusal,
    RestoreRequest, Restored, Weights,
};
use parking_lot::{Mutex, MutexGuard};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A larger request is no request of the contract.
const BODY_MAX: usize = 1024 * 1024;
/// A flush of more is an operation that is polled.
const AT_ONCE_MAX: u64 = 1024 * 1024;
/// What the sidecar says of a whole state, for the restore.
const DIGEST: &str = "digest";

/// What the requests share.
#[derive(Debug)]
pub(super) struct SidecarState {
    pub(super) state: Mutex<State>,
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) calls: Mutex<Vec<Call>>,
    status: Mutex<Status>,
    operations: Mutex<Operations>,
    /// Ends what hangs.
    pub(super) stopping: CancellationToken,
    state_dir: PathBuf,
    token: Option<String>,
    facts: BTreeMap<String, String>,
    rate: Option<u64>,
}

/// What `info` shows of the moment.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) busy: bool,
    pub(super) quiesced: bool,
    restored: Option<Restored>,
}

/// Any answer that is not a success.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(Refusal { error: self.1 })).into_response()
    }
}

type Answered = Result<Response, Refused>;

impl SidecarState {
    pub(super) fn new(options: SidecarOptions, stopping: CancellationToken) -> Self {
        Self {
            state: Mutex::new(options.state.map(State::from_seed).unwrap_or_default()),
            behaviour: Mutex::default(),
            calls: Mutex::default(),
            status: Mutex::default(),
            operations: Mutex::default(),
            stopping,
            state_dir: options.state_dir,
            token: options.token,
            facts: options.facts,
            rate: options.bytes_per_second,
        }
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock()
    }

    /// Forgets everything that a process keeps in memory.
    pub(super) fn restart(&self) {
        *self.state.lock() = State::default();
        *self.status() = Status::default();
        *self.operations.lock() = Operations::default();
    }

    fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock()
    }

    fn info(&self) -> Info {
        let mut fingerprint = self.facts.clone();
        let engine = fingerprint.remove("engine").unwrap_or_else(|| "lifeboat-sidecar".to_owned());
        let engine_version = fingerprint.remove("engine_version");
        let digest = fingerprint.remove("weights");
        let status = self.status();
        Info {
            protocol: PROTOCOL,
            engine,
            engine_version,
            fingerprint,
            weights: digest.map(|digest| Weights { digest: Some(digest), probe: None }),
            state_bytes: self.state.lock().bytes(),
            busy: status.busy,
            quiesced: status.quiesced,
            restored: status.restored.clone(),
        }
    }
}

/// Every path, so that every request is recorded.
pub(super) fn router(shared: Arc<SidecarState>) -> Router {
    Router::new().fallback(move |method: Method, uri: Uri, headers: http::HeaderMap, body: Body| {
        let shared = Arc::clone(&shared);
        async move { answer(shared, method, uri, headers, body).await }
    })
}

async fn answer(
    shared: Arc<SidecarState>,
    method: Method,
    uri: Uri,
    headers: http::HeaderMap,
    body: Body,
) -> Response {
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request is larger than 1 MiB").into_response();
    };
    shared.calls.lock().push(Call {
        at: now(),
        method: method.to_string(),
        path: uri.to_string(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    });
    match shared.behaviour() {
        Behaviour::Hang => {
            shared.stopping.cancelled().await;
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "it is stopping").into_response();
        }
        Behaviour::Html => {
            let page = "<!doctype html><html><body><h1>It works!</h1></body></html>";
            return ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
        }
        Behaviour::Normal | Behaviour::Lies | Behaviour::WritesGarbage | Behaviour::Restarted => {}
    }
    if let Some(token) = &shared.token {
        let given = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
        // Compared by their hashes, which blake3 does in constant time.
        if blake3::hash(given) != blake3::hash(format!("Bearer {token}").as_bytes()) {
            return refuse(StatusCode::UNAUTHORIZED, "give the bearer token").into_response();
        }
    }
    route(&shared, &method, uri.path(), &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn route(shared: &Arc<SidecarState>, method: &Method, path: &str, body: &Bytes) -> Answered {
    let unknown = || refuse(StatusCode::NOT_FOUND, "contract v1 has no such path");
    let verb = path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/')).ok_or_else(unknown)?;
    match (method.as_str(), verb) {
        ("GET", "info") => Ok(Json(shared.info()).into_response()),
        ("POST", "quiesce" | "resume") => {
            parse::<engines::contract::Bounded>(body)?;
            shared.status().quiesced = verb == "quiesce";
            Ok(Json(Map::new()).into_response())
        }
        ("POST", "flush") => flush(shared, parse(body)?).await,
        ("POST", "restore") => {
            let (shared, request) = (Arc::clone(shared), parse(body)?);
            // A task of its own: whoever asked may go away in the middle, and asks again for the same operation.
            let work = tokio::spawn(async move { restore(&shared, request).await });
            work.await
                .unwrap_or_else(|_| Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "the restore broke off")))
        }
        ("GET", _) => {
            let id = verb.strip_prefix("operations/").ok_or_else(unknown)?;
            let operations = shared.operations.lock();
            let operation = operations
                .get(id)
                .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "no such operation: send it again"))?;
            Ok(Json(operation).into_response())
        }
        _ => Err(unknown()),
    }
}

async fn flush(shared: &Arc<SidecarState>, request: FlushRequest) -> Answered {
    let id = operation_id("flush", &request.checkpoint_id);
    if !shared.operations.lock().begin(&id) {
        return Ok(standing(shared, &id));
    }
    if request.round == FlushRound::Final {
        // The generation that runs is cut here; what it has made so far is part of the state.
        shared.status().busy = false;
    }
    let state = shared.state.lock().clone();
    let bytes = state.bytes();
    if let Some(most) = request.max_bytes.filter(|most| bytes > *most) {
        let error = format!("the state is {bytes} bytes, at most {most} are allowed");
        shared.operations.lock().set(&id, Operation::Failed { error: error.clone() });
        return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, &error));
    }
    let work = {
        let (shared, id) = (Arc::clone(shared), id.clone());
        async move {
            let ended = match write(&shared, &state, &id).await {
                Ok(()) => Operation::Done(Box::new(DoneAnswer {
                    files: state.entries(),
                    facts: Map::from_iter([(DIGEST.to_owned(), state.digest().into())]),
                    ..DoneAnswer::default()
                })),
                Err(error) => {
                    Operation::Failed { error: format!("cannot write to the state volume: {error}") }
                }
            };
            shared.operations.lock().set(&id, ended);
        }
    };
    Ok(at_once_or_later(shared, &id, bytes, work).await)
}

async fn write(shared: &Arc<SidecarState>, state: &State, id: &str) -> std::io::Result<()> {
    let progress = |bytes_done| {
        let bytes_total = Some(state.bytes());
        shared.operations.lock().set(id, Operation::Running { bytes_done, bytes_total });
    };
    match shared.behaviour() {
        Behaviour::Lies => Ok(()),
        Behaviour::WritesGarbage => state.garbage().write(&shared.state_dir, shared.rate, progress).await,
        _ => state.write(&shared.state_dir, shared.rate, progress).await,
    }
}

async fn restore(shared: &Arc<SidecarState>, request: RestoreRequest) -> Answered {
    let id = operation_id("restore", &request.checkpoint_id);
    if !shared.operations.lock().begin(&id) {
        return Ok(standing(shared, &id));
    }
    let progress = |bytes_done| {
        shared.operations.lock().set(&id, Operation::Running { bytes_done, bytes_total: None });
    };
    let read = State::read(&shared.state_dir, &request.files, shared.rate, progress).await;
    let fail = |status, error: String| {
        shared.operations.lock().set(&id, Operation::Failed { error: error.clone() });
        refuse(status, &error)
    };
    let state =
        read.map_err(|error| fail(StatusCode::CONFLICT, format!("cannot read the state volume: {error}")))?;
    if request.facts.get(DIGEST).and_then(Value::as_str) != Some(state.digest().as_str()) {
        let error = "what is in the state volume is not what was flushed: the digests differ";
        return Err(fail(StatusCode::CONFLICT, error.to_owned()));
    }
    let (bytes, tokens) = (state.bytes(), Some(state.bytes() / TOKEN));
    *shared.state.lock() = state;
    shared.status().restored = Some(Restored { checkpoint_id: request.checkpoint_id, bytes, tokens });
    let done = DoneAnswer { bytes: Some(bytes), tokens, ..DoneAnswer::default() };
    shared.operations.lock().set(&id, Operation::Done(Box::new(done)));
    Ok(standing(shared, &id))
}

/// Small work is done before the answer; for large work the answer is where to ask.
async fn at_once_or_later(
    shared: &Arc<SidecarState>,
    id: &str,
    bytes: u64,
    work: impl Future<Output = ()> + Send + 'static,
) -> Response {
    if bytes <= AT_ONCE_MAX && shared.rate.is_none() {
        work.await;
    } else {
        tokio::spawn(work);
    }
    standing(shared, id)
}

/// How an operation stands, as the answer to the request that began it.
fn standing(shared: &Arc<SidecarState>, id: &str) -> Response {
    match shared.operations.lock().get(id) {
        Some(ended @ Operation::Done(_)) => Json(ended).into_response(),
        Some(Operation::Failed { error }) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
        Some(Operation::Running { .. }) | None => {
            (StatusCode::ACCEPTED, Json(Accepted { operation: id.to_owned() })).into_response()
        }
    }
}

/// The same for the same checkpoint; any text becomes a plain id.
fn operation_id(verb: &str, checkpoint_id: &str) -> String {
    format!("{verb}-{}", &blake3::hash(checkpoint_id.as_bytes()).to_hex()[..16])
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &format!("not such a request: {error}")))
}

fn refuse(status: StatusCode, error: &str) -> Refused {
    Refused(status, error.to_owned())
}
