use super::*;
use crate::runtime::journal;
use crate::runtime::journal::JournalFile;
use evacuation::Machine;
use evacuation::event::{Event, NodeFacts};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{InstanceAction, Notice, NoticeKind};
use evacuation::pod::{Owner, PodFacts, PodUid, Role};
use evacuation::policy::Policy;
use host::exit;
use std::io::Write as _;
use std::path::Path;
use trace::journal::{FORMAT, Head, Line, NAME, OLD_NAME, What};

fn pod(name: &str) -> Event {
    Event::PodUpdated(Box::new(PodFacts {
        uid: PodUid(format!("uid-{name}")),
        namespace: "default".into(),
        name: name.into(),
        priority: 0,
        role: Role::Active,
        owner: Owner::Replicated,
        grace: Span::from_secs(30),
        terminating: None,
        running: true,
        engine: None,
        restore_decided: true,
        restarts: 0,
    }))
}

fn read() -> Event {
    Event::NodeRead(NodeFacts {
        name: "node-a".into(),
        unschedulable: false,
        tainted: false,
        active_notice: None,
        over: Vec::new(),
    })
}

/// An agent's life as the event loop writes it: a policy that is not the default, two pods, a notice.
fn live(folder: &Path, from: u64) {
    let policy = Policy { margin: Span::from_secs(9), ..Policy::default() };
    let mut journal = JournalFile::open(folder);
    journal.write(Moment::from_millis(from), What::Life(Box::new(Head::new(&policy))));
    let mut machine = Machine::new(policy);
    let kind = NoticeKind::Interruption(InstanceAction::Terminate);
    let notice = Event::NoticeReceived(Notice {
        kind,
        id: "n".into(),
        seen: Moment::from_millis(from),
        left_ms: 120_000,
        event: None,
    });
    let link = Event::LinkMeasured { bytes_per_second: 1 << 20 };
    let started = Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO };
    let events = [started, read(), pod("web"), pod("db"), Event::PodsListed, link, notice, Event::TimerFired];
    for (at, event) in (from..).zip(events) {
        let at = Moment::from_millis(at);
        journal.write(at, What::Event(event.clone()));
        for effect in machine.handle(at, event) {
            journal.write(at, What::Effect(effect));
        }
    }
}

/// The lines of the journal, changed.
fn edit(folder: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let path = folder.join(NAME);
    let mut lines: Vec<_> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn replayed(folder: &Path) -> Told {
    text(&journal::read(folder).unwrap(), true)
}

fn refused(folder: &Path) -> String {
    journal::read(folder).unwrap_err().to_string()
}

fn a_life() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    live(folder.path(), 1_000);
    folder
}

#[test]
fn a_journal_replays_under_the_policy_of_each_life() {
    let folder = a_life();
    live(folder.path(), 9_000);
    let told = replayed(folder.path());
    assert!(told.same, "{}", told.text);
    assert_eq!(told.text.matches("8 events, ").count(), 2, "{}", told.text);
    assert_eq!(told.text.matches(" effects: the same\n").count(), 2, "{}", told.text);
    // A margin of nine seconds is in the deadline that was written.
    edit(folder.path(), |lines| lines[0] = lines[0].replace("\"margin\":9000", "\"margin\":8000"));
    let told = replayed(folder.path());
    assert!(!told.same && told.text.contains("  wanted {\"id\":"), "{}", told.text);
    assert!(
        told.text.contains("event 7, 1006 ms after boot, differs: {\"notice_received\":"),
        "{}",
        told.text
    );
}

#[test]
fn an_effect_that_is_missing_or_added_is_a_difference() {
    let folder = a_life();
    edit(folder.path(), |lines| drop(lines.remove(8)));
    let told = replayed(folder.path());
    assert!(!told.same, "{}", told.text);
    let folder = a_life();
    edit(folder.path(), |lines| {
        let last = lines.iter().rposition(|line| line.contains("\"effect\"")).unwrap();
        let again = lines[last].clone();
        lines.insert(last, again);
    });
    let told = replayed(folder.path());
    assert!(!told.same, "{}", told.text);
}

