//! Whole evacuations as a person reads them, compared with the files in `golden/`.
//!
//! `INSTA_UPDATE=always cargo test -p trace --test timelines` writes them all anew; then read what changed.

mod actor;
// The simulation's: one way in which saves share an uplink.
#[path = "../simulation/link.rs"]
#[expect(dead_code, reason = "the rate of a golden timeline never changes")]
mod link;
mod outside;
mod scenarios;
mod world;

use evacuation::Machine;
use scenarios::Golden;
use std::path::Path;
use trace::timeline::chart::{Bar, Chart, End, Work};

fn text(golden: &Golden) -> String {
    let head: Vec<_> = golden.head.lines().map(|line| format!("# {}\n", line.trim())).collect();
    format!("{}{}", head.concat(), golden.world.text())
}

#[test]
fn every_timeline_reads_as_its_golden_file_says() {
    let goldens = scenarios::all();
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for golden in &goldens {
            insta::assert_snapshot!(golden.name, text(golden));
        }
    });
    // Nor is a file left without a scenario.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/timelines/golden");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut there: Vec<_> =
        names.filter_map(|name| Some(name.to_str()?.strip_suffix(".snap")?.to_owned())).collect();
    let mut wanted: Vec<_> = goldens.iter().map(|golden| golden.name).collect();
    there.sort();
    wanted.sort();
    assert_eq!(there, wanted);
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
