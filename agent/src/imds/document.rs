//! The documents of IMDS that announce something, and the notices in them.

use super::fault::Fault;
use evacuation::moment::Moment;
use evacuation::notice::{InstanceAction, Notice, NoticeKind, ScheduledEvent};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A document that announces something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Document {
    /// The two-minute notice.
    Interruption,
    /// Elevated risk.
    Rebalance,
    /// Scheduled events.
    Maintenance,
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
#[derive(Deserialize)]
struct InterruptionBody {
    action: InstanceAction,
    time: Timestamp,
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html>
#[derive(Deserialize)]
struct RebalanceBody {
    #[serde(rename = "noticeTime")]
    notice_time: Timestamp,
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instances-status-check_sched.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MaintenanceEvent {
    code: String,
    event_id: String,
    not_before: String,
    #[serde(default)]
    not_after: Option<String>,
    state: String,
}

/// One entry of the list of events.
#[derive(Deserialize)]
#[serde(untagged)]
enum MaintenanceEntry {
    Event(MaintenanceEvent),
    /// Not the known shape.
    Odd(IgnoredAny),
}

/// What a document says.
#[derive(Debug, Default)]
pub(super) struct DocumentContent {
    /// The notices in it.
    pub(super) notices: Vec<Notice>,
    /// The ids of what it says is completed or canceled.
    pub(super) over: Vec<String>,
    /// Why an entry of it could not be read, if one could not: the others count all the same.
    pub(super) odd: Option<Fault>,
}

impl MaintenanceEvent {
    /// Its notice's id: the same whatever its state.
    fn id(&self, time: Timestamp) -> String {
        let kind = NoticeKind::Maintenance.as_str();
        id(&[kind, &self.event_id, &self.code, &time.to_string()])
    }
}

impl Document {
    /// In the order in which they are asked.
    pub(super) const ALL: [Document; 3] =
        [Document::Interruption, Document::Rebalance, Document::Maintenance];

    /// Below `meta-data/`.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Document::Interruption => "spot/instance-action",
            Document::Rebalance => "events/recommendations/rebalance",
            Document::Maintenance => "events/maintenance/scheduled",
        }
    }

    /// What it says, in an answer that was `given` at this time by IMDS's clock and `received` at this moment by the
    /// node's.
    pub(super) fn read(
        self,
        body: &[u8],
        given: Timestamp,
        received: Moment,
    ) -> Result<DocumentContent, Fault> {
        let garbage =
            |error: serde_json::Error| Fault::garbage(self.path(), format!("not the known JSON: {error}"));
        let one = |kind: NoticeKind, time: Timestamp, left_ms| {
            let id = id(&[kind.as_str(), &time.to_string()]);
            let notice = Notice { kind, id, seen: received, left_ms, event: None };
            DocumentContent { notices: vec![notice], ..DocumentContent::default() }
        };
        match self {
            Document::Interruption => {
                let body: InterruptionBody = serde_json::from_slice(body).map_err(garbage)?;
                Ok(one(NoticeKind::Interruption(body.action), body.time, left(body.time, given)))
            }
            Document::Rebalance => {
                let body: RebalanceBody = serde_json::from_slice(body).map_err(garbage)?;
                // The time at which it was given, which a clock may show a moment too late.
                Ok(one(NoticeKind::Rebalance, body.notice_time, left(body.notice_time, given).min(0)))
            }
            Document::Maintenance => {
                let entries: Vec<MaintenanceEntry> = serde_json::from_slice(body).map_err(garbage)?;
                let mut content = DocumentContent::default();
                for (index, entry) in entries.iter().enumerate() {
                    if let Err(why) = content.add(entry, given, received) {
                        let why = format!("entry {} {why}", index + 1);
                        content.odd.get_or_insert(Fault::garbage(self.path(), why));
                    }
                }
                Ok(content)
            }
        }
    }
}

impl DocumentContent {
    /// Takes in one event.
    fn add(
        &mut self,
        entry: &MaintenanceEntry,
        given: Timestamp,
        received: Moment,
    ) -> Result<(), &'static str> {
        let MaintenanceEntry::Event(event) = entry else {
            return Err("is no event with Code, EventId, NotBefore and State");
        };
        let is_over = matches!(event.state.as_str(), "completed" | "canceled");
        if !(is_over || event.state == "active") || !interrupts(&event.code) {
            return Ok(());
        }
        let time = mail_date(&event.not_before).ok_or("has a NotBefore that is not a date")?;
        let id = event.id(time);
        if is_over {
            self.over.push(id);
            return Ok(());
        }
        let until = event.not_after.as_deref().and_then(mail_date);
        let scheduled = ScheduledEvent {
            restart_completes: restart_completes(&event.code),
            resume_completes: event.code == "instance-reboot",
            window_left_ms: until.map(|until| left(until, given)),
        };
        self.notices.push(Notice {
            kind: NoticeKind::Maintenance,
            id,
            seen: received,
            left_ms: left(time, given),
            event: Some(scheduled),
        });
        Ok(())
    }
}

/// Whether such an event takes the engine's memory with it. A stop and a retirement end the instance, a reboot of
/// it or of its host ends every process on it. `system-maintenance` "might temporarily affect" the network or the
/// power: nothing is evacuated for a maybe. A canceled event is listed as "[Canceled]" in its description and
/// "canceled" in its state, a past one as completed.
fn interrupts(code: &str) -> bool {
    match code {
        "instance-stop" | "instance-retirement" | "instance-reboot" | "system-reboot" => true,
        "system-maintenance" => false,
        unknown => {
            tracing::debug!(code = %unknown.chars().take(64).collect::<String>(), "unknown maintenance event");
            false
        }
    }
}

/// Whether any restart completes such an event, whoever made it. After a stop and a start the instance runs on another
/// host; a `system-reboot` is one of the host, which a reboot of the instance does not replace.
fn restart_completes(code: &str) -> bool {
    matches!(code, "instance-reboot" | "instance-stop" | "instance-retirement")
}

/// The same for the same announcement, however often and with whatever time left it is shown.
fn id(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    // 128 bits: it stands in annotations, reports and log lines.
    hasher.finalize().to_hex()[..32].to_owned()
}

fn left(time: Timestamp, given: Timestamp) -> i64 {
    time.as_millisecond().saturating_sub(given.as_millisecond())
}

/// A date as in mail and in HTTP headers, with or without its weekday: `21 Jan 2019 09:00:43 GMT`.
pub(super) fn mail_date(text: &str) -> Option<Timestamp> {
    const PARSER: jiff::fmt::rfc2822::DateTimeParser = jiff::fmt::rfc2822::DateTimeParser::new();
    PARSER.parse_timestamp(text.trim()).ok()
}
