//! The control port: what the engine was asked, and what it is told to do next.
//!
//! | request | effect |
//! |---|---|
//! | `GET /healthz` | 200 as soon as its state is there: a probe that is no call of the contract |
//! | `GET /counters` | all that is known of it; `?digest=false` without hashing a large state |
//! | `POST /behaviour/NAME` | `normal`, `hang`, `lies`, `garbage`, `html`, `restarted` |
//! | `POST /touch/FRACTION` | changes this part of its state, as serving does |
//! | `POST /generating/on`, `/off` | begins or ends a generation |
//! | `POST /exit/CODE` | answers and ends the process |

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post};
use evacuation::moment::Moment;
use fakes::sidecar::{Behaviour, Call, Sidecar};
use host::clock;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Enough for the answer to leave before the process does.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// When the process started, for whoever reads it beside other processes' times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    boot: Moment,
    unix_ms: i64,
}

impl Started {
    pub(crate) fn now() -> Self {
        let boot = clock::now();
        Self { boot, unix_ms: clock::unix_millis(boot) }
    }
}

#[derive(Clone, Debug)]
struct Engine {
    sidecar: Arc<Sidecar>,
    started: Started,
}

type Answer = Result<Json<Value>, (StatusCode, String)>;

/// The routes of the control port.
pub(crate) fn router(sidecar: Arc<Sidecar>, started: Started) -> axum::Router {
    axum::Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/counters", get(counters))
        .route("/behaviour/{name}", post(behaviour))
        .route("/touch/{fraction}", post(touch))
        .route("/generating/{state}", post(generating))
        .route("/exit/{code}", post(exit))
        .with_state(Engine { sidecar, started })
}

#[derive(Debug, Deserialize)]
struct Asked {
    /// False leaves the digest out.
    #[serde(default = "yes")]
    digest: bool,
}

fn yes() -> bool {
    true
}

async fn counters(State(engine): State<Engine>, Query(asked): Query<Asked>) -> Answer {
    // Apart from the requests: hashing a large state takes its time.
    let read = tokio::task::spawn_blocking(move || {
        let Engine { sidecar, started } = engine;
        let call = |call: Call| {
            json!({
                "method": call.method,
                "path": call.path,
                "ms": call.at.as_millis().saturating_sub(started.boot.as_millis()),
                "body": call.body,
            })
        };
        json!({
            "digest": asked.digest.then(|| sidecar.state_digest()),
            "bytes": sidecar.state_bytes(),
            "calls": sidecar.calls().into_iter().map(call).collect::<Vec<_>>(),
            "quiesced": sidecar.is_quiesced(),
            "busy": sidecar.is_busy(),
            "started": started.unix_ms,
        })
    });
    read.await.map(Json).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn behaviour(State(engine): State<Engine>, Path(name): Path<String>) -> Answer {
    let behaviour = match name.as_str() {
        "normal" => Behaviour::Normal,
        "hang" => Behaviour::Hang,
        "lies" => Behaviour::Lies,
        "garbage" => Behaviour::WritesGarbage,
        "html" => Behaviour::Html,
        "restarted" => Behaviour::Restarted,
        _ => return Err(wrong("a behaviour is normal, hang, lies, garbage, html or restarted")),
    };
    engine.sidecar.set_behaviour(behaviour);
    Ok(Json(json!({"behaviour": name})))
}

async fn touch(State(engine): State<Engine>, Path(fraction): Path<String>) -> Answer {
    let part = fraction.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    let part = part.ok_or_else(|| wrong("a fraction is a number from 0 to 1"))?;
    Ok(Json(json!({"changed": engine.sidecar.touch(part)})))
}

async fn generating(State(engine): State<Engine>, Path(state): Path<String>) -> Answer {
    let on = match state.as_str() {
        "on" => true,
        "off" => false,
        _ => return Err(wrong("generating is on or off")),
    };
    engine.sidecar.generating(on);
    Ok(Json(json!({"busy": on})))
}

async fn exit(Path(code): Path<String>) -> Answer {
    let code: u8 = code.parse().map_err(|_| wrong("an exit code is a number from 0 to 255"))?;
    tokio::spawn(async move {
        tokio::time::sleep(LAST_WORDS).await;
        std::process::exit(code.into());
    });
    Ok(Json(json!({"exit": code})))
}

fn wrong(what: &str) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, format!("{what}\n"))
}
