//! The documents of IMDS that announce something, and the notices in them.

use super::fault::Fault;
use evacuation::moment::Moment;
use evacuation::notice::{InstanceAction, Notice, NoticeKind, ScheduledEvent};
use jiff::Timestamp;
use serde::Deserialize;

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

    /// The notices in it, of an answer that was `given` at this time by IMDS's clock and `received` at this moment by the
    /// node's.
    pub(super) fn notices(
        self,
        body: &[u8],
        given: Timestamp,
        received: Moment,
    ) -> Result<Vec<Notice>, Fault> {
        let garbage =
            |error: serde_json::Error| Fault::garbage(self.path(), format!("not the known JSON: {error}"));
        let notice = |kind, parts: &[&str], left_ms| Notice {
            kind,
            id: id(parts),
            seen: received,
            left_ms,
            event: None,
        };
        match self {
            Document::Interruption => {
                let body: InterruptionBody = serde_json::from_slice(body).map_err(garbage)?;
                let kind = NoticeKind::Interruption(body.action);
                Ok(vec![notice(kind, &[kind.as_str(), &body.time.to_string()], left(body.time, given))])
            }
            Document::Rebalance => {
                let body: RebalanceBody = serde_json::from_slice(body).map_err(garbage)?;
                let kind = NoticeKind::Rebalance;
                // The time at which it was given, which a clock may show a moment too late.
                let left = left(body.notice_time, given).min(0);
                Ok(vec![notice(kind, &[kind.as_str(), &body.notice_time.to_string()], left)])
            }
            Document::Maintenance => {
                let events: Vec<MaintenanceEvent> = serde_json::from_slice(body).map_err(garbage)?;
                let ours = events.iter().filter(|event| event.state == "active" && interrupts(&event.code));
                ours.map(|event| {
                    let time = mail_date(&event.not_before)
                        .ok_or_else(|| Fault::garbage(self.path(), "NotBefore is not a date"))?;
                    let until = event.not_after.as_deref().and_then(mail_date);
                    let scheduled = ScheduledEvent {
                        restart_completes: restart_completes(&event.code),
                        window_left_ms: until.map(|until| left(until, given)),
                    };
                    Ok(Notice {
                        kind: NoticeKind::Maintenance,
                        id: event.id(time),
                        seen: received,
                        left_ms: left(time, given),
                        event: Some(scheduled),
                    })
                })
                .collect()
            }
        }
    }

    /// The ids of what it says is completed or canceled.
    pub(super) fn over(self, body: &[u8]) -> Vec<String> {
        if self != Document::Maintenance {
            return Vec::new();
        }
        let events: Vec<MaintenanceEvent> = serde_json::from_slice(body).unwrap_or_default();
        let over = events.iter().filter(|event| matches!(event.state.as_str(), "completed" | "canceled"));
        over.filter_map(|event| Some(event.id(mail_date(&event.not_before)?))).collect()
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
