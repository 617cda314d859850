//! What happened and what was decided, line by line, on the node's own disk.
//!
//! One JSON object a line: `{"at": <boot clock ms>, "event": …}` or `{"at": …, "effect": …}`. Each line
//! is handed to the kernel before the effects it leads to begin, so that a killed agent has told
//! what it was doing. It is not synced to the disk: it survives the agent, and the report survives
//! the node.

use evacuation::Machine;
use evacuation::effect::Effect;
use evacuation::event::Event;
use evacuation::moment::Moment;
use evacuation::policy::Policy;
use evacuation::report::Report;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// A journal that grows beyond this is set aside under `journal.jsonl.old`, bytes.
const ROTATE_AT: u64 = 64 << 20;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// When, on the boot clock.
    pub at: Moment,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a line tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The core was told this.
    Event(Event),
    /// The core asked for this.
    Effect(Effect),
}

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
    failed: bool,
}

impl Journal {
    /// Opens `<folder>/journal.jsonl` for appending, and makes the folder if need be.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join("journal.jsonl");
        let opened = std::fs::create_dir_all(folder).and_then(|()| append(&path));
        let (file, written) = opened.map_err(|source| JournalError { path: path.clone(), source })?;
        Ok(Self { path, file, written, failed: false })
    }

    /// What the earlier lives of the agent in this boot knew of the notice under which they worked: their events are
    /// replayed, one core a life. Pods that left before this life began are known to nobody else.
    ///
    /// A line that cannot be read (the last one of an agent that was killed) is passed over.
    pub fn earlier_reports(folder: &Path, boot: &str, policy: &Policy) -> Vec<Report> {
        let mut reports: Vec<Report> = Vec::new();
        let mut life: Option<Machine> = None;
        let mut end = |life: &mut Option<Machine>| {
            let told = life.take().and_then(|mut machine| machine.report());
            reports.extend(told.filter(|told| told.boot == boot));
        };
        for name in ["journal.jsonl.old", "journal.jsonl"] {
            let Ok(file) = File::open(folder.join(name)) else { continue };
            // By bytes: a line that is no text must not hide those behind it.
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                let Ok(Line { at, what: What::Event(event) }) = serde_json::from_slice(&line) else {
                    continue;
                };
                if let Event::Started(node) = &event {
                    end(&mut life);
                    life = (node.boot == boot).then(|| Machine::new(policy.clone()));
                }
                if let Some(machine) = &mut life {
                    machine.handle(at, event);
                }
            }
        }
        end(&mut life);
        reports
    }

    /// Appends one line. A disk that is full is reported once and stops nothing.
    pub fn write(&mut self, at: Moment, what: What) {
        let Ok(mut line) = serde_json::to_vec(&Line { at, what }) else { return };
        line.push(b'\n');
        if self.written > ROTATE_AT {
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

fn append(path: &Path) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let written = file.metadata()?.len();
    Ok((file, written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evacuation::event::NodeFacts;
    use evacuation::moment::Span;
    use evacuation::notice::{InstanceAction, Notice, NoticeKind};
    use evacuation::pod::{Owner, PodFacts, PodUid, Role};

    #[test]
    fn lines_survive_a_second_opening_and_read_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        for at in [1, 2] {
            let mut journal = Journal::open(folder.path()).unwrap();
            journal.write(Moment::from_millis(at), What::Event(Event::Woke));
        }
        let text = std::fs::read_to_string(folder.path().join("journal.jsonl")).unwrap();
        let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].at, Moment::from_millis(2));
        assert!(matches!(lines[1].what, What::Event(Event::Woke)));
    }

    #[test]
    fn a_pod_that_was_gone_before_a_restart_is_in_the_report_that_the_journal_gives_back() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeFacts {
            name: "node-a".into(),
            boot: "boot".into(),
            unschedulable: false,
            tainted: false,
            standing: None,
        };
        let pod = PodFacts {
            uid: PodUid("uid-1".into()),
            namespace: "default".into(),
            name: "web".into(),
            priority: 0,
            role: Role::Active,
            owner: Owner::Replicated,
            grace: Span::from_secs(30),
            terminating: None,
            running: true,
            engine: None,
            restore_decided: false,
        };
        let notice = Notice {
            kind: NoticeKind::Interruption(InstanceAction::Terminate),
            id: "n".into(),
            left_ms: 120_000,
        };
        let life = [
            Event::Started(node),
            Event::PodSeen(Box::new(pod.clone())),
            Event::Noticed(notice),
            Event::PodGone(pod.uid.clone()),
        ];
        let mut journal = Journal::open(folder.path()).unwrap();
        for (at, event) in (1_000..).zip(life) {
            journal.write(Moment::from_millis(at), What::Event(event));
        }
        let journal = folder.path().join("journal.jsonl");
        let torn = [b"{\"at\": 3, \"event\": \xff\n".as_slice(), &std::fs::read(&journal).unwrap()].concat();
        std::fs::write(journal, torn).unwrap();
        let policy = Policy::default();
        let told = Journal::earlier_reports(folder.path(), "boot", &policy);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["web"]);
        assert!(Journal::earlier_reports(folder.path(), "another boot", &policy).is_empty());
        assert!(Journal::earlier_reports(&folder.path().join("none"), "boot", &policy).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_that_names_the_flag() {
        let error = Journal::open(Path::new("/proc/nowhere")).unwrap_err();
        assert!(error.to_string().contains("--state-dir"));
    }
}