#[test]
fn what_a_killed_agent_leaves_is_tolerated_and_said() {
    let folder = a_life();
    // The notice is the last event, and of its effects only the first is written, and half of the second.
    edit(folder.path(), |lines| {
        let notice = lines.iter().position(|line| line.contains("\"notice_received\"")).unwrap();
        lines.truncate(notice + 2);
        lines.push("{\"at\":1006,\"effe".into());
    });
    let text = std::fs::read_to_string(folder.path().join(NAME)).unwrap();
    std::fs::write(folder.path().join(NAME), text.trim_end()).unwrap();
    let told = replayed(folder.path());
    assert!(told.same, "{}", told.text);
    assert!(told.text.contains("were not written before the agent was killed"), "{}", told.text);
    assert!(told.text.contains("its last line is torn"), "{}", told.text);
    // The next life begins on a line of its own.
    live(folder.path(), 9_000);
    let told = replayed(folder.path());
    assert!(told.same && told.text.contains("Life 2 of 2"), "{}", told.text);
}

#[test]
fn a_line_that_is_none_in_the_middle_is_an_error_with_its_number() {
    let folder = a_life();
    edit(folder.path(), |lines| lines[3] = "{\"at\":3,".into());
    let error = refused(folder.path());
    assert!(error.contains("journal.jsonl, line 4: not a line of a journal"), "{error}");
    edit(folder.path(), |lines| lines[3] = "[]".into());
    assert!(refused(folder.path()).contains("line 4: not a line of a journal"));
}

#[test]
fn what_this_version_does_not_know_is_refused_by_name() {
    let folder = a_life();
    edit(folder.path(), |lines| lines[0] = lines[0].replace("\"policy\":{", "\"policy\":{\"haste\":1,"));
    let error = refused(folder.path());
    assert!(error.contains("line 1: the field life.policy.haste is not known to lifeboat"), "{error}");
    let folder = a_life();
    edit(folder.path(), |lines| lines[3] = lines[3].replace("\"priority\":0", "\"priority\":0,\"tier\":1"));
    let error = refused(folder.path());
    assert!(error.contains("line 4") && error.contains("unknown field `tier`"), "{error}");
    let folder = a_life();
    edit(folder.path(), |lines| lines[5] = "{\"at\":1004,\"event\":\"dreamt\"}".into());
    let error = refused(folder.path());
    assert!(error.contains("line 6") && error.contains("dreamt"), "{error}");
    let folder = a_life();
    let format = format!("\"format\":{FORMAT}");
    edit(folder.path(), |lines| {
        lines[0] = lines[0].replace(&format, "\"format\":99").replace("\"agent\":\"", "\"agent\":\"9.");
    });
    let error = refused(folder.path());
    assert!(error.contains("format 99") && error.contains("use lifeboat 9."), "{error}");
}

#[test]
fn a_life_that_was_rotated_is_replayed_over_both_files_and_one_file_alone_says_what_is_missing() {
    let folder = a_life();
    let (current, old) = (folder.path().join(NAME), folder.path().join(OLD_NAME));
    let lines: Vec<_> =
        std::fs::read_to_string(&current).unwrap().lines().map(|line| line.to_owned() + "\n").collect();
    // Between the notice and its effects.
    let middle = lines.iter().position(|line| line.contains("\"notice_received\"")).unwrap() + 2;
    std::fs::write(&old, lines[..middle].concat()).unwrap();
    std::fs::write(&current, lines[middle..].concat()).unwrap();
    let told = replayed(folder.path());
    assert!(told.same && told.text.contains("8 events"), "{}", told.text);
    std::fs::remove_file(&old).unwrap();
    let told = replayed(folder.path());
    assert!(!told.same, "nothing was compared: {}", told.text);
    assert!(told.text.contains("cannot be replayed: its beginning is missing"), "{}", told.text);
    assert!(text(&journal::read(folder.path()).unwrap(), false).text.contains("it was rotated away"));
    live(folder.path(), 9_000);
    let told = replayed(folder.path());
    assert!(told.same && told.text.contains("cannot be replayed"), "{}", told.text);
}

