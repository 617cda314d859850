//! The file of the journal, and what waits for its disk.
//!
//! A disk that is full, read-only or not there takes lines later: they wait in memory, up to [`WAITING_MAX`], and the disk is
//! tried again every [`RETRY_AFTER`]. Every call may take as long as the disk does.

use evacuation::moment::{Moment, Span};
use host::clock;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use trace::journal::{Line, NAME, OLD_NAME, What};

/// A journal that grows beyond this is set aside, bytes.
pub(super) const ROTATE_AT: u64 = 64 << 20;

/// The most that waits in memory for a disk that takes nothing, bytes.
pub(super) const WAITING_MAX: usize = 8 << 20;

/// Between two attempts at a disk that took nothing.
pub(super) const RETRY_AFTER: Span = Span::from_secs(5);

/// The file of the journal of this life, whatever becomes of its disk.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    /// `None` until it could be opened.
    pub(super) file: Option<File>,
    /// What the disk has not taken yet: whole lines, of which the first may stand in the file in part.
    pub(super) waiting: Vec<u8>,
    /// When a disk that failed is tried again.
    pub(super) retry_at: Option<Moment>,
    /// A line was lost. What comes after it belongs to no life that could be replayed.
    ended: bool,
    lost: u64,
    pub(super) written: u64,
    pub(super) rotate_at: u64,
}

impl JournalFile {
    /// Opens `<folder>/journal.jsonl` for appending, and makes the folder if need be; now or, where the disk does not let
    /// it, later.
    pub fn open(folder: &Path) -> Self {
        let mut journal = Self {
            path: folder.join(NAME),
            file: None,
            waiting: Vec::new(),
            retry_at: None,
            ended: false,
            lost: 0,
            written: 0,
            rotate_at: ROTATE_AT,
        };
        journal.flush(clock::now());
        journal
    }

    /// Appends one line.
    pub fn write(&mut self, at: Moment, what: What) {
        if let Some(line) = line(at, what) {
            self.append(at, &line);
        }
    }

    /// Appends one line, with its end.
    pub(super) fn append(&mut self, at: Moment, line: &[u8]) {
        self.set_aside();
        self.keep(line);
        self.retry(at);
    }

    /// Writes what waits for the disk, unless the disk has just failed.
    pub fn retry(&mut self, now: Moment) {
        if self.retry_at.is_none_or(|retry_at| now >= retry_at) {
            self.flush(now);
        }
    }

    /// Every line of this life is in the file.
    pub const fn is_written(&self) -> bool {
        self.retry_at.is_none() && !self.ended
    }

    /// How many lines of this life are in no file, and will be in none.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Once a line is lost all that follow are: the beginning of a life can be replayed, a life with a hole cannot.
    fn keep(&mut self, line: &[u8]) {
        let full = !self.waiting.is_empty() && self.waiting.len() + line.len() > WAITING_MAX;
        if full && !self.ended {
            tracing::error!(
                path = %self.path.display(),
                "the journal of this life ends here: its disk took nothing for too long. What waits is written when \
                 there is room in --state-dir; a restart begins a new life"
            );
        }
        self.ended |= full;
        if self.ended {
            self.lost += 1;
        } else {
            self.waiting.extend_from_slice(line);
        }
    }

    fn flush(&mut self, now: Moment) {
        match self.try_flush() {
            Ok(()) if self.retry_at.take().is_some() => {
                tracing::info!(path = %self.path.display(), "the journal is written again");
            }
            Ok(()) => {}
            Err(error) => {
                if self.retry_at.replace(now + RETRY_AFTER).is_none() {
                    tracing::error!(
                        %error,
                        path = %self.path.display(),
                        "the journal cannot be written: make room in --state-dir, or give it a folder that the agent may \
                         write; everything else goes on, and it is tried again every {RETRY_AFTER}"
                    );
                }
            }
        }
    }

    /// Byte by byte: a line of which the disk took a part goes on where that ended.
    fn try_flush(&mut self) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open_file()?,
        };
        let written = write_waiting(&mut file, &mut self.waiting, &mut self.written);
        self.file = Some(file);
        written
    }

    fn open_file(&mut self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let (file, written) = append(&self.path)?;
        self.written = written;
        Ok(file)
    }

    /// Sets a journal aside that has grown too long; the next line begins another file. Never within a line.
    fn set_aside(&mut self) {
        if self.written <= self.rotate_at || !self.waiting.is_empty() {
            return;
        }
        match std::fs::rename(&self.path, self.path.with_file_name(OLD_NAME)) {
            Ok(()) => self.file = None,
            // Somebody took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file = None,
            Err(_) => {}
        }
    }
}

/// One line, with its end.
pub(super) fn line(at: Moment, what: What) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line { at, what }).ok()?;
    line.push(b'\n');
    Some(line)
}

fn write_waiting(file: &mut File, waiting: &mut Vec<u8>, written: &mut u64) -> io::Result<()> {
    let mut taken = 0;
    let outcome = loop {
        if taken == waiting.len() {
            break Ok(());
        }
        match file.write(&waiting[taken..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => taken += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    waiting.drain(..taken);
    *written += taken as u64;
    outcome
}

fn append(path: &Path) -> std::io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let written = file.metadata()?.len();
    // The line on which an agent was killed must not swallow the one with which the next life begins.
    let mut last = [b'\n'];
    if written > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok((file, written))
}
