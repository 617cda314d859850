use super::*;
use crate::commands::timeline::web_page;
use evacuation::effect::{Action, Effect, EffectId, FlushKind, Hold, NodeAction, PodAction};
use evacuation::event::{Done, Event, FailureKind, NodeFacts, Outcome};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{ActiveNotice, InstanceAction, Notice};
use evacuation::pod::{PodFacts, PodUid};
use evacuation::report::{DepartureOutcome, PodReport, Report};
use std::path::Path;
use trace::Step;
use trace::timeline::Timeline;

/// What a pod must not be able to do with its name.
const HOSTILE: &str = "<script>alert('x')</script>\" onload=\"alert(1)";

const TERMINATE: NoticeKind = NoticeKind::Interruption(InstanceAction::Terminate);

fn at(ms: u64) -> Moment {
    Moment::from_millis(10_000 + ms)
}

fn uid(name: &str) -> PodUid {
    PodUid(format!("uid of {name}"))
}

/// One life that is written by hand: milliseconds after the notice.
#[derive(Default)]
struct Life(Vec<Step>, u64);

impl Life {
    fn event(&mut self, ms: u64, event: Event) {
        self.0.push(Step { at: at(ms), event, effects: Vec::new() });
    }

    fn seen(&mut self, name: &str, priority: i32) {
        let facts =
            serde_json::json!({"uid": uid(name), "namespace": "chat", "name": name, "priority": priority});
        let facts: PodFacts = serde_json::from_value(facts).unwrap();
        self.event(0, Event::PodUpdated(Box::new(facts)));
    }

    /// Asked for at the one moment, and answered at the other.
    fn work(&mut self, from: u64, to: u64, action: Action, outcome: Outcome) {
        self.1 += 1;
        let effect = Effect { id: EffectId(self.1), deadline: at(999_999), attempt: 1, action };
        self.0.push(Step { at: at(from), event: Event::TimerFired, effects: vec![effect] });
        self.event(to, Event::Answered { id: EffectId(self.1), outcome });
    }

    fn done(&mut self, from: u64, to: u64, action: Action, done: Done) {
        self.work(from, to, action, Outcome::Done(done));
    }
}

fn reported(name: &str, priority: i32, state: StateOutcome, bytes: u64) -> PodReport {
    PodReport {
        uid: uid(name).0,
        namespace: "chat".into(),
        name: name.into(),
        priority,
        departure: DepartureOutcome::Gone,
        reason: Some("a <b>reason</b>".into()),
        state,
        state_reason: None,
        generation: None,
        bytes,
        sent: bytes / 2,
        refusals: 1,
        evicted: Some(at(50)),
        committed: Some(at(41_000)),
        gone: Some(at(42_500)),
    }
}

fn report() -> Report {
    Report {
        format: 1,
        node: "node-a".into(),
        boot: "boot".into(),
        notice: "n".into(),
        kind: TERMINATE,
        short: false,
        withdrawn: false,
        noticed: at(0),
        deadline: at(115_000),
        cordoned: Some(at(60)),
        written: at(101_000),
        complete: true,
        pods: vec![
            reported("gold", 1000, StateOutcome::Saved, 3 << 30),
            reported(HOSTILE, 10, StateOutcome::Lost, 0),
        ],
    }
}

