//! The journal on the node's own disk: written line by line, and read back ([`trace::journal`] has its form).
//!
//! A journal is a convenience: a disk that is full, read-only, not there or hangs ends neither the start nor an evacuation.
//! The event loop hands each line to a thread that alone touches the disk ([`file`]), and waits for nothing. A line is
//! handed over before the effects it leads to begin, and is the kernel's a moment later; it is not synced to the disk. So a
//! killed agent may owe its last lines, and a disk that hangs may owe what waits for it, up to [`WAITING_MAX`].
//!
//! A journal that grows too long is set aside (`journal.jsonl.old`, in place of the one before) and goes on in the middle of
//! a life: both files together are read as one. Of a life that is longer than both, the beginning is gone, and
//! [`trace::lives`] says so.

mod earlier;
mod file;

pub use earlier::EarlierReports;
pub use file::JournalFile;

use evacuation::moment::{Moment, Span};
use file::WAITING_MAX;
use host::clock;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use trace::journal::{NAME, OLD_NAME, What};
use trace::lives::{self, Life, ReadError};

/// A disk that takes longer for one line hangs.
const HANGS_AFTER: Span = Span::from_secs(2);

/// How often the writer looks whether a disk that failed is to be tried again.
const LOOK_EVERY: Span = Span::from_secs(1);

/// How long the end of the agent waits for its last lines.
const LAST_LINES: Span = Span::from_secs(1);

/// The journal of this life, as the event loop sees it. No call waits for the disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` once the agent ends.
    lines: Option<Sender<(Moment, Vec<u8>)>>,
    progress: Arc<WriterProgress>,
    /// Closed when the writer has ended.
    ended: Receiver<()>,
    /// Lines that found no room on their way to the writer. What comes after them belongs to no life that could be replayed.
    lost: u64,
    /// It was said that the disk hangs.
    hangs: bool,
}

/// How far the writer is.
#[derive(Debug, Default)]
struct WriterProgress {
    /// Bytes that were handed over, and that it has not tried to write.
    queued: AtomicUsize,
    /// Since when the disk has been asked for something, in ms of the boot clock; 0 while it is not.
    asked_since: AtomicU64,
    /// The disk took all that it was asked to take.
    written: AtomicBool,
    /// Lines for which there was no room beside those that wait for a disk that fails.
    lost: AtomicU64,
}

impl WriterProgress {
    /// The disk is asked for something.
    fn asks<T>(&self, work: impl FnOnce() -> T) -> T {
        self.asked_since.store(clock::now().as_millis().max(1), Ordering::Relaxed);
        let done = work();
        self.asked_since.store(0, Ordering::Relaxed);
        done
    }

    fn tell(&self, file: &JournalFile) {
        self.written.store(file.is_written(), Ordering::Relaxed);
        self.lost.store(file.lost(), Ordering::Relaxed);
    }

    fn hangs(&self, now: Moment) -> bool {
        let since = self.asked_since.load(Ordering::Relaxed);
        since > 0 && now.since(Moment::from_millis(since)) >= HANGS_AFTER
    }
}

