//! An engine that writes nothing and names in every flush what it is told to name: for whatever else lies in the state
//! volume. It says of each what a pod can know: its size, through links.

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// What it names, below its state volume.
#[derive(Debug)]
struct Names {
    state_dir: PathBuf,
    names: Vec<String>,
    weights: String,
}

impl Names {
    fn size(&self, name: &str) -> u64 {
        std::fs::metadata(self.state_dir.join(name)).map_or(0, |meta| meta.len())
    }

    fn files(&self) -> Vec<Value> {
        let file = |name: &String| json!({"path": name, "bytes": self.size(name)});
        self.names.iter().map(file).collect()
    }

    fn info(&self) -> Value {
        let bytes: u64 = self.names.iter().map(|name| self.size(name)).sum();
        json!({"protocol": 1, "engine": "testbed-names", "fingerprint": {}, "weights": {"digest": self.weights},
            "state_bytes": bytes.max(1), "busy": false})
    }
}

/// Contract v1 as far as a departure needs it.
pub(super) fn router(state_dir: PathBuf, names: Vec<String>, weights: String) -> Router {
    let info = Arc::new(Names { state_dir, names, weights });
    let flush = Arc::clone(&info);
    let nothing = || post(|| async { Json(json!({})) });
    Router::new()
        .route("/lifeboat/v1/info", get(move || async move { Json(info.info()) }))
        .route("/lifeboat/v1/quiesce", nothing())
        .route("/lifeboat/v1/resume", nothing())
        .route("/lifeboat/v1/restore", post(|| async { Json(json!({"state": "done", "bytes": 0})) }))
        .route(
            "/lifeboat/v1/flush",
            post(move || async move { Json(json!({"state": "done", "files": flush.files()})) }),
        )
}
