//! What earlier lives of the agent in this boot knew: read from the journal beside everything else, since no start and no
//! evacuation may wait for a disk.

use super::file::ROTATE_AT;
use evacuation::Machine;
use evacuation::event::Event;
use evacuation::moment::Span;
use evacuation::policy::Policy;
use evacuation::report::Report;
use host::clock;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use trace::journal::{FORMAT, Line, NAME, OLD_NAME, What};

/// The most that is read of one file, from its end, bytes: more than a journal grows to before it is set aside.
const READ_MAX: u64 = 2 * ROTATE_AT;

/// The longest line that can be one of ours, bytes. Blocks of zeroes, as a power failure leaves them, are none.
const LINE_MAX: u64 = 8 << 20;

/// What begins a life, in this format and the one before, stands at the beginning of its line.
const BEGINNINGS: [&[u8]; 3] = [b"\"life\"", b"\"agent_started\"", b"\"started\""];

/// So far from the beginning of a line, bytes.
const BEGINNING_MAX: usize = 80;

/// The journal as it was before this life wrote its first line.
#[derive(Debug)]
pub(super) struct EarlierLives {
    folder: PathBuf,
    /// Oldest first, with the bytes that count.
    files: Vec<(File, u64)>,
}

impl EarlierLives {
    /// Opens what is there, and reads nothing yet. It is called before this life writes: a journal that is set aside
    /// meanwhile stays open, and what is added to it is not read.
    pub(super) fn open(folder: &Path) -> Self {
        let open = |name| {
            let file = File::open(folder.join(name)).ok()?;
            let length = file.metadata().ok()?.len();
            Some((file, length))
        };
        Self { folder: folder.to_owned(), files: [OLD_NAME, NAME].into_iter().filter_map(open).collect() }
    }

    /// What the lives in this boot knew of the notice under which they worked: their events are replayed, one core a life,
    /// each under the policy it had; under `policy` where that is not known. Pods that left before this life began are
    /// known to nobody else.
    ///
    /// A line that cannot be read (the last one of an agent that was killed) is passed over: a running agent refuses
    /// nothing of its own past. A life in another format is passed over too, and what is lost by it is said once.
    pub(super) fn reports(self, boot: &str, policy: &Policy) -> Vec<Report> {
        let mut replay =
            Replay { boot, policy, life: None, fresh: false, foreign: None, reports: Vec::new() };
        for (file, length) in self.files {
            each_line(file, length, |line| replay.line(line));
        }
        replay.end_life();
        if let Some(format) = replay.foreign {
            tracing::warn!(
                format,
                folder = %self.folder.display(),
                "the journal of an earlier life in this boot is of another format, and is not read: pods that were gone \
                 before this start are missing in the report of an evacuation that is under way"
            );
        }
        replay.reports
    }
}

/// What [`EarlierLives`] knew, once it is read.
#[derive(Clone, Debug)]
pub struct EarlierReports(watch::Receiver<Option<Arc<[Report]>>>);

impl EarlierReports {
    /// What the lives in this folder and boot knew, and the work that finds it out. The work is done before this life
    /// writes, where a disk that hangs holds nobody up; it reads on a thread of its own, which a process that ends does not
    /// wait for.
    pub fn of(folder: &Path, boot: String, policy: Policy) -> (Self, impl FnOnce() + Send + 'static) {
        let (out, reports) = watch::channel(None);
        let folder = folder.to_owned();
        let find = move || {
            let lives = EarlierLives::open(&folder);
            let read = move || {
                // Nobody may be interested any more.
                let _ = out.send(Some(lives.reports(&boot, &policy).into()));
            };
            if let Err(error) = std::thread::Builder::new().name("earlier-lives".to_owned()).spawn(read) {
                tracing::error!(%error, "no thread to read the journal of earlier lives with");
            }
        };
        (Self(reports), find)
    }

    /// The reports, if they are there within `patience`. A report without them is better than none.
    pub async fn within(&self, patience: Span) -> Arc<[Report]> {
        let mut reports = self.0.clone();
        let there = reports.wait_for(Option::is_some);
        match tokio::time::timeout(clock::duration(patience), there).await {
            Ok(Ok(reports)) => reports.clone().unwrap_or_default(),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    waited = %patience,
                    "the journal of this agent's earlier lives is not read yet: pods that were gone before this start may \
                     be missing in the report"
                );
                Arc::default()
            }
        }
    }
}

