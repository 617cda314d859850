//! Whole evacuations as a person reads them, compared with the files in `golden/`.
//!
//! `UPDATE_TIMELINES=1 cargo test -p evacuation --test timelines` writes them all anew; then read what changed.

mod actor;
mod link;
mod outside;
mod scenarios;
mod world;

use evacuation::Machine;
use scenarios::Golden;
use std::path::{Path, PathBuf};
use trace::timeline::chart::{Bar, Chart, End, Work};
use world::World;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/timelines/golden")
}

/// The command that updates was given.
#[expect(clippy::disallowed_methods, reason = "a golden file is written only when a person asks for it")]
fn updating() -> bool {
    std::env::var("UPDATE_TIMELINES").is_ok_and(|value| value == "1")
}

#[expect(clippy::disallowed_methods, reason = "a golden file is written only when a person asks for it")]
fn update(path: &Path, text: &str) {
    assert!(std::fs::write(path, text).is_ok(), "cannot write {}", path.display());
}

fn file(golden: &Golden, world: &World) -> String {
    let head: Vec<_> = golden.head.lines().map(|line| format!("# {}\n", line.trim())).collect();
    format!("{}{}", head.concat(), world.text())
}

/// The first line that differs, with what was wanted and what came.
fn difference(wanted: &str, got: &str) -> Option<String> {
    let mut lines = (1u32..).zip(wanted.lines().map(Some).chain(std::iter::repeat(None)));
    let mut got = got.lines();
    loop {
        let (number, wanted) = lines.next()?;
        let got = got.next();
        if wanted.is_none() && got.is_none() {
            return None;
        }
        if wanted != got {
            return Some(format!("line {number}\n  wanted {wanted:?}\n  got    {got:?}"));
        }
    }
}

#[test]
fn every_timeline_reads_as_its_golden_file_says() {
    let mut wrong = Vec::new();
    for golden in scenarios::all() {
        let path = folder().join(format!("{}.txt", golden.name));
        let text = file(&golden, &golden.world);
        if updating() {
            update(&path, &text);
            continue;
        }
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(difference) = difference(&wanted, &text) {
            wrong.push(format!("{}.txt, {difference}\n", golden.name));
        }
    }
    assert!(wrong.is_empty(), "{}to accept: UPDATE_TIMELINES=1", wrong.concat());
}

#[test]
fn no_golden_file_is_left_without_a_scenario() {
    if updating() {
        return;
    }
    let mut wanted: Vec<_> = scenarios::all().iter().map(|golden| format!("{}.txt", golden.name)).collect();
    let entries = std::fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut there: Vec<_> = names.filter(|name| name.ends_with(".txt")).collect();
    wanted.sort();
    there.sort();
    assert_eq!(wanted, there);
}

#[test]
fn every_golden_timeline_has_charts_that_agree_with_its_reports() {
    let (mut drawn, mut ended) = (0, 0);
    for golden in scenarios::all() {
        let lives = &golden.world.lives;
        for chart in Chart::all(lives.iter().flatten()) {
            let name = golden.name;
            assert!(chart.from < chart.to, "{name}: {chart:#?}");
            for bar in chart.rows.iter().flat_map(|row| &row.bars) {
                let (from, to) = (bar.from.max(chart.from), bar.to.min(chart.to));
                assert!(from <= to && (bar.from, bar.to) == (from, to), "{name}: {bar:?}");
                drawn += 1;
            }
            assert!(chart.marks.iter().all(|mark| (chart.from..=chart.to).contains(&mark.at)), "{name}");
            for row in &chart.rows {
                // A restarted agent's report does not know what was before it.
                let Some(pod) = row.outcome.as_ref().filter(|_| lives.len() == 1) else { continue };
                let whole =
                    |bar: &&Bar| bar.work == Work::Ending && bar.end == End::Done && bar.to < chart.to;
                for ending in row.bars.iter().filter(whole) {
                    assert_eq!(pod.gone, Some(ending.to), "{name}: {}", row.name);
                    ended += 1;
                }
                let committed = row.bars.iter().rfind(|bar| bar.work == Work::Commit && !bar.pre_copy);
                if let (Some(committed), Some(at)) = (committed, pod.committed) {
                    assert_eq!(committed.to, at, "{name}: {}", row.name);
                }
            }
        }
    }
    assert!(drawn > 80 && ended > 20, "{drawn} bars, {ended} ends");
}

#[test]
fn the_steps_of_every_golden_timeline_replay_to_the_same_effects() {
    let mut steps = 0;
    for golden in scenarios::all() {
        for life in &golden.world.lives {
            let mut machine = Machine::new(golden.world.policy().clone());
            for step in life {
                let effects = machine.handle(step.at, step.event.clone());
                assert_eq!(effects, step.effects, "{}: {:?}", golden.name, step.event);
                steps += 1;
            }
        }
    }
    assert!(steps > 1_000, "{steps}");
}
