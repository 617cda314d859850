//! A chart as SVG: one row for each pod, above what became of its state, below what it did itself.
//!
//! Decides where everything is. It must not know journals; what is drawn was decided by [`evacuation::timeline::chart`].

mod layout;
mod legend;
#[cfg(test)]
mod tests;

use super::markup::{Attribute, Markup};
use evacuation::notice::NoticeKind;
use evacuation::report::StateOutcome;
use layout::{Layout, PLOT_END, WIDTH, fit, wide};
use trace::timeline::chart::{Bar, Chart, End, Row, Work};
use trace::timeline::{bytes, departure_word, stamp, state_word};

/// Colours that are told apart with any kind of colour vision (Okabe and Ito, <https://jfly.uni-koeln.de/color/>; teal:
/// Tol, <https://personal.sron.nl/~pault/>), on white and on black. What has gone wrong has an outline besides.
const STYLE: &str = "<style>\
svg.lifeboat{font-family:system-ui,-apple-system,'Segoe UI',sans-serif;font-size:12px}\
.bg{fill:#fff}.stripe{fill:#f4f5f7}.ink{fill:#1b1e23}.mute{fill:#5b6169}.in{fill:#111;font-size:10px}.light{fill:#fff}.faint{fill:#111}\
.grid{stroke:#d9dce1}.axis{stroke:#5b6169}.mark{stroke:#5b6169;stroke-dasharray:3 3}.limit{stroke:#c43c00;stroke-width:1.5}\
.cut{stroke:#c43c00;stroke-width:1.5}.bad{fill:#c43c00}.refused{stroke:#c43c00;stroke-width:1.5;fill:none}\
.bar{stroke:none}.flush{fill:#e69f00}.save{fill:#0072b2}.commit{fill:#009e73}.fetch{fill:#56b4e9}.import{fill:#f0e442}\
.held{fill:#cc79a7}.restoring{fill:#44aa99}.ending{fill:#a3a9b1}\
.pre{fill-opacity:.45}.failed{stroke:#c43c00;stroke-width:1.5}.open{stroke:#5b6169;stroke-dasharray:2 2}\
@media (prefers-color-scheme:dark){.bg{fill:#15171b}.stripe{fill:#1d2025}.ink{fill:#e8eaed}.mute{fill:#a3a9b1}\
.grid{stroke:#32363d}.axis,.mark{stroke:#a3a9b1}.limit,.cut,.refused,.failed{stroke:#ff8a50}.bad{fill:#ff8a50}\
.open{stroke:#e8eaed}.ending{fill:#7b828c}.save{fill:#3d9bd6}.light{fill:#111}.faint{fill:#e8eaed}}\
</style>";

/// Height of a row, and of its two lanes from its top.
const ROW: f64 = 40.0;
const STATE: (f64, f64) = (5.0, 15.0);
const POD: (f64, f64) = (24.0, 9.0);

/// The least width of a bar: what took no time is seen all the same.
const LEAST: f64 = 2.5;

/// The charts, one below the other.
pub(super) fn svg(charts: &[Chart]) -> Markup {
    let mut panels = Markup::default();
    let mut height = 0.0;
    for chart in charts {
        let layout = Layout::of(chart, height);
        panel(&mut panels, chart, &layout);
        height = layout.bottom;
    }
    let mut markup = Markup::default();
    let size = format!("0 0 {WIDTH} {height}");
    markup.open(
        "svg",
        &[
            ("xmlns", &"http://www.w3.org/2000/svg"),
            ("class", &"lifeboat"),
            ("role", &"img"),
            ("viewBox", &size),
            ("width", &WIDTH),
            ("height", &height),
        ],
    );
    let titles: Vec<_> = charts.iter().map(title).collect();
    markup.element("title", &[], &titles.join("; "));
    markup.literal(STYLE);
    markup.empty("rect", &[("class", &"bg"), ("width", &WIDTH), ("height", &height)]);
    markup.append(&panels);
    markup.close("svg");
    markup
}

/// What the picture is of.
pub(super) fn title(chart: &Chart) -> String {
    let node = chart.node.as_deref().unwrap_or("a node");
    match chart.kind {
        Some(NoticeKind::Drill) => format!("{node}: a drill"),
        Some(kind) => format!("{node}: evacuation ({})", kind.as_str()),
        None => format!("{node}: no evacuation"),
    }
}