/// Everything that is drawn in another way, once.
fn steps() -> Vec<Step> {
    let mut life = Life::default();
    let (gold, bad) = (|| uid("gold"), || uid(HOSTILE));
    let (pre_copy, last) = (FlushKind::PreCopy, FlushKind::Final);
    let node = NodeFacts {
        name: "node-a".into(),
        unschedulable: false,
        tainted: false,
        active_notice: None,
        over: Vec::new(),
    };
    life.event(0, Event::AgentStarted { boot: "boot".into(), slept: Span::ZERO });
    life.event(0, Event::NodeRead(node));
    life.seen("gold", 1000);
    life.seen(HOSTILE, 10);
    life.event(
        0,
        Event::NoticeReceived(Notice {
            kind: TERMINATE,
            id: "n".into(),
            seen: at(0),
            left_ms: 120_000,
            event: None,
        }),
    );
    let active_notice = ActiveNotice {
        notice: "n".into(),
        kind: TERMINATE,
        boot: "boot".into(),
        began: at(0),
        deadline: at(115_000),
        hard: true,
        was_schedulable: true,
    };
    life.done(0, 60, Action::Node(NodeAction::MarkNode(active_notice)), Done::Nothing);
    let intend = |pod, by| Action::Pod {
        uid: pod,
        action: PodAction::WriteIntent { departure: "n".into(), by: at(by) },
    };
    life.done(0, 30, intend(gold(), 112_000), Done::IntentWritten { committed: None, evidence: true });
    life.done(0, 30, intend(bad(), 98_000), Done::IntentWritten { committed: None, evidence: true });
    life.done(
        30,
        40,
        Action::Pod { uid: gold(), action: PodAction::SetHold { hold: Hold::Until(at(115_000)) } },
        Done::Nothing,
    );
    life.done(
        40,
        50,
        Action::Pod { uid: gold(), action: PodAction::Evict { grace: Span::from_secs(114) } },
        Done::Nothing,
    );
    let refused = Outcome::Failed { kind: FailureKind::Refused, why: "a budget".into() };
    life.work(
        40,
        80,
        Action::Pod { uid: bad(), action: PodAction::Evict { grace: Span::from_secs(30) } },
        refused,
    );
    life.done(
        100,
        9_000,
        Action::Pod { uid: gold(), action: PodAction::Save { kind: pre_copy, rank: 0 } },
        saved(1 << 30),
    );
    life.done(
        9_000,
        12_000,
        Action::Pod { uid: gold(), action: PodAction::Flush { kind: last } },
        Done::Flushed { bytes: 3 << 30, evidence: true },
    );
    life.done(
        12_000,
        40_000,
        Action::Pod { uid: gold(), action: PodAction::Save { kind: last, rank: 0 } },
        saved(3 << 30),
    );
    let generation = Done::Committed { generation: "g".into(), bytes: 3 << 30 };
    life.done(
        40_000,
        41_000,
        Action::Pod {
            uid: gold(),
            action: PodAction::Commit { kind: last, partial: false, without_endangered: false },
        },
        generation,
    );
    life.done(
        41_000,
        41_010,
        Action::Pod { uid: gold(), action: PodAction::SetHold { hold: Hold::Released } },
        Done::Nothing,
    );
    life.event(42_500, Event::PodRemoved(gold()));
    life.work(
        5_000,
        97_000,
        Action::Pod { uid: bad(), action: PodAction::Flush { kind: last } },
        Outcome::TimedOut,
    );
    life.done(
        98_000,
        98_040,
        Action::Pod { uid: bad(), action: PodAction::DeletePod { grace: Span::from_secs(16) } },
        Done::Nothing,
    );
    life.done(101_000, 101_050, Action::Node(NodeAction::WriteReport(Box::new(report()))), Done::Nothing);
    life.0.sort_by_key(|step| step.at);
    life.0
}

fn saved(bytes: u64) -> Done {
    Done::Saved { bytes, sent: bytes, left_out: None, newest: None }
}

fn drawn() -> (Vec<Chart>, String) {
    let charts = Chart::all(&steps());
    let svg = svg(&charts).into_string();
    (charts, svg)
}

fn page() -> String {
    let (charts, _) = drawn();
    web_page::html(&charts, &Timeline::of(&steps()).text()).into_string()
}

/// Every element that is opened is closed, in order; nothing but tags begins with `<`.
fn is_well_formed(markup: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in markup.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{markup}");
        } else if !tag.ends_with('/') && !tag.starts_with('!') && !tag.starts_with("meta") {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_drawing_is_the_one_that_was_looked_at() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/timeline/drawing/golden.svg");
    let (_, svg) = drawn();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &svg).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let parts = wanted.lines().zip(svg.lines()).find(|(wanted, got)| wanted != got);
    assert!(wanted == svg, "UPDATE_DOCS=1 draws it anew: look at it then. The first difference: {parts:#?}");
}

#[test]
fn what_a_pod_is_called_is_text_and_never_markup() {
    let (_, svg) = drawn();
    for markup in [svg, page()] {
        is_well_formed(&markup);
        assert!(markup.contains("&lt;script&gt;alert("), "it is told all the same: {markup}");
        for hostile in ["<script", "<b>", "alert(1)\"", " onload=\""] {
            assert!(!markup.contains(hostile), "{hostile} is in {markup}");
        }
    }
}

