//! One page that needs nothing else: the drawing, a table of the pods, and the timeline as text.
//!
//! Decides what is on it. It must not know where it came from; it asks no server for anything, and says so to the browser.

use super::drawing;
use super::markup::Markup;
use evacuation::moment::Moment;
use evacuation::report::{PodReport, Report, StateOutcome};
use trace::timeline::chart::Chart;
use trace::timeline::{bytes, departure_word, stamp, state_word};

/// Nothing is loaded and nothing runs, whatever a name in it says.
const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
<meta name=\"color-scheme\" content=\"light dark\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n";

const STYLE: &str = "<style>\
body{font-family:system-ui,-apple-system,'Segoe UI',sans-serif;font-size:14px;margin:1.5rem;max-width:1160px;color:#1b1e23;background:#fff}\
h1{font-size:1.2rem}h2{font-size:1.05rem;margin-top:2rem}figure{margin:0;overflow-x:auto}svg{max-width:100%;height:auto}\
.table{overflow-x:auto}table{border-collapse:collapse;margin-top:1rem}th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #d9dce1;vertical-align:top}\
td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}tr.lost td{font-weight:600}.lost .state{color:#c43c00}\
td.why{min-width:16rem;max-width:30rem;overflow-wrap:anywhere}pre{overflow-x:auto;font-size:12px;line-height:1.45}footer,.quiet{color:#5b6169}\
@media (prefers-color-scheme:dark){body{color:#e8eaed;background:#15171b}th,td{border-color:#32363d}.lost .state{color:#ff8a50}footer,.quiet{color:#a3a9b1}}\
</style></head><body>\n";

/// The page: a section for each chart, then everything as text.
pub(super) fn html(charts: &[Chart], text: &str) -> Markup {
    let titles: Vec<_> = charts.iter().map(drawing::title).collect();
    let title = if titles.is_empty() { "lifeboat timeline".to_owned() } else { titles.join("; ") };
    let mut markup = Markup::default();
    markup.literal(HEAD);
    markup.element("title", &[], &title);
    markup.literal(STYLE);
    markup.element("h1", &[], &title);
    if charts.is_empty() {
        markup.element("p", &[("class", &"quiet")], "Nothing took any time: there was nothing to draw.");
    }
    for chart in charts {
        if charts.len() > 1 {
            markup.element("h2", &[], &drawing::title(chart));
        }
        markup.open("figure", &[]);
        markup.append(&drawing::svg(std::slice::from_ref(chart)));
        markup.close("figure");
        chart.report.iter().for_each(|report| table(&mut markup, report, chart.zero));
    }
    markup.element("h2", &[], "As text");
    markup.open("pre", &[]);
    markup.lines(text);
    markup.close("pre");
    markup.element("footer", &[], concat!("lifeboat ", env!("CARGO_PKG_VERSION"), ", lifeboat timeline"));
    markup.literal("</body></html>\n");
    markup
}

/// The pods of a report.
fn table(markup: &mut Markup, report: &Report, zero: Moment) {
    const HEADS: [(&str, &str); 10] = [
        ("", "Pod"),
        ("n", "Priority"),
        ("", "It is"),
        ("", "Its state is"),
        ("n", "In the store"),
        ("n", "Sent at the end"),
        ("n", "Evicted"),
        ("n", "Committed"),
        ("n", "Gone"),
        ("why", "Why"),
    ];
    markup.literal("<div class=\"table\"><table><thead><tr>");
    for (class, head) in HEADS {
        markup.element("th", &[("class", &class), ("scope", &"col")], head);
    }
    markup.literal("</tr></thead><tbody>\n");
    for pod in &report.pods {
        let lost = pod.state == StateOutcome::Lost;
        markup.open("tr", &[("class", &if lost { "lost" } else { "" })]);
        for ((class, _), cell) in HEADS.iter().zip(cells(pod, zero)) {
            let class = if cell == state_word(pod.state) { "state" } else { class };
            markup.element("td", &[("class", &class)], &cell);
        }
        markup.close("tr");
    }
    markup.literal("</tbody></table></div>\n");
}

fn cells(pod: &PodReport, zero: Moment) -> [String; 10] {
    let at = |moment: Option<Moment>| moment.map(|moment| stamp(moment, zero)).unwrap_or_default();
    let has_state = pod.state != StateOutcome::None;
    let of_state = |figure: u64| if has_state { bytes(figure) } else { String::new() };
    let mut why: Vec<&str> = pod.reason.iter().chain(&pod.state_reason).map(String::as_str).collect();
    why.dedup();
    let refusals = match pod.refusals {
        0 => String::new(),
        1 => "an eviction was refused".to_owned(),
        n => format!("{n} evictions were refused"),
    };
    if !refusals.is_empty() {
        why.push(&refusals);
    }
    [
        format!("{}/{}", pod.namespace, pod.name),
        pod.priority.to_string(),
        departure_word(pod.departure).to_owned(),
        state_word(pod.state).to_owned(),
        of_state(pod.bytes),
        of_state(pod.sent),
        at(pod.evicted),
        at(pod.committed),
        at(pod.gone),
        why.join("; "),
    ]
}