/// What came of it, in a line.
pub(super) fn outcome(chart: &Chart) -> String {
    let Some(report) = &chart.report else {
        return match chart.kind {
            Some(_) => "no report was written".to_owned(),
            None => format!("T = {}", chart.zero_is),
        };
    };
    let mut parts = Vec::new();
    for &state in StateOutcome::ALL {
        let count = report.pods.iter().filter(|pod| pod.state == state).count();
        if count > 0 && state != StateOutcome::None {
            parts.push(format!("{count} {}", state_word(state)));
        }
    }
    let gone = report.pods.iter().filter(|pod| pod.gone.is_some()).count();
    parts.push(format!("{gone} gone"));
    let complete = if report.complete { "complete" } else { "not complete" };
    format!("{complete} at {}: {}", stamp(report.written, chart.zero), parts.join(", "))
}

fn panel(markup: &mut Markup, chart: &Chart, layout: &Layout) {
    text(markup, "ink", 16.0, layout.top + 26.0, &title(chart), &[("font-size", &16), ("font-weight", &600)]);
    text(markup, "mute", 16.0, layout.top + 44.0, &outcome(chart), &[]);
    legend::draw(markup, chart, layout.legend);
    for (number, _) in (0u32..).zip(&chart.rows).filter(|(number, _)| number % 2 == 0) {
        let top = layout.rows + f64::from(number) * ROW;
        markup.empty("rect", &[("class", &"stripe"), ("y", &top), ("width", &WIDTH), ("height", &ROW)]);
    }
    axis(markup, chart, layout);
    marks(markup, chart, layout);
    for (number, row) in (0u32..).zip(&chart.rows) {
        draw_row(markup, chart, layout, row, layout.rows + f64::from(number) * ROW);
    }
    if chart.by_report {
        let note =
            "Drawn from a report, which has no beginning of a flush or a save in it: the node's journal has.";
        text(markup, "mute", 16.0, layout.bottom - 10.0, note, &[]);
    }
}

fn draw_row(markup: &mut Markup, chart: &Chart, layout: &Layout, row: &Row, top: f64) {
    let room = layout.names();
    markup.open("g", &[]);
    markup.element("title", &[], &format!("{}: {}", row.name, about(row)));
    text(markup, "ink", 16.0, top + 17.0, &fit(&row.name, room, 13.0), &[("font-size", &13)]);
    let lost = row.outcome.as_ref().is_some_and(|pod| pod.state == StateOutcome::Lost);
    let class = if lost { "bad" } else { "mute" };
    text(markup, class, 16.0, top + 32.0, &fit(&about(row), room, 11.0), &[("font-size", &11)]);
    markup.close("g");
    // What would cover the bar before it pixel by pixel is not drawn again: a journal may hold thousands.
    let mut before = None;
    let held = |bar: &&Bar| bar.work == Work::Held;
    for bar in row.bars.iter().filter(|bar| !held(bar)).chain(row.bars.iter().filter(held)) {
        let (from, to) = (layout.x(bar.from), layout.x(bar.to));
        let place = (bar.work, bar.end == End::Failed, from.round() as i64, to.round() as i64);
        if before.replace(place) != Some(place) {
            draw_bar(markup, chart, bar, top, from, to);
        }
    }
    if let Some(at) = row.cutoff {
        let x = layout.x(at);
        markup.open("g", &[]);
        markup.element("title", &[], &format!("cut-off of {}, {}", row.name, stamp(at, chart.zero)));
        let (from, to) = (top + 2.0, top + ROW - 2.0);
        markup
            .empty("line", &[("class", &"cut"), ("x1", &px(x)), ("x2", &px(x)), ("y1", &from), ("y2", &to)]);
        let flag = format!("M{} {from}h7l-3.5 5z", px(x - 3.5));
        markup.empty("path", &[("class", &"bad"), ("d", &flag)]);
        markup.close("g");
    }
    let mut last = f64::MIN;
    for at in &row.refusals {
        let x = layout.x(*at);
        if x - last >= 3.0 {
            let y = top + POD.0 + POD.1 / 2.0;
            let cross = format!("M{} {}l5 5m0 -5l-5 5", px(x - 2.5), y - 2.5);
            markup.open("path", &[("class", &"refused"), ("d", &cross)]);
            markup.element("title", &[], &format!("eviction refused, {}", stamp(*at, chart.zero)));
            markup.close("path");
            last = x;
        }
    }
}