impl Journal {
    /// The journal `<folder>/journal.jsonl`. Its thread does `before`, makes the folder if need be, and opens the file; now
    /// or, where the disk does not let it, later.
    pub fn open(folder: &Path, before: impl FnOnce() + Send + 'static) -> Self {
        let (lines, queue) = mpsc::channel();
        let (open, ended) = mpsc::channel();
        let progress = Arc::new(WriterProgress::default());
        let writes = {
            let (folder, progress) = (folder.to_owned(), Arc::clone(&progress));
            move || {
                write_lines(&folder, before, &queue, &progress);
                drop::<Sender<()>>(open);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("journal".to_owned()).spawn(writes) {
            tracing::error!(%error, "no thread to write the journal with: nothing of this life is in it");
        }
        Self { path: folder.join(NAME), lines: Some(lines), progress, ended, lost: 0, hangs: false }
    }

    /// Appends one line.
    pub fn write(&mut self, at: Moment, what: What) {
        let Some(line) = file::line(at, what) else { return };
        let queued = self.progress.queued.load(Ordering::Relaxed);
        let full = queued > 0 && queued + line.len() > WAITING_MAX;
        if full && self.lost == 0 {
            tracing::error!(
                path = %self.path.display(),
                "the journal of this life ends here: its disk hangs, and what waits for it is all that is kept; an \
                 evacuation goes on. A restart begins a new life"
            );
        }
        if full || self.lost > 0 {
            self.lost += 1;
            return;
        }
        self.progress.queued.fetch_add(line.len(), Ordering::Relaxed);
        if self.lines.as_ref().is_none_or(|lines| lines.send((at, line)).is_err()) {
            self.lost += 1;
        }
    }

    /// Says once that the disk hangs, and once that it does no more.
    pub fn look(&mut self, now: Moment) {
        let hangs = self.progress.hangs(now);
        if hangs && !self.hangs {
            tracing::error!(
                path = %self.path.display(),
                "the disk of the journal hangs: look at the disk under --state-dir. Up to {} MiB of lines wait for it, and \
                 everything else goes on",
                WAITING_MAX >> 20
            );
        } else if self.hangs && !hangs {
            tracing::info!(path = %self.path.display(), "the disk of the journal answers again");
        }
        self.hangs = hangs;
    }

    /// Every line of this life is in the file, but for those of the last moment.
    pub fn is_written(&self) -> bool {
        !self.hangs && self.lost == 0 && self.progress.written.load(Ordering::Relaxed)
    }

    /// How many lines of this life are in no file, and will be in none.
    pub fn lost(&self) -> u64 {
        self.lost + self.progress.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Journal {
    /// The last lines are written, if the disk takes them.
    fn drop(&mut self) {
        self.lines = None;
        // It is closed, or the disk takes too long.
        let _ = self.ended.recv_timeout(clock::duration(LAST_LINES));
    }
}

/// The writer's thread: the only one that touches the disk.
fn write_lines(
    folder: &Path,
    before: impl FnOnce(),
    queue: &Receiver<(Moment, Vec<u8>)>,
    progress: &WriterProgress,
) {
    let mut file = progress.asks(|| {
        before();
        JournalFile::open(folder)
    });
    loop {
        progress.tell(&file);
        match queue.recv_timeout(clock::duration(LOOK_EVERY)) {
            Ok((at, line)) => {
                progress.asks(|| file.append(at, &line));
                progress.queued.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => progress.asks(|| file.retry(clock::now())),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The files of a journal, oldest first: the one that is given, or those in a state folder.
///
/// # Errors
/// [`ReadError::Unreadable`], [`ReadError::Nothing`].
pub fn files(path: &Path) -> Result<Vec<(PathBuf, File)>, ReadError> {
    let unreadable = |path: &Path, source| ReadError::Unreadable { path: path.to_owned(), source };
    let mut files = vec![path.to_owned()];
    if std::fs::metadata(path).map_err(|error| unreadable(path, error))?.is_dir() {
        files =
            [OLD_NAME, NAME].map(|name| path.join(name)).into_iter().filter(|file| file.exists()).collect();
        if files.is_empty() {
            return Err(ReadError::Nothing { path: path.to_owned() });
        }
    }
    let open = |file: PathBuf| match File::open(&file) {
        Ok(opened) => Ok((file, opened)),
        Err(error) => Err(unreadable(&file, error)),
    };
    files.into_iter().map(open).collect()
}

/// Reads a journal: a file, or a state folder with the file that was set aside before it.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path) -> Result<Vec<Life>, ReadError> {
    let mut reader = lives::Reader::default();
    for (file, opened) in files(path)? {
        for (number, line) in (1u64..).zip(BufReader::new(opened).split(b'\n')) {
            let line = line.map_err(|source| ReadError::Unreadable { path: file.clone(), source })?;
            reader.line(&line, &file, number)?;
        }
    }
    let lives = reader.end();
    if lives.is_empty() { Err(ReadError::Empty { path: path.to_owned() }) } else { Ok(lives) }
}

#[cfg(test)]
mod tests;
