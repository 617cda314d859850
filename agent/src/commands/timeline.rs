//! `lifeboat timeline`: a journal for people, and the proof that it replays.
//!
//! ```text
//!  journal ─► journal::lives ─► one life after the other ─┬─► evacuation::timeline ─► text or JSON
//!                                                         └─► replay: the same effects, byte for byte
//!                  all lives together, with --replay ───────────► evacuation::guarantees: every guarantee
//!                  all lives together ──────────────────────────► evacuation::timeline::chart ─► SVG or HTML
//!  report ──────────────────────────────────────────────────────► the same, as far as it goes
//! ```

mod drawing;
mod markup;
mod source;
#[cfg(test)]
mod tests;
mod web_page;

use crate::runtime::journal;
use clap::{Args, ValueEnum};
use host::exit;
use serde_json::{Value, json};
use source::Source;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use trace::guarantees::{self, Violation};
use trace::lives::{Life, ReadError};
use trace::replay::Replayed;
use trace::timeline::Timeline;
use trace::timeline::chart::Chart;

/// The arguments of `lifeboat timeline`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 done; 1 the journal cannot be read, or does not replay to the same effects; \
                        64 the command line is wrong."
)]
pub struct TimelineArgs {
    /// An agent's journal, the folder that it got as --state-dir, or a report from the store
    #[arg(value_name = "JOURNAL-OR-STATE-DIR-OR-REPORT")]
    journal: PathBuf,

    /// Feed the events to a fresh core, and compare what it asks for with what is written, byte for byte
    #[arg(long)]
    replay: bool,

    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = TimelineOutput::Text)]
    output: TimelineOutput,
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TimelineOutput {
    /// For people
    Text,
    /// One JSON document
    Json,
    /// A drawing
    Svg,
    /// A page with the drawing, a table of the pods and the text; it needs no other file
    Html,
    /// The journal as it is, to read it elsewhere: the only one that needs no memory for all of it
    Journal,
}

/// Prints it and returns the exit code.
pub fn run(args: &TimelineArgs) -> u8 {
    let refused = |why: &str, code| {
        eprintln!("lifeboat timeline: {why}");
        code
    };
    if args.replay
        && matches!(args.output, TimelineOutput::Svg | TimelineOutput::Html | TimelineOutput::Journal)
    {
        return refused("--replay compares and judges, in words: use --output text or json", exit::USAGE);
    }
    if args.output == TimelineOutput::Journal {
        return match copy(&args.journal, &mut std::io::stdout().lock()) {
            Ok(()) => 0,
            // Whoever reads a pipe may close it.
            Err(CopyError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            Err(error) => refused(&error.to_string(), exit::NO),
        };
    }
    let source = match source::read(&args.journal) {
        Ok(source) => source,
        Err(error) => return refused(&error.to_string(), exit::NO),
    };
    let told = match (&source, args.output) {
        (Source::Report(_), _) if args.replay => {
            return refused("a report cannot be replayed: give the node's journal", exit::NO);
        }
        // Copied above.
        (_, TimelineOutput::Journal) => Told::of(String::new()),
        (Source::Journal(lives), TimelineOutput::Text) => text(lives, args.replay),
        (Source::Journal(lives), TimelineOutput::Json) => document(lives, args.replay),
        (Source::Report(report), TimelineOutput::Text) => Told::of(Timeline::of_report(report).text()),
        (Source::Report(report), TimelineOutput::Json) => {
            Told::of(format!("{:#}\n", json!({ "timeline": Timeline::of_report(report) })))
        }
        (source, TimelineOutput::Svg) => match charts(source).as_slice() {
            [] => {
                return refused(
                    "there is nothing to draw in this journal: --output text tells what there is",
                    exit::NO,
                );
            }
            charts => Told::of(drawing::svg(charts).into_string()),
        },
        (Source::Journal(lives), TimelineOutput::Html) => {
            Told::of(web_page::html(&charts(&source), &text(lives, false).text).into_string())
        }
        (Source::Report(report), TimelineOutput::Html) => {
            Told::of(web_page::html(&charts(&source), &Timeline::of_report(report).text()).into_string())
        }
    };
    // Standard output may be a closed pipe: that is the reader's choice.
    let _ = std::io::stdout().write_all(told.text.as_bytes());
    if told.same { 0 } else { exit::NO }
}

/// Why the journal was not copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What it is copied to takes no more.
    #[error("the copy cannot be written: {0}: send it where there is room")]
    Write(std::io::Error),
}

