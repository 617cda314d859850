//! The files of a flush, opened at once, so that their bytes survive the volume.

use super::failure::EffectFailure;
use checkpoint::folder::Folder;
use checkpoint::save::SourceFile;
use engines::{Flushed, FlushedFile};
use evacuation::event::FailureKind;
use std::os::unix::fs::PermissionsExt;

/// Opens them. In a directory of files each one stands for itself: a cache drops its oldest while we look, and what is gone
/// is left out and named. What another engine has written belongs together, as its facts name every file.
pub(super) fn open(
    folder: &Folder,
    flushed: &mut Flushed,
    each_for_itself: bool,
) -> Result<Vec<SourceFile>, EffectFailure> {
    let mut files = Vec::with_capacity(flushed.files.len());
    let mut first = None;
    for flushed_file in &flushed.files {
        match source_file(folder, flushed_file) {
            Ok(file) => files.push(file),
            Err(error) if each_for_itself => {
                flushed.bytes = flushed.bytes.saturating_sub(flushed_file.bytes);
                flushed.missing.push(format!("{}: {}", flushed_file.path, error.why));
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match first {
        // Nothing of it is there any more: the next look finds what is.
        Some(error) if files.is_empty() => Err(EffectFailure::new(FailureKind::Transient, error.why)),
        _ => Ok(files),
    }
}

fn source_file(folder: &Folder, flushed: &FlushedFile) -> Result<SourceFile, EffectFailure> {
    let file = folder.read(&flushed.path)?;
    let metadata = file.metadata();
    let metadata = metadata.map_err(|e| EffectFailure::new(FailureKind::Transient, e.to_string()))?;
    Ok(SourceFile {
        path: flushed.path.clone(),
        mode: metadata.permissions().mode() & 0o777,
        size: metadata.len(),
        file,
        chunking: flushed.chunking,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoint::chunk::Chunking;

    /// A flush of these files, four bytes each, of which the first is gone when it is opened.
    fn flushed(volume: &tempfile::TempDir, names: &[&str]) -> Flushed {
        let file = |name: &&str| {
            std::fs::write(volume.path().join(name), "four").unwrap();
            FlushedFile { path: (*name).to_owned(), bytes: 4, chunking: Chunking::Immutable }
        };
        let files: Vec<FlushedFile> = names.iter().map(file).collect();
        std::fs::remove_file(volume.path().join(names[0])).unwrap();
        Flushed { bytes: 4 * names.len() as u64, files, facts: Default::default(), missing: Vec::new() }
    }

    #[test]
    fn a_file_that_is_gone_when_it_is_opened_costs_no_other() {
        let volume = tempfile::tempdir().unwrap();
        let folder = Folder::open(volume.path()).unwrap();
        let mut all = flushed(&volume, &["oldest", "older", "newest"]);
        let opened = open(&folder, &mut all, true).unwrap();
        let names: Vec<&str> = opened.iter().map(|file| file.path.as_str()).collect();
        assert_eq!((names, all.bytes), (vec!["older", "newest"], 8));
        assert!(all.is_partial() && all.missing[0].starts_with("oldest: "), "{:?}", all.missing);
        // Nothing is left of it: that is no empty state.
        let failure = open(&folder, &mut flushed(&volume, &["only"]), true).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Transient);
        // What an engine has written as one is one.
        assert!(open(&folder, &mut flushed(&volume, &["slot-0", "slot-1"]), false).is_err());
    }
}
