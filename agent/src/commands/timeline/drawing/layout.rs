//! Where everything is: the column of names, the scale of time, the labels of the marks.
//!
//! Decides distances. It must not know colours.

use super::{ROW, legend};
use evacuation::moment::Moment;
use trace::timeline::chart::{Chart, Mark, Row};

/// The picture's width, in pixels at its own size.
pub(super) const WIDTH: f64 = 1120.0;

/// Where time ends.
pub(super) const PLOT_END: f64 = WIDTH - 24.0;

/// Steps between two figures of the axis, in seconds: the first that leaves room enough is taken.
const STEPS: [u64; 16] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 43_200];

/// What lies between two figures at least.
const APART: f64 = 52.0;

/// Height of a line of labels.
pub(super) const LINE: f64 = 14.0;

/// One panel.
pub(super) struct Layout {
    pub(super) top: f64,
    pub(super) legend: f64,
    marks: f64,
    pub(super) rows: f64,
    pub(super) rows_height: f64,
    pub(super) bottom: f64,
    pub(super) left: f64,
    from: Moment,
    to: Moment,
    zero: Moment,
    labels: Vec<DrawnLabel>,
}

/// Where a mark's words are.
pub(super) struct DrawnLabel {
    pub(super) x: f64,
    pub(super) y: f64,
    /// They end at their line, since the picture ends behind it.
    pub(super) leftwards: bool,
}

impl Layout {
    /// That of one chart, from `top` on.
    pub(super) fn of(chart: &Chart, top: f64) -> Self {
        let column = |row: &Row| wide(&row.name, 13.0).max(wide(&super::about(row), 11.0));
        let longest = chart.rows.iter().map(column).fold(0.0, f64::max);
        let mut layout = Self {
            top,
            legend: top + 66.0,
            marks: 0.0,
            rows: 0.0,
            rows_height: ROW * chart.rows.len().max(1) as f64,
            bottom: 0.0,
            left: (longest + 32.0).clamp(190.0, 320.0),
            from: chart.from,
            to: chart.to,
            zero: chart.zero,
            labels: Vec::new(),
        };
        layout.marks = layout.legend + LINE * legend::lines(chart) as f64 + 2.0;
        let lines = layout.place(&chart.marks);
        layout.rows = layout.marks + LINE * lines as f64 + 6.0;
        let note = if chart.by_report { 24.0 } else { 0.0 };
        layout.bottom = layout.rows + layout.rows_height + 48.0 + note;
        layout
    }

    /// Where a moment is.
    pub(super) fn x(&self, at: Moment) -> f64 {
        let whole = self.to.since(self.from).as_millis().max(1) as f64;
        self.left + at.since(self.from).as_millis() as f64 / whole * (PLOT_END - self.left)
    }

    /// Where so many milliseconds after `T` are.
    pub(super) fn x_of_ms(&self, at: i64) -> f64 {
        let from = self.from.as_millis() as f64 - self.zero.as_millis() as f64;
        let whole = self.to.since(self.from).as_millis().max(1) as f64;
        self.left + (at as f64 - from) / whole * (PLOT_END - self.left)
    }

    /// The figures of the axis, in milliseconds after `T`.
    pub(super) fn ticks(&self) -> Vec<i64> {
        let whole = self.to.since(self.from).as_millis().max(1) as f64;
        let room = |step: &u64| *step as f64 * 1000.0 / whole * (PLOT_END - self.left) >= APART;
        let last = STEPS[STEPS.len() - 1];
        // A picture of weeks: as many days as leave room.
        let beyond = || last * (whole / 1000.0 / last as f64 / 10.0).ceil().max(1.0) as u64;
        let step = STEPS.into_iter().find(room).unwrap_or_else(beyond) as i64 * 1000;
        // A report says what it likes: two of its moments may lie further apart than the type can tell.
        let after = |at: Moment| i128::from(at.as_millis()) - i128::from(self.zero.as_millis());
        let clamped = |at| i64::try_from(after(at).max(i64::MIN.into())).unwrap_or(i64::MAX);
        let (from, to) = (clamped(self.from), clamped(self.to));
        let first = from.div_euclid(step) + i64::from(from.rem_euclid(step) != 0);
        (first..=to.div_euclid(step)).map(|number| number * step).collect()
    }

    /// The room for names, in pixels.
    pub(super) fn names(&self) -> f64 {
        self.left - 32.0
    }

    /// One label for each mark of the chart.
    pub(super) fn labels(&self) -> &[DrawnLabel] {
        &self.labels
    }

    /// Places the labels in as many lines as it takes for none to cover another; that many.
    fn place(&mut self, marks: &[Mark]) -> usize {
        let mut ends: Vec<Vec<(f64, f64)>> = Vec::new();
        for mark in marks {
            let (line, long) = (self.x(mark.at), wide(&mark.what, 11.0));
            let leftwards = line + 4.0 + long > WIDTH;
            let x = if leftwards { line - 4.0 } else { line + 4.0 };
            let (from, to) = if leftwards { (x - long, line) } else { (line, x + long) };
            let free = |taken: &Vec<(f64, f64)>| taken.iter().all(|(a, b)| to + 4.0 < *a || from > *b + 4.0);
            let number = ends.iter().position(free).unwrap_or_else(|| {
                ends.push(Vec::new());
                ends.len() - 1
            });
            ends[number].push((from, to));
            let y = self.marks + LINE * (number as f64 + 1.0) - 3.0;
            self.labels.push(DrawnLabel { x, y, leftwards });
        }
        ends.len()
    }
}

/// About how wide the text is: the picture knows no fonts.
pub(super) fn wide(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

/// As much of the text as there is room for.
pub(super) fn fit(text: &str, room: f64, size: f64) -> String {
    let letters = (room / (size * 0.56)) as usize;
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(letters.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}