#[test]
fn a_life_without_a_policy_reads_as_a_timeline_and_does_not_replay() {
    let folder = a_life();
    edit(folder.path(), |lines| drop(lines.remove(0)));
    let lives = journal::read(folder.path()).unwrap();
    assert!(text(&lives, false).text.contains("terminate: at T+120.0"));
    let told = text(&lives, true);
    assert!(!told.same && told.text.contains("its policy was not written"), "{}", told.text);
}

#[test]
fn what_is_no_journal_is_one_error_that_names_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let fix = "--state-dir";
    assert!(refused(folder.path()).contains(fix));
    assert!(refused(&folder.path().join("none")).contains(fix));
    std::fs::write(folder.path().join(NAME), "").unwrap();
    assert!(refused(folder.path()).contains("no event is in this journal"));
}

#[test]
fn the_timeline_is_text_for_people_and_json_for_programs() {
    let folder = a_life();
    let lives = journal::read(folder.path()).unwrap();
    let told = text(&lives, false);
    assert!(
        told.same && told.text.contains(" T+0.0    node    mark: cordon, taint, annotation"),
        "{}",
        told.text
    );
    let document: Value = serde_json::from_str(&document(&lives, true).text).unwrap();
    assert_eq!(document["lives"][0]["timeline"]["node"], "node-a");
    assert_eq!(document["lives"][0]["replay"]["same"], true);
    // The same types read it back.
    let line = std::fs::read_to_string(folder.path().join(NAME)).unwrap().lines().next().unwrap().to_owned();
    assert!(matches!(serde_json::from_str::<Line>(&line).unwrap().what, What::Life(_)));
}

#[test]
fn a_journal_that_breaks_a_guarantee_says_which_also_where_its_core_would_do_the_same() {
    let folder = a_life();
    let told = replayed(folder.path());
    assert!(told.same && told.text.contains("Guarantees 1 to 11: none is violated"), "{}", told.text);
    // Somebody's agent evicts a pod before the cordon, and goes on.
    edit(folder.path(), |lines| {
        let mark = lines.iter().position(|line| line.contains("\"mark_node\"")).unwrap();
        let mut evict: Value = serde_json::from_str(&lines[mark]).unwrap();
        evict["effect"]["id"] = 900.into();
        evict["effect"]["action"] =
            json!({ "pod": { "uid": "uid-web", "action": { "evict": { "grace": 30_000 } } } });
        lines.insert(mark + 1, evict.to_string());
    });
    let told = replayed(folder.path());
    assert!(!told.same && told.text.contains("VIOLATED: guarantee 1:"), "{}", told.text);
    let document = document(&journal::read(folder.path()).unwrap(), true);
    assert!(document.text.contains("\"guarantee\": 1"), "{}", document.text);
}

/// The report that the life of [`live`] would have led to, as the store has it.
fn stored_report(format: u32) -> Value {
    json!({
        "format": format, "node": "node-a", "boot": "boot", "notice": "n", "kind": {"interruption": "terminate"},
        "short": false, "withdrawn": false, "noticed": 1_000, "deadline": 112_000, "cordoned": 1_040,
        "written": 9_000, "complete": true,
        "pods": [{
            "uid": "uid-web", "namespace": "default", "name": "web", "priority": 0, "departure": "gone",
            "reason": null, "state": "none", "state_reason": null, "generation": null, "bytes": 0, "sent": 0,
            "refusals": 0, "evicted": 1_100, "committed": null, "gone": 2_500,
        }],
    })
}

