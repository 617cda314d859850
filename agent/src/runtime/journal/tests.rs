use super::earlier::{EarlierLives, foreign_format};
use super::file::RETRY_AFTER;
use super::*;
use evacuation::event::Event;
use evacuation::event::NodeFacts;
use evacuation::notice::{InstanceAction, Notice, NoticeKind};
use evacuation::pod::{Owner, PodFacts, PodUid, Role};
use evacuation::policy::Policy;
use evacuation::report::Report;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use trace::journal::{Head, Line};

#[test]
fn lines_survive_a_second_opening_and_read_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    for at in [1, 2] {
        let mut journal = JournalFile::open(folder.path());
        journal.write(Moment::from_millis(at), What::Event(Event::TimerFired));
    }
    let text = std::fs::read_to_string(folder.path().join("journal.jsonl")).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1].at, Moment::from_millis(2));
    assert!(matches!(lines[1].what, What::Event(Event::TimerFired)));
}

#[test]
fn a_pod_that_was_gone_before_a_restart_is_in_the_report_that_the_journal_gives_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = node();
    let pod = a_pod();
    let gone = Event::PodRemoved(PodUid("uid-1".into()));
    let notice = Notice {
        kind: NoticeKind::Interruption(InstanceAction::Terminate),
        id: "n".into(),
        seen: Moment::from_millis(1_003),
        left_ms: 120_000,
        event: None,
    };
    let life =
        [started("boot"), Event::NodeRead(node), pod, Event::NoticeReceived(notice), Event::PodsListed, gone];
    let mut journal = JournalFile::open(folder.path());
    for (at, event) in (1_000..).zip(life) {
        journal.write(Moment::from_millis(at), What::Event(event));
    }
    let journal = folder.path().join("journal.jsonl");
    let torn = [b"{\"at\": 3, \"event\": \xff\n".as_slice(), &std::fs::read(&journal).unwrap()].concat();
    std::fs::write(journal, torn).unwrap();
    let policy = Policy::default();
    let told = earlier_reports(folder.path(), "boot", &policy);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["web"]);
    assert!(earlier_reports(folder.path(), "another boot", &policy).is_empty());
    assert!(earlier_reports(&folder.path().join("none"), "boot", &policy).is_empty());
}

/// What the lives in a folder knew in this boot.
fn earlier_reports(folder: &Path, boot: &str, policy: &Policy) -> Vec<Report> {
    EarlierLives::open(folder).reports(boot, policy)
}

/// A fired timer at this moment, and what the file then holds.
fn fire(journal: &mut JournalFile, at: u64) {
    journal.write(Moment::from_millis(at), What::Event(Event::TimerFired));
}

/// The moments of the lines in the file.
fn moments(folder: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join(NAME)).unwrap();
    text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().at.as_millis()).collect()
}

#[test]
fn a_folder_that_cannot_be_made_is_tried_again_and_no_line_is_missing_then() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("state");
    std::fs::write(&folder, "a file where the folder should be").unwrap();
    let mut journal = JournalFile::open(&folder);
    assert!(!journal.is_written());
    let opened = journal.retry_at.unwrap().as_millis();
    fire(&mut journal, opened - 2);
    std::fs::remove_file(&folder).unwrap();
    fire(&mut journal, opened - 1);
    assert!(!folder.exists(), "a disk that has just failed is left alone");
    fire(&mut journal, opened);
    assert!(journal.is_written());
    assert_eq!(moments(&folder), [opened - 2, opened - 1, opened]);
}

#[test]
fn lines_wait_for_a_disk_that_is_full_and_follow_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = JournalFile::open(folder.path());
    fire(&mut journal, 1);
    let real = journal.file.replace(OpenOptions::new().write(true).open("/dev/full").unwrap());
    fire(&mut journal, 2);
    fire(&mut journal, 3);
    assert!(!journal.is_written());
    // Half of a line was taken before the disk was full.
    let torn = journal.waiting.len() / 4;
    real.as_ref().unwrap().write_all(&journal.waiting.drain(..torn).collect::<Vec<_>>()).unwrap();
    journal.file = real;
    journal.retry(Moment::from_millis(2 + RETRY_AFTER.as_millis() - 1));
    assert!(!journal.is_written());
    journal.retry(Moment::from_millis(2 + RETRY_AFTER.as_millis()));
    assert!(journal.is_written());
    assert_eq!(moments(folder.path()), [1, 2, 3]);
}

