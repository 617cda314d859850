//! The sidecar's state: named bytes, made from a seed, and their way to the state volume and back.

use super::StateSeed;
use engines::contract::{Changes, FileEntry};
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What `touch` changes at a time.
const PAGE: usize = 4096;
/// What is written or read at a time where the rate is limited.
const STEP: usize = 256 * 1024;
/// The largest state that is read back, in bytes.
const RESTORE_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// One of our "tokens", in bytes: so that a restore has something to count.
pub(super) const TOKEN: u64 = 16;

/// Named bytes. Cloning shares them until one side changes them.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    files: BTreeMap<String, Arc<Vec<u8>>>,
    touches: u64,
}

impl State {
    pub(super) fn from_seed(seed: StateSeed) -> Self {
        let count = u64::from(seed.files.max(1));
        let files = (0..count).map(|index| {
            // The first files take what does not divide.
            let bytes = seed.bytes / count + u64::from(index < seed.bytes % count);
            let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
            stream(b"seed", seed.seed, index).fill(&mut content);
            (format!("state/part-{index:05}.bin"), Arc::new(content))
        });
        Self { files: files.collect(), touches: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|content| content.len() as u64).sum()
    }

    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (path, content) in &self.files {
            for part in [path.as_bytes(), content] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hasher.finalize().to_hex().as_str().to_owned()
    }

    pub(super) fn files(&self) -> BTreeMap<String, bytes::Bytes> {
        self.files.iter().map(|(path, content)| (path.clone(), content.as_ref().clone().into())).collect()
    }

    /// Writes new bytes over this fraction of the pages, evenly spread.
    pub(super) fn touch(&mut self, fraction: f64) -> u64 {
        let pages: usize = self.files.values().map(|content| content.len().div_ceil(PAGE)).sum();
        let wanted = ((pages as f64 * fraction.clamp(0.0, 1.0)).ceil() as usize).min(pages);
        self.touches += 1;
        let (mut at, mut done, mut changed) = (0, 0, 0);
        for content in self.files.values_mut() {
            for page in Arc::make_mut(content).chunks_mut(PAGE) {
                // Page k of the wanted ones is the first at or past k/wanted of the way.
                if done < wanted && at * wanted >= done * pages {
                    stream(b"touch", self.touches, at as u64).fill(page);
                    changed += page.len() as u64;
                    done += 1;
                }
                at += 1;
            }
        }
        changed
    }

    /// The same sizes with other bytes.
    pub(super) fn garbage(&self) -> Self {
        let mut garbage = self.clone();
        garbage.touches = u64::MAX / 2;
        garbage.touch(1.0);
        garbage
    }

    /// What a flush answers about these files.
    pub(super) fn entries(&self) -> Vec<FileEntry> {
        let entry = |(path, content): (&String, &Arc<Vec<u8>>)| FileEntry {
            path: path.clone(),
            bytes: content.len() as u64,
            blake3: Some(blake3::hash(content).to_hex().as_str().to_owned()),
            changes: Changes::InPlace,
        };
        self.files.iter().map(entry).collect()
    }

    /// Writes each file under a name of its own and renames it: whoever has the old one open keeps it whole.
    pub(super) async fn write(
        &self,
        dir: &Path,
        rate: Option<u64>,
        mut progress: impl FnMut(u64),
    ) -> io::Result<()> {
        let mut done = 0;
        for (path, content) in &self.files {
            let target = dir.join(path);
            if let Some(parent) = target.parent() {
                tokio::fs::create_dir_all(parent).await?;
            }
            let unfinished = target.with_extension("tmp");
            let mut file = tokio::fs::File::create(&unfinished).await?;
            for step in content.chunks(STEP) {
                file.write_all(step).await?;
                pace(step.len(), rate).await;
                done += step.len() as u64;
                progress(done);
            }
            file.flush().await?;
            tokio::fs::rename(&unfinished, &target).await?;
        }
        Ok(())
    }

    /// Reads these files.
    pub(super) async fn read(
        dir: &Path,
        paths: &[String],
        rate: Option<u64>,
        mut progress: impl FnMut(u64),
    ) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut left = RESTORE_MAX;
        for path in paths {
            if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the path {path:?} leads elsewhere"),
                ));
            }
            let mut file = tokio::fs::File::open(dir.join(path)).await?;
            let mut content = Vec::new();
            loop {
                let step = (&mut file).take(STEP as u64).read_to_end(&mut content).await?;
                if step == 0 {
                    break;
                }
                left = left
                    .checked_sub(step as u64)
                    .ok_or_else(|| io::Error::other("the files are too large"))?;
                pace(step, rate).await;
                progress(RESTORE_MAX - left);
            }
            files.insert(path.clone(), Arc::new(content));
        }
        Ok(Self { files, touches: 0 })
    }
}

async fn pace(bytes: usize, rate: Option<u64>) {
    if let Some(rate) = rate {
        tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)).await;
    }
}

/// Bytes that look random and are always the same for the same arguments.
fn stream(purpose: &[u8], number: u64, index: u64) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new();
    hasher.update(purpose);
    hasher.update(&number.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.finalize_xof()
}
