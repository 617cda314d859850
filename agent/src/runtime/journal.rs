//! The journal on the node's own disk: written line by line, and read back ([`trace::journal`] has its form).
//!
//! Each line is handed to the kernel before the effects it leads to begin, so that a killed agent has told what it was
//! doing. It is not synced to the disk: it survives the agent, and the report survives the node.
//!
//! A journal that grows too long is set aside (`journal.jsonl.old`, in place of the one before) and goes on in the middle of
//! a life: both files together are read as one. Of a life that is longer than both, the beginning is gone, and
//! [`trace::lives`] says so.

use evacuation::Machine;
use evacuation::event::Event;
use evacuation::moment::Moment;
use evacuation::policy::Policy;
use evacuation::report::Report;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use trace::journal::{FORMAT, Line, NAME, OLD_NAME, What};
use trace::lives::{self, Life, ReadError};

/// A journal that grows beyond this is set aside, bytes.
const ROTATE_AT: u64 = 64 << 20;

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the journal in {path}: give --state-dir a folder that the agent may write")]
pub struct JournalError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    written: u64,
    rotate_at: u64,
    failed: bool,
}

impl Journal {
    /// Opens `<folder>/journal.jsonl` for appending, and makes the folder if need be.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join(NAME);
        let opened = std::fs::create_dir_all(folder).and_then(|()| append(&path));
        let (file, written) = opened.map_err(|source| JournalError { path: path.clone(), source })?;
        Ok(Self { path, file, written, rotate_at: ROTATE_AT, failed: false })
    }

    /// What the earlier lives of the agent in this boot knew of the notice under which they worked: their events are
    /// replayed, one core a life, each under the policy it had; under `policy` where that is not known. Pods that left
    /// before this life began are known to nobody else.
    ///
    /// A line that cannot be read (the last one of an agent that was killed) is passed over: a running agent refuses
    /// nothing of its own past. A life in another format is passed over too, and what is lost by it is said once.
    pub fn earlier_reports(folder: &Path, boot: &str, policy: &Policy) -> Vec<Report> {
        let mut reports: Vec<Report> = Vec::new();
        let mut life: Option<Machine> = None;
        // The life has its head, and nothing has happened in it yet.
        let mut fresh = false;
        let mut foreign = None;
        let mut end = |life: &mut Option<Machine>| {
            let told = life.take().and_then(|mut machine| machine.report());
            reports.extend(told.filter(|told| told.boot == boot));
        };
        for name in [OLD_NAME, NAME] {
            let Ok(file) = File::open(folder.join(name)) else { continue };
            // By bytes: a line that is no text must not hide those behind it.
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                let line: Line = match serde_json::from_slice(&line) {
                    Ok(line) => line,
                    Err(_) => {
                        if let Some(format) = foreign_format(&line, boot) {
                            end(&mut life);
                            foreign = Some(format);
                        }
                        continue;
                    }
                };
                let (at, event) = match line {
                    Line { at, what: What::Event(event) } => (at, event),
                    Line { what: What::Life(head), .. } => {
                        end(&mut life);
                        life = (head.format == FORMAT).then(|| Machine::new(head.policy));
                        fresh = true;
                        continue;
                    }
                    Line { what: What::Effect(_), .. } => continue,
                };
                if let Event::AgentStarted { boot: of } = &event {
                    // A head that cannot be read must not leave its life under the policy of the one before.
                    if !std::mem::take(&mut fresh) {
                        end(&mut life);
                        life = Some(Machine::new(policy.clone()));
                    }
                    life.take_if(|_| of != boot);
                }
                if let Some(machine) = &mut life {
                    machine.handle(at, event);
                }
            }
        }
        end(&mut life);
        if let Some(format) = foreign {
            tracing::warn!(
                format,
                folder = %folder.display(),
                "the journal of an earlier life in this boot is of another format, and is not read: pods that were gone \
                 before this start are missing in the report of an evacuation that is under way"
            );
        }
        reports
    }

    /// Appends one line. A disk that is full is reported once and stops nothing.
    pub fn write(&mut self, at: Moment, what: What) {
        let Ok(mut line) = serde_json::to_vec(&Line { at, what }) else { return };
        line.push(b'\n');
        if self.written > self.rotate_at {
            self.rotate();
        }
        match self.file.write_all(&line) {
            Ok(()) => {
                self.written += line.len() as u64;
                self.failed = false;
            }
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::error!(%error, path = %self.path.display(), "the journal cannot be written");
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self) {
        let old = self.path.with_extension("jsonl.old");
        if let Ok((file, written)) = std::fs::rename(&self.path, old).and_then(|()| append(&self.path)) {
            self.file = file;
            self.written = written;
        }
    }
}

/// The format of a line in which an agent of format 1 read its node in this boot. That format had no other beginning.
fn foreign_format(line: &[u8], boot: &str) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Old {
        event: Started,
    }
    #[derive(serde::Deserialize)]
    struct Started {
        started: Booted,
    }
    #[derive(serde::Deserialize)]
    struct Booted {
        boot: String,
    }
    let old: Old = serde_json::from_slice(line).ok()?;
    (old.event.started.boot == boot).then_some(1)
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