#[test]
fn a_disk_that_stays_full_costs_bounded_memory_and_the_rest_of_the_life() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = JournalFile::open(folder.path());
    let real = journal.file.replace(OpenOptions::new().write(true).open("/dev/full").unwrap());
    fire(&mut journal, 1);
    let length = journal.waiting.len();
    // As if everything up to the last line had been filled before.
    journal.waiting = journal.waiting.repeat(WAITING_MAX / length);
    let held = journal.waiting.len();
    fire(&mut journal, 2);
    assert!(journal.waiting.len() == held && held <= WAITING_MAX);
    journal.file = real;
    fire(&mut journal, 1 + RETRY_AFTER.as_millis());
    assert!(journal.waiting.is_empty() && !journal.is_written(), "a hole is never written over");
    assert!(moments(folder.path()).iter().all(|at| *at == 1));
}

/// A disk that never answers: a pipe that nobody reads is full soon, and then holds whoever writes to it.
fn hanging_disk() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    (folder, path)
}

#[test]
fn a_disk_that_hangs_holds_nobody_and_costs_bounded_memory() {
    let (folder, path) = hanging_disk();
    let mut journal = Journal::open(folder.path(), || ());
    let began = clock::now();
    let one = file::line(Moment::from_millis(1), What::Event(Event::TimerFired)).unwrap().len();
    let fitting = WAITING_MAX / one;
    let many = 2 * fitting as u64;
    for at in 1..=many {
        journal.write(Moment::from_millis(at), What::Event(Event::TimerFired));
        let took = clock::now().since(began);
        assert!(took < Span::from_secs(10), "{took} for {at} of {many} lines");
    }
    assert!(journal.progress.queued.load(Ordering::Relaxed) <= WAITING_MAX);
    let lost = journal.lost();
    assert!(lost > many / 4 && lost < many, "{lost} of {many}");
    journal.look(clock::now() + HANGS_AFTER);
    assert!(journal.hangs && !journal.is_written());
    // The disk answers again: what waited is written in its order, and nothing comes after the hole.
    let mut disk = std::fs::File::open(path).unwrap();
    journal.write(Moment::from_millis(many + 1), What::Event(Event::TimerFired));
    let reads = std::thread::spawn(move || {
        let mut text = String::new();
        disk.read_to_string(&mut text).unwrap();
        text
    });
    let late = std::time::Instant::now();
    while journal.progress.queued.load(Ordering::Relaxed) > 0 && late.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    journal.look(clock::now());
    assert!(!journal.hangs && !journal.is_written(), "it answers, and the life has a hole");
    drop(journal);
    let text = reads.join().unwrap();
    let moments = text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().at.as_millis());
    assert!(moments.eq(1..=many - lost), "{} lines", text.lines().count());
}

#[test]
fn what_is_done_before_the_journal_may_hang_too() {
    let folder = tempfile::tempdir().unwrap();
    let (open, never) = std::sync::mpsc::channel::<()>();
    let mut journal = Journal::open(folder.path(), move || _ = never.recv());
    fire_into(&mut journal, 1);
    assert!(!journal.is_written() && moments_if_any(folder.path()).is_empty());
    drop(open);
    drop(journal);
    assert_eq!(moments(folder.path()), [1], "the last lines are waited for");
}

fn fire_into(journal: &mut Journal, at: u64) {
    journal.write(Moment::from_millis(at), What::Event(Event::TimerFired));
}

fn moments_if_any(folder: &Path) -> Vec<u64> {
    if folder.join(NAME).exists() { moments(folder) } else { Vec::new() }
}

#[test]
fn what_this_life_writes_is_not_read_as_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = JournalFile::open(folder.path());
    noticed(&mut journal, 1);
    let lives = EarlierLives::open(folder.path());
    noticed(&mut journal, 2);
    journal.rotate_at = journal.written - 1;
    noticed(&mut journal, 3);
    let deadlines: Vec<_> =
        lives.reports("boot", &Policy::default()).iter().map(|told| told.deadline.as_millis()).collect();
    assert_eq!(deadlines.len(), 1, "{deadlines:?}");
    assert_eq!(earlier_reports(folder.path(), "boot", &Policy::default()).len(), 3, "there are three by now");
}

fn started(boot: &str) -> Event {
    Event::AgentStarted { boot: boot.into(), slept: Span::ZERO }
}

fn node() -> NodeFacts {
    NodeFacts {
        name: "node-a".into(),
        unschedulable: false,
        tainted: false,
        active_notice: None,
        over: Vec::new(),
    }
}

fn terminate(at: u64) -> Event {
    let kind = NoticeKind::Interruption(InstanceAction::Terminate);
    let seen = Moment::from_millis(at);
    Event::NoticeReceived(Notice { kind, id: "n".into(), seen, left_ms: 120_000, event: None })
}

