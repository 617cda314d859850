//! The real llama-server, where there is one, and a stand-in for what it cannot be made to do.

mod real;
mod scripted;

use super::*;
use crate::{EngineKind, Scheme, connect};
use checkpoint::folder::Folder;
use std::collections::BTreeMap;

/// The engine at `port` whose state volume is `dir`.
fn engine(dir: &std::path::Path, port: u16, life: &str) -> Arc<dyn Engine> {
    connect(EngineKind::LlamaServer, target(dir, port, life)).unwrap()
}

fn target(dir: &std::path::Path, port: u16, life: &str) -> EngineTarget {
    EngineTarget {
        ip: [127, 0, 0, 1].into(),
        port,
        scheme: Scheme::Http,
        token: None,
        folder: Arc::new(Folder::open(dir).unwrap()),
        flush_timeout: Span::from_secs(60),
        max_bytes: None,
        facts: BTreeMap::new(),
        compat_key: None,
        life: life.to_owned(),
        allow_loopback: true,
    }
}

fn within(ms: u64) -> Moment {
    clock::now() + Span::from_millis(ms)
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
