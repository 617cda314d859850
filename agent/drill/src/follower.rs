//! Follows an agent's journal while it is written.

use super::chronicle::Chronicle;
use super::recording::{Recording, Tail};
use super::story;
use evacuation::effect::Action;
use evacuation::moment::Moment;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use trace::lives;
use trace::timeline::Teller;

/// Follows one journal: tells it, keeps it, and knows which effects were begun.
#[derive(Debug)]
pub struct Follower {
    kept: Arc<Mutex<Recording>>,
    task: tokio::task::JoinHandle<()>,
}

impl Follower {
    /// Begins to follow; `zero` is when the notice appears.
    pub fn start(
        node: &'static str,
        path: PathBuf,
        chronicle: Arc<Chronicle>,
        zero: Arc<OnceLock<Moment>>,
    ) -> Self {
        let kept = Arc::new(Mutex::new(Recording::default()));
        let written = Arc::clone(&kept);
        let task = tokio::spawn(async move {
            let mut tail = Tail::new(&path);
            let mut teller = Teller::default();
            loop {
                for line in tail.read() {
                    // There is nothing else to count from before the notice.
                    let zero = zero.get().copied().unwrap_or(line.at);
                    for told in teller.tell(&line, zero).iter().filter(|told| !told.open) {
                        chronicle.pass_on(&story::news(node, told, line.at, zero));
                    }
                    if let Err(orphan) = lives::add(&mut written.lock().lives, line) {
                        chronicle.warn(node, format!("its journal has {orphan}"));
                    }
                }
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        });
        Self { kept, task }
    }

    /// What was read so far.
    pub fn recording(&self) -> Recording {
        self.kept.lock().clone()
    }

    /// An effect like this was begun.
    pub fn has_begun(&self, is: impl Fn(&Action) -> bool) -> bool {
        self.kept.lock().steps().flat_map(|step| &step.effects).any(|effect| is(&effect.action))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}
