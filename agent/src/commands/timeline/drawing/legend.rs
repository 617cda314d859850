//! What the colours and signs mean: of those only that are in the picture.

use super::super::markup::Markup;
use super::layout::{LINE, WIDTH, wide};
use super::{class, px, text};
use trace::timeline::chart::{Bar, Chart, End, Work};

/// Where the first entry begins, and how much is between a sign and its words and between two entries.
const LEFT: f64 = 16.0;
const SIGN: f64 = 17.0;
const GAP: f64 = 16.0;

/// What is explained.
enum Sign {
    Bar(String),
    CutOff,
    Refused,
}

/// An entry and its place.
struct Entry {
    sign: Sign,
    words: &'static str,
    x: f64,
    line: usize,
}

/// How many lines it takes.
pub(super) fn lines(chart: &Chart) -> usize {
    entries(chart).last().map_or(0, |entry| entry.line + 1)
}

/// Draws it; `y` is the foot of its first line.
pub(super) fn draw(markup: &mut Markup, chart: &Chart, y: f64) {
    for Entry { sign, words, x, line } in entries(chart) {
        let y = y + LINE * line as f64;
        match sign {
            Sign::Bar(class) => {
                let (left, top) = (px(x), px(y - 9.0));
                markup.empty(
                    "rect",
                    &[
                        ("class", &class),
                        ("x", &left),
                        ("y", &top),
                        ("width", &12),
                        ("height", &10),
                        ("rx", &1.5),
                    ],
                );
            }
            Sign::CutOff => {
                let (at, from, to) = (px(x + 6.0), px(y - 9.0), px(y + 2.0));
                markup.empty(
                    "line",
                    &[("class", &"cut"), ("x1", &at), ("x2", &at), ("y1", &from), ("y2", &to)],
                );
            }
            Sign::Refused => {
                let cross = format!("M{} {}l6 6m0 -6l-6 6", px(x + 3.0), px(y - 7.0));
                markup.empty("path", &[("class", &"refused"), ("d", &cross)]);
            }
        }
        text(markup, "mute", x + SIGN, y, words, &[("font-size", &11)]);
    }
}

fn entries(chart: &Chart) -> Vec<Entry> {
    let any = |wanted: &dyn Fn(&Bar) -> bool| chart.rows.iter().flat_map(|row| &row.bars).any(wanted);
    let drawn = |work: &Work| any(&|bar| bar.work == *work && !bar.pre_copy);
    let bar = |class: &str| Sign::Bar(format!("bar {class}"));
    let mut signs: Vec<(Sign, &'static str)> =
        Work::ALL.iter().copied().filter(drawn).map(|work| (bar(class(work)), meaning(work))).collect();
    if any(&|bar| bar.pre_copy) {
        signs.push((bar("save pre"), "pre-copy, while it serves"));
    }
    if any(&|bar| bar.end == End::Failed) {
        signs.push((bar("bg failed"), "failed, or cut off"));
    }
    if any(&|bar| bar.end == End::Open) {
        signs.push((bar("bg open"), "end not known"));
    }
    if chart.rows.iter().any(|row| row.cutoff.is_some()) {
        signs.push((Sign::CutOff, "cut-off of its save"));
    }
    if chart.rows.iter().any(|row| !row.refusals.is_empty()) {
        signs.push((Sign::Refused, "eviction refused"));
    }
    let (mut x, mut line) = (LEFT, 0);
    let mut place = |(sign, words): (Sign, &'static str)| {
        let long = SIGN + wide(words, 11.0);
        if x + long > WIDTH - LEFT {
            (x, line) = (LEFT, line + 1);
        }
        let entry = Entry { sign, words, x, line };
        x += long + GAP;
        entry
    };
    signs.into_iter().map(&mut place).collect()
}

const fn meaning(work: Work) -> &'static str {
    match work {
        Work::Flush => "flush",
        Work::Save => "save",
        Work::Commit => "commit",
        Work::Fetch => "fetch",
        Work::Import => "import into the engine",
        Work::Held => "held: waits in its eviction",
        Work::Restoring => "restoring: its gate is closed",
        Work::Ending => "evicted, not gone",
    }
}