fn written(report: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{report:#}")).unwrap();
    file
}

#[test]
fn a_report_from_the_store_is_told_from_a_journal_by_what_is_in_it() {
    let file = written(&stored_report(1));
    let Source::Report(report) = source::read(file.path()).unwrap() else { panic!("it is a report") };
    let chart = Chart::of_report(&report);
    assert_eq!((chart.rows.len(), chart.rows[0].name.as_str()), (1, "default/web"));
    let folder = a_life();
    for path in [folder.path().to_owned(), folder.path().join(NAME)] {
        assert!(matches!(source::read(&path).unwrap(), Source::Journal(lives) if lives.len() == 1));
    }
}

#[test]
fn a_copied_journal_is_what_its_files_say_the_older_first() {
    let folder = a_life();
    std::fs::rename(folder.path().join(NAME), folder.path().join(OLD_NAME)).unwrap();
    // More than is read at a time, and a last line whose agent was killed.
    (1..1_500).for_each(|life| live(folder.path(), life * 100_000));
    let newer = std::fs::OpenOptions::new().append(true).open(folder.path().join(NAME)).unwrap();
    (&newer).write_all(br#"{"at":1,"ev"#).unwrap();
    let mut copied = Vec::new();
    copy(folder.path(), &mut copied).unwrap();

    let files = [OLD_NAME, NAME].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    assert!(copied.len() > 1 << 20 && copied == files.concat());
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(elsewhere.path(), copied).unwrap();
    let shown = |path: &Path| text(&journal::read(path).unwrap(), true).text;
    assert_eq!(shown(elsewhere.path()), shown(folder.path()));
}

#[test]
fn a_copy_that_cannot_be_written_blames_where_it_goes_and_not_the_journal() {
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = copy(a_life().path(), &mut full).unwrap_err().to_string();
    assert!(error.starts_with("the copy cannot be written"), "{error}");
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(copy(nothing.path(), &mut Vec::new()), Err(CopyError::Read(ReadError::Nothing { .. }))));
}

#[test]
fn a_report_of_another_format_is_refused_by_name() {
    let error = source::read(written(&stored_report(9)).path()).unwrap_err().to_string();
    assert!(error.contains("format 9") && error.contains("upgrade"), "{error}");
    // Whatever else that format may hold.
    let mut newer = stored_report(2);
    newer["kind"] = json!({"relocation": "region-b"});
    let error = source::read(written(&newer).path()).unwrap_err().to_string();
    assert!(error.contains("format 2") && error.contains("upgrade"), "{error}");
}

#[test]
fn a_report_whose_moments_lie_ages_apart_is_drawn() {
    let mut report = stored_report(1);
    for deadline in [1u64 << 63, u64::MAX] {
        report["deadline"] = json!(deadline);
        let source = source::read(written(&report).path()).unwrap();
        assert!(drawing::svg(&charts(&source)).into_string().starts_with("<svg"));
    }
}

#[test]
fn every_evacuation_of_a_journal_is_drawn_and_a_journal_without_any_is_no_error_but_for_a_drawing() {
    let folder = a_life();
    live(folder.path(), 9_000);
    let drawn = charts(&source::read(folder.path()).unwrap());
    assert_eq!(drawn.len(), 1, "two lives under one notice are one evacuation: {drawn:#?}");
    let nothing = a_life();
    edit(nothing.path(), |lines| {
        let notice = lines.iter().position(|line| line.contains("\"notice_received\"")).unwrap();
        lines.truncate(notice);
    });
    assert!(charts(&source::read(nothing.path()).unwrap()).is_empty());
    let asked = |output, replay| run(&TimelineArgs { journal: nothing.path().to_owned(), replay, output });
    assert_eq!((asked(TimelineOutput::Svg, false), asked(TimelineOutput::Html, false)), (exit::NO, 0));
    assert_eq!(
        (asked(TimelineOutput::Svg, true), asked(TimelineOutput::Html, true)),
        (exit::USAGE, exit::USAGE)
    );
    let report = written(&stored_report(1));
    let asked = |output, replay| run(&TimelineArgs { journal: report.path().to_owned(), replay, output });
    assert_eq!(asked(TimelineOutput::Text, true), exit::NO, "a report cannot be replayed");
    assert_eq!(
        [TimelineOutput::Text, TimelineOutput::Json, TimelineOutput::Svg, TimelineOutput::Html]
            .map(|output| asked(output, false)),
        [0; 4]
    );
}