/// A life from its start to a notice.
fn noticed(journal: &mut JournalFile, at: u64) {
    for event in [started("boot"), Event::NodeRead(node()), Event::PodsListed, terminate(at)] {
        journal.write(Moment::from_millis(at), What::Event(event));
    }
}

#[test]
fn an_earlier_life_is_replayed_under_its_own_policy_and_under_the_new_one_where_its_own_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let policy = |margin| Policy { margin: Span::from_secs(margin), ..Policy::default() };
    let mut journal = JournalFile::open(folder.path());
    journal.write(Moment::from_millis(1), What::Life(Box::new(Head::new(&policy(9)))));
    noticed(&mut journal, 1);
    journal
        .file
        .as_ref()
        .unwrap()
        .write_all(b"{\"at\":2,\"life\":{\"format\":2,\"agent\":\"9\",\"policy\":{\"margin\":\"long\"}}}\n")
        .unwrap();
    noticed(&mut journal, 2);
    let told = earlier_reports(folder.path(), "boot", &policy(20));
    let deadlines: Vec<_> = told.iter().map(|report| report.deadline.as_millis()).collect();
    assert_eq!(deadlines, [111_001, 100_002]);
}

#[test]
fn a_pod_that_was_seen_before_the_node_was_read_is_in_the_report_of_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = JournalFile::open(folder.path());
    let head = What::Life(Box::new(Head::new(&Policy::default())));
    let life = [started("boot"), a_pod(), Event::PodsListed, Event::NodeRead(node()), terminate(1)];
    for what in std::iter::once(head).chain(life.into_iter().map(What::Event)) {
        journal.write(Moment::from_millis(1), what);
    }
    let told = earlier_reports(folder.path(), "boot", &Policy::default());
    assert_eq!(told[0].pods.len(), 1);
    assert!(earlier_reports(folder.path(), "another", &Policy::default()).is_empty());
    let lives = read(folder.path()).unwrap();
    assert_eq!((lives.len(), lives[0].steps.len(), lives[0].is_whole()), (1, 5, true));
}

#[test]
fn a_journal_that_grows_too_long_is_set_aside_and_both_files_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = JournalFile::open(folder.path());
    journal.write(Moment::from_millis(1), What::Life(Box::new(Head::new(&Policy::default()))));
    journal.write(Moment::from_millis(1), What::Event(started("boot")));
    journal.rotate_at = journal.written + 60;
    for at in 2..7 {
        journal.write(Moment::from_millis(at), What::Event(Event::TimerFired));
    }
    let size = |name| std::fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(size(OLD_NAME) > 100 && size(NAME) > 0);
    let lives = read(folder.path()).unwrap();
    assert_eq!((lives.len(), lives[0].steps.len(), lives[0].is_whole()), (1, 6, true));
    let alone = read(&folder.path().join(NAME)).unwrap();
    assert!(!alone[0].is_whole());
}

#[test]
fn a_line_that_was_torn_does_not_swallow_the_first_line_of_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    std::fs::write(&path, "{\"at\":1,\"eve").unwrap();
    let mut journal = JournalFile::open(folder.path());
    journal.write(Moment::from_millis(2), What::Event(Event::TimerFired));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), ["{\"at\":1,\"eve", "{\"at\":2,\"event\":\"timer_fired\"}"]);
}

fn a_pod() -> Event {
    Event::PodUpdated(Box::new(PodFacts {
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
        restarts: 0,
    }))
}

#[test]
fn a_life_of_format_1_in_this_boot_is_passed_over_and_the_next_one_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let old = concat!(
        r#"{"at":1,"life":{"format":1,"agent":"0.1.0","policy":{}}}"#,
        "\n",
        r#"{"at":1,"event":{"started":{"name":"node-a","boot":"boot","unschedulable":false,"tainted":false,"active_notice":null}}}"#,
        "\n",
        r#"{"at":1,"effect":{"id":1,"deadline":9,"attempt":1,"action":{"inspect_engine":{"pod":"u"}}}}"#,
        "\n",
    );
    std::fs::write(folder.path().join(NAME), old).unwrap();
    let mut journal = JournalFile::open(folder.path());
    let policy = Policy::default();
    assert!(earlier_reports(folder.path(), "boot", &policy).is_empty());
    journal.write(Moment::from_millis(5), What::Life(Box::new(Head::new(&policy))));
    noticed(&mut journal, 5);
    assert_eq!(earlier_reports(folder.path(), "boot", &policy).len(), 1);
    assert_eq!(foreign_format(old.lines().nth(1).unwrap().as_bytes(), "boot"), Some(1));
    assert_eq!(foreign_format(old.lines().nth(1).unwrap().as_bytes(), "another"), None);
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("format 1") && error.contains("reads format 2"), "{error}");
}
