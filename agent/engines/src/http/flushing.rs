//! A flush by contract v1, and the check that it really happened.

use super::{HttpEngine, Ours};
use crate::contract::{Changes, DoneAnswer, FlushRequest, FlushRound};
use crate::{EngineError, Flushed, FlushedFile};
use checkpoint::chunk::Chunking;
use evacuation::effect::FlushKind;
use evacuation::moment::Moment;
use host::clock;
use std::collections::BTreeSet;

/// The most files of one flush, and the most lines about what is missing.
const FILES_MAX: usize = 16 * 1024;
const MISSING_MAX: usize = 64;

pub(super) async fn flush(
    engine: &HttpEngine,
    kind: FlushKind,
    checkpoint_id: &str,
    deadline: Moment,
) -> Result<Flushed, EngineError> {
    let max_bytes = engine.target.max_bytes;
    let (round, deadline) = match kind {
        FlushKind::PreCopy => (FlushRound::Precopy, deadline),
        FlushKind::Final => (FlushRound::Final, deadline.min(clock::now() + engine.target.flush_timeout)),
    };
    let done = engine
        .carry_out("flush", deadline, |time_left_ms| FlushRequest {
            checkpoint_id: checkpoint_id.to_owned(),
            round,
            time_left_ms,
            max_bytes,
        })
        .await;
    let done = match done {
        // A flush does not compare anything: 409 means that another one is still writing.
        Err(EngineError::Mismatch { at, why }) => return Err(EngineError::Throttled { at, why }),
        done => done?,
    };
    let at = format!("{}{}/flush", engine.client.base(), crate::contract::PREFIX);
    checked(engine, done, checkpoint_id, at).await
}

/// An engine that lies is an error that names the file, not a checkpoint with a hole.
async fn checked(
    engine: &HttpEngine,
    done: DoneAnswer,
    checkpoint_id: &str,
    at: String,
) -> Result<Flushed, EngineError> {
    let broken = |why| EngineError::BrokenPromise { at: at.clone(), why };
    if done.files.len() > FILES_MAX {
        return Err(EngineError::TooLarge {
            at,
            why: format!("{} files, at most {FILES_MAX}", done.files.len()),
        });
    }
    let mut seen = BTreeSet::new();
    let mut bytes = 0_u64;
    let mut files = Vec::with_capacity(done.files.len());
    for file in done.files {
        let name = crate::client::printable(&file.path);
        if !seen.insert(file.path.clone()) {
            return Err(broken(format!("it names {name} twice")));
        }
        let size = host::small_file::size_of(&engine.target.folder, &file.path)
            .await
            .map_err(|why| broken(format!("it says that it wrote {name}, but {why}")))?;
        if size != file.bytes {
            return Err(broken(format!(
                "it says that it wrote {} bytes to {name}, but there are {size}",
                file.bytes
            )));
        }
        bytes = bytes.saturating_add(size);
        let chunking = match file.changes {
            Changes::InPlace => Chunking::Fixed,
            Changes::Shifting => Chunking::ContentDefined,
            Changes::AppendOnly => Chunking::AppendOnly,
            Changes::Never => Chunking::Immutable,
        };
        files.push(FlushedFile { path: file.path, bytes: size, chunking });
    }
    if let Some(most) = engine.target.max_bytes.filter(|most| bytes > *most) {
        return Err(EngineError::TooLarge {
            at,
            why: format!("it wrote {bytes} bytes, at most {most} are allowed"),
        });
    }
    let facts = Ours { checkpoint_id: checkpoint_id.to_owned(), bytes, engine: done.facts }.write();
    let missing = done.missing.iter().take(MISSING_MAX).map(|line| crate::client::printable(line)).collect();
    Ok(Flushed { files, bytes, facts, missing })
}