fn draw_bar(markup: &mut Markup, chart: &Chart, bar: &Bar, top: f64, from: f64, to: f64) {
    let (lane, height) = match bar.work {
        // It is part of the pod's end, and drawn inside it.
        Work::Held => (POD.0 + 2.5, POD.1 - 5.0),
        work if work.is_the_pods() => POD,
        _ => STATE,
    };
    let width = (to - from).max(LEAST);
    let mut class = format!("bar {}", class(bar.work));
    class.push_str(if bar.pre_copy { " pre" } else { "" });
    class.push_str(match bar.end {
        End::Done => "",
        End::Failed => " failed",
        End::Open => " open",
    });
    let place = [&px(from), &px(top + lane), &px(width), &px(height)];
    let [x, y, width_, height_] = place;
    markup.open(
        "rect",
        &[("class", &class), ("x", x), ("y", y), ("width", width_), ("height", height_), ("rx", &1.5)],
    );
    markup.element("title", &[], &tip(chart, bar));
    markup.close("rect");
    let word = if bar.pre_copy { "pre-copy" } else { bar.work.as_str() };
    if !bar.work.is_the_pods() && wide(word, 10.0) + 6.0 <= width {
        let class = match (bar.pre_copy, bar.work) {
            (true, _) => "in faint",
            (false, Work::Save) => "in light",
            (false, _) => "in",
        };
        text(markup, class, from + 4.0, top + lane + 11.0, word, &[]);
    }
}

/// What is said where one points at a bar.
fn tip(chart: &Chart, bar: &Bar) -> String {
    let word =
        if bar.pre_copy { format!("pre-copy, {}", bar.work.as_str()) } else { bar.work.as_str().to_owned() };
    let (from, to) = (stamp(bar.from, chart.zero), stamp(bar.to, chart.zero));
    let when = match bar.end {
        End::Open => format!("from {from}, its end is not known"),
        End::Done | End::Failed if bar.from == bar.to => format!("at {from}"),
        End::Done | End::Failed => format!("{from} to {to}"),
    };
    if bar.told.is_empty() { format!("{word}, {when}") } else { format!("{word}, {when}: {}", bar.told) }
}

/// The second line of a row's name.
fn about(row: &Row) -> String {
    let mut parts = Vec::new();
    if let Some(pod) = &row.outcome {
        if pod.state != StateOutcome::None {
            parts.push(state_word(pod.state).to_owned());
        }
        if pod.bytes > 0 {
            parts.push(bytes(pod.bytes));
        }
        if pod.state == StateOutcome::None || pod.gone.is_none() {
            parts.push(departure_word(pod.departure).to_owned());
        }
    }
    parts.extend(row.priority.map(|priority| format!("priority {priority}")));
    parts.join(", ")
}

fn axis(markup: &mut Markup, chart: &Chart, layout: &Layout) {
    let base = layout.rows + layout.rows_height;
    for at in layout.ticks() {
        let x = px(layout.x_of_ms(at));
        markup.empty(
            "line",
            &[("class", &"grid"), ("x1", &x), ("x2", &x), ("y1", &layout.rows), ("y2", &base)],
        );
        let second = format!("{}", at as f64 / 1000.0);
        text(markup, "mute", layout.x_of_ms(at), base + 16.0, &second, &[("text-anchor", &"middle")]);
    }
    let (from, to) = (px(layout.left), px(PLOT_END));
    markup.empty("line", &[("class", &"axis"), ("x1", &from), ("x2", &to), ("y1", &base), ("y2", &base)]);
    let unit = format!("seconds since {}", chart.zero_is);
    text(markup, "mute", PLOT_END, base + 32.0, &unit, &[("text-anchor", &"end")]);
}

fn marks(markup: &mut Markup, chart: &Chart, layout: &Layout) {
    let base = layout.rows + layout.rows_height;
    for (mark, label) in chart.marks.iter().zip(layout.labels()) {
        let x = px(layout.x(mark.at));
        let (line, words) = if mark.limit { ("limit", "bad") } else { ("mark", "mute") };
        markup.open("g", &[]);
        markup.element("title", &[], &format!("{}, {}", mark.what, stamp(mark.at, chart.zero)));
        markup.empty(
            "line",
            &[("class", &line), ("x1", &x), ("x2", &x), ("y1", &(label.y - 9.0)), ("y2", &base)],
        );
        let anchor = if label.leftwards { "end" } else { "start" };
        text(markup, words, label.x, label.y, &mark.what, &[("text-anchor", &anchor), ("font-size", &11)]);
        markup.close("g");
    }
}

fn text(markup: &mut Markup, class: &str, x: f64, y: f64, what: &str, more: &[Attribute<'_>]) {
    let (x, y) = (px(x), px(y));
    let place: [Attribute<'_>; 3] = [("class", &class), ("x", &x), ("y", &y)];
    markup.element("text", &[&place, more].concat(), what);
}

/// The name of its colour.
const fn class(work: Work) -> &'static str {
    match work {
        Work::Flush => "flush",
        Work::Save => "save",
        Work::Commit => "commit",
        Work::Fetch => "fetch",
        Work::Import => "import",
        Work::Held => "held",
        Work::Restoring => "restoring",
        Work::Ending => "ending",
    }
}

/// A tenth of a pixel is enough.
fn px(at: f64) -> String {
    format!("{at:.1}")
}