#[test]
fn the_page_needs_nothing_else_and_says_so_to_the_browser() {
    let page = page();
    let without = page.replace("http://www.w3.org/2000/svg", "");
    for reference in ["http:", "https:", "//", "src=", "href", "url(", "@import", "<link"] {
        assert!(!without.contains(reference), "{reference} is in {page}");
    }
    assert!(page.contains("default-src 'none'"), "{page}");
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("<svg "), "{page}");
    // The table and the text.
    assert!(page.contains("<tr class=\"lost\">") && page.contains("<td class=\"n\">3.0 GiB</td>"), "{page}");
    assert!(page.contains(" T+9.0    gold"), "{page}");
}

/// `x` and `width` of each bar.
fn bars(svg: &str) -> Vec<(f64, f64)> {
    let number = |line: &str, name: &str| -> f64 {
        let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let rects =
        svg.split("<rect ").filter(|rect| rect.starts_with("class=\"bar ") && rect.contains("<title>"));
    rects.map(|rect| (number(rect, "x"), number(rect, "width"))).collect()
}

#[test]
fn bars_are_as_long_as_they_took_and_inside_the_picture() {
    let (charts, svg) = drawn();
    let layout = Layout::of(&charts[0], 0.0);
    let second = (PLOT_END - layout.left) / charts[0].to.since(charts[0].from).as_millis() as f64 * 1000.0;
    let bars = bars(&svg);
    assert!(bars.iter().all(|(x, width)| *x >= layout.left && x + width <= PLOT_END + LEAST), "{bars:?}");
    // A flush of 3 s, a save of 28 s.
    for took in [3.0, 28.0] {
        assert!(bars.iter().any(|(_, width)| (width - took * second).abs() < 0.2), "{took} s: {bars:?}");
    }
    assert_eq!(bars.len(), charts[0].rows.iter().map(|row| row.bars.len()).sum::<usize>());
}

#[test]
fn the_legend_explains_what_is_there_and_nothing_else() {
    let (charts, svg) = drawn();
    for there in
        ["pre-copy, while it serves", "failed, or cut off", "cut-off of its save", "eviction refused"]
    {
        assert!(svg.contains(there), "{there}");
    }
    assert_eq!(legend::lines(&charts[0]), 2, "nine entries do not fit into one line");
    assert!(!svg.contains("import into the engine") && !svg.contains("restoring: "), "{svg}");
}

#[test]
fn a_report_alone_is_drawn_as_far_as_it_goes_and_says_so() {
    let svg = svg(&[Chart::of_report(&report())]).into_string();
    is_well_formed(&svg);
    assert!(svg.contains("Drawn from a report"), "{svg}");
    // Ended, and committed: two bars a pod.
    assert_eq!(bars(&svg).len(), 4);
    assert!(!drawn().1.contains("Drawn from a report"));
}

#[test]
fn bars_that_would_cover_each_other_are_drawn_once() {
    let (mut charts, svg) = drawn();
    let many = vec![charts[0].rows[0].bars[0].clone(); 10_000];
    charts[0].rows[0].bars.splice(0..0, many);
    assert_eq!(super::svg(&charts).into_string(), svg);
}

#[test]
fn no_label_of_a_mark_covers_another() {
    let (mut charts, _) = drawn();
    let again: Vec<_> = charts[0].marks.iter().cycle().take(40).cloned().collect();
    charts[0].marks = again;
    let layout = Layout::of(&charts[0], 0.0);
    let extent = |number: usize| {
        let (label, long) = (&layout.labels()[number], wide(&charts[0].marks[number].what, 11.0));
        if label.leftwards { (label.x - long, label.x) } else { (label.x, label.x + long) }
    };
    for one in 0..40 {
        assert!(extent(one).1 <= WIDTH, "{one}");
        for other in 0..one {
            let apart = extent(one).1 < extent(other).0 || extent(other).1 < extent(one).0;
            assert!(apart || layout.labels()[one].y != layout.labels()[other].y, "{one} covers {other}");
        }
    }
}