/// Lives that are replayed line by line.
struct Replay<'a> {
    boot: &'a str,
    policy: &'a Policy,
    /// The life of this boot that is being replayed.
    life: Option<Machine>,
    /// A life has its head, and nothing has happened in it yet.
    fresh: bool,
    /// The format of a life in this boot that was passed over.
    foreign: Option<u32>,
    reports: Vec<Report>,
}

impl Replay<'_> {
    fn line(&mut self, raw: &[u8]) {
        // Most of a journal is of other boots: what begins no life there is not even parsed.
        if self.life.is_none() && !may_begin_life(raw) {
            return;
        }
        let Ok(line) = serde_json::from_slice::<Line>(raw) else {
            if let Some(format) = foreign_format(raw, self.boot) {
                self.end_life();
                self.foreign = Some(format);
            }
            return;
        };
        match line.what {
            What::Life(head) => {
                self.end_life();
                self.life = (head.format == FORMAT).then(|| Machine::new(head.policy));
                self.fresh = true;
            }
            What::Effect(_) => {}
            What::Event(event) => {
                if let Event::AgentStarted { boot, .. } = &event {
                    self.begin_life(boot);
                }
                if let Some(machine) = &mut self.life {
                    machine.handle(line.at, event);
                }
            }
        }
    }

    fn begin_life(&mut self, boot: &str) {
        // A head that cannot be read must not leave its life under the policy of the one before.
        if !std::mem::take(&mut self.fresh) {
            self.end_life();
            self.life = Some(Machine::new(self.policy.clone()));
        }
        self.life.take_if(|_| boot != self.boot);
    }

    fn end_life(&mut self) {
        let told = self.life.take().and_then(|mut machine| machine.report());
        self.reports.extend(told.filter(|told| told.boot == self.boot));
    }
}

fn may_begin_life(line: &[u8]) -> bool {
    let beginning = &line[..line.len().min(BEGINNING_MAX)];
    BEGINNINGS.iter().any(|word| beginning.windows(word.len()).any(|found| found == *word))
}

/// The lines of a file as it was when it had this length, without their ends; by bytes, since a line that is no text must
/// not hide those behind it.
fn each_line(mut file: File, length: u64, mut line: impl FnMut(&[u8])) {
    let skipped = length.saturating_sub(READ_MAX);
    if file.seek(SeekFrom::Start(skipped)).is_err() {
        return;
    }
    let mut reader = BufReader::new(file.take(length - skipped));
    let mut raw = Vec::new();
    while let Ok(1..) = (&mut reader).take(LINE_MAX).read_until(b'\n', &mut raw) {
        line(raw.trim_ascii_end());
        raw.clear();
    }
}

/// The format of a line in which an agent of format 1 read its node in this boot. That format had no other beginning.
pub(super) fn foreign_format(line: &[u8], boot: &str) -> Option<u32> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_report_waits_for_earlier_lives_as_long_as_it_may_and_no_longer() {
        let (out, reports) = watch::channel(None);
        let reports = EarlierReports(reports);
        let began = clock::now();
        assert!(reports.within(Span::from_millis(200)).await.is_empty());
        assert!((200..2_000).contains(&clock::now().since(began).as_millis()));
        let waiting = tokio::spawn({
            let reports = reports.clone();
            async move { reports.within(Span::from_secs(60)).await }
        });
        out.send(Some(Vec::new().into())).unwrap();
        waiting.await.unwrap();
        drop(out);
        assert!(reports.within(Span::from_secs(60)).await.is_empty(), "known already");
    }

    #[test]
    fn only_what_begins_a_life_is_read_of_other_boots() {
        for line in [
            r#"{"at":18446744073709551615,"event":{"agent_started":{"boot":"b"}}}"#,
            r#"{"at":1,"life":{"format":2}}"#,
            r#"{"at":1,"event":{"started":{"boot":"b"}}}"#,
        ] {
            assert!(may_begin_life(line.as_bytes()), "{line}");
        }
        assert!(!may_begin_life(br#"{"at":1,"event":{"notice_received":{}}}"#));
        assert!(!may_begin_life(b""));
    }
}