/// Copies the journal, its older file first. An agent may be writing to it: what it appends meanwhile is copied too, and a
/// last line without an end is what a reader expects of a journal.
fn copy(path: &Path, out: &mut impl std::io::Write) -> Result<(), CopyError> {
    for (path, file) in journal::files(path)? {
        let mut file = BufReader::with_capacity(1 << 16, file);
        loop {
            let read =
                file.fill_buf().map_err(|source| ReadError::Unreadable { path: path.clone(), source })?;
            if read.is_empty() {
                break;
            }
            let count = read.len();
            out.write_all(read).map_err(CopyError::Write)?;
            file.consume(count);
        }
    }
    out.flush().map_err(CopyError::Write)
}

/// Everything that there is to be drawn.
fn charts(source: &Source) -> Vec<Chart> {
    match source {
        Source::Journal(lives) => Chart::all(lives.iter().flat_map(|life| &life.steps)),
        Source::Report(report) => vec![Chart::of_report(report)],
    }
}

/// What is printed, and whether every replay was the same (without one: true).
struct Told {
    text: String,
    same: bool,
}

impl Told {
    /// Without a replay.
    fn of(text: String) -> Self {
        Self { text, same: true }
    }
}

fn text(lives: &[Life], replay: bool) -> Told {
    let mut text = String::new();
    let mut replays = Vec::new();
    for (number, life) in (1..).zip(lives) {
        let agent = life.head.as_ref().map_or("an agent whose version is not known", |head| &head.agent);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Life {number} of {}: lifeboat {agent}{}", lives.len(), remarks(life));
        if replay {
            let replayed = trace::replay::replay(life);
            let _ = writeln!(text, " {replayed}");
            replays.push(replayed);
        } else {
            text.push_str(&Timeline::of(&life.steps).text());
        }
    }
    let violations = judged(lives, replay);
    match violations.as_deref() {
        None => {}
        Some([]) => text.push_str("Guarantees 1 to 11: none is violated in this journal\n"),
        Some(violations) => {
            for violation in violations {
                let _ = writeln!(text, "VIOLATED: {violation}");
            }
        }
    }
    let kept = violations.is_none_or(|violations| violations.is_empty());
    Told { text, same: !replay || (all_same(&replays) && kept) }
}

/// The guarantees that the lives of this journal broke together, judged by rules that share nothing with the core; `None`
/// without a replay, or where the first policy is not known.
fn judged(lives: &[Life], replay: bool) -> Option<Vec<Violation>> {
    let whole = lives.iter().all(Life::is_whole);
    let head = lives.first().and_then(|life| life.head.as_ref()).filter(|_| replay && whole)?;
    Some(guarantees::check(&head.policy, lives.iter().flat_map(|life| &life.steps)))
}

/// Nothing differs, and there was something to compare.
fn all_same(replays: &[Replayed]) -> bool {
    let differs = replays.iter().any(|replayed| matches!(replayed, Replayed::Differs(_)));
    !differs && replays.iter().any(|replayed| matches!(replayed, Replayed::Same { .. }))
}

fn remarks(life: &Life) -> String {
    let mut remarks = String::new();
    if !life.is_whole() {
        remarks.push_str("; its beginning is missing, it was rotated away");
    }
    if life.torn {
        remarks.push_str("; its last line is torn, the agent was killed while it wrote");
    }
    remarks
}

fn document(lives: &[Life], replay: bool) -> Told {
    let mut replays = Vec::new();
    let documents: Vec<Value> = lives
        .iter()
        .map(|life| {
            let mut document = json!({
                "agent": life.head.as_ref().map(|head| &head.agent),
                "beginning_is_missing": !life.is_whole(),
                "last_line_is_torn": life.torn,
                "events": life.steps.len(),
                "timeline": Timeline::of(&life.steps),
            });
            if replay {
                let replayed = trace::replay::replay(life);
                document["replay"] = replayed.document();
                replays.push(replayed);
            }
            document
        })
        .collect();
    let violations = judged(lives, replay);
    let kept = violations.as_ref().is_none_or(Vec::is_empty);
    let text = format!("{:#}\n", json!({ "lives": documents, "violations": violations }));
    Told { text, same: !replay || (all_same(&replays) && kept) }
}
