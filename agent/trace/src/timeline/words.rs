//! The words for what was asked and what was answered.
//!
//! Decides nothing. Bytes in binary units, times relative to `zero`, no ids but a lineage's.

use evacuation::effect::{Action, FIRST_DROPPED_RANK, FlushKind, Hold, NodeAction, PodAction, RestoreAction};
use evacuation::event::{Done, FailureKind, Outcome, Verification};
use evacuation::moment::{Moment, Span};
use evacuation::notice::{Notice, NoticeKind};
use evacuation::report::{DepartureOutcome, PodReport, Report, StateOutcome};

/// What a line begins with that tells of a fault in the core.
pub const ANOMALY: &str = "ANOMALY";

/// `T+3.2`: seconds since `zero`, rounded down.
pub fn stamp(at: Moment, zero: Moment) -> String {
    if at >= zero {
        let ms = at.since(zero).as_millis();
        format!("T+{}.{}", ms / 1000, ms % 1000 / 100)
    } else {
        let tenths = zero.since(at).as_millis().div_ceil(100);
        format!("T-{}.{}", tenths / 10, tenths % 10)
    }
}

/// The text on one line: what an engine or a server said can neither forge a line nor move a cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// `2.1 s`.
pub(super) fn seconds(span: Span) -> String {
    format!("{}.{} s", span.as_millis() / 1000, span.as_millis() % 1000 / 100)
}

/// `1.5 GiB`, rounded down.
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = (bytes, 0, "B");
    for (power, unit) in (1u32..).zip(units) {
        let one = 1u64 << (10 * power);
        if bytes >= one {
            shown = (bytes / one, bytes % one / (one / 10), unit);
        }
    }
    match shown {
        (whole, _, "B") => format!("{whole} B"),
        // A tenth is rounded down, so ten of them are a little less than one.
        (whole, tenths, unit) => format!("{whole}.{} {unit}", tenths.min(9)),
    }
}

/// What the notice means.
pub(super) fn notice(notice: &Notice, zero: Moment) -> String {
    let kind = notice.kind.as_str();
    if notice.kind == NoticeKind::Rebalance {
        return format!("{kind}: an interruption is likely, nothing is certain");
    }
    match u64::try_from(notice.left_ms) {
        Ok(_) => format!("{kind}: at {}", stamp(notice.ends(), zero)),
        Err(_) => {
            let passed = Span::from_millis(notice.left_ms.unsigned_abs());
            format!("{kind}: its time passed {} ago", seconds(passed))
        }
    }
}

/// What was asked for.
pub(super) fn asked(action: &Action, held: bool, zero: Moment) -> String {
    match action {
        Action::Node(NodeAction::MarkNode(active_notice)) if active_notice.hard => {
            format!("mark: cordon, taint, annotation; deadline {}", stamp(active_notice.deadline, zero))
        }
        Action::Node(NodeAction::MarkNode(active_notice)) => {
            format!("mark: soft taint, annotation; until {}", stamp(active_notice.deadline, zero))
        }
        Action::Node(NodeAction::ClearNodeMark { uncordon: true, .. }) => {
            "take back the taint, the annotation and the cordon".into()
        }
        Action::Node(NodeAction::ClearNodeMark { uncordon: false, .. }) => {
            "take back the taint and the annotation".into()
        }
        Action::Pod { action: PodAction::SetHold { hold: Hold::Until(until), .. }, .. } => {
            format!("hold until {}", stamp(*until, zero))
        }
        Action::Pod { action: PodAction::SetHold { hold: Hold::Released, .. }, .. } => {
            "release the hold".into()
        }
        Action::Pod { action: PodAction::InspectEngine, .. } => "inspect".into(),
        Action::Pod { action: PodAction::WriteIntent { by, .. }, .. } => {
            format!("announce a checkpoint by {}", stamp(*by, zero))
        }
        Action::Pod { action: PodAction::AbandonIntent { why, .. }, .. } => {
            format!("no checkpoint will come: {why}")
        }
        Action::Pod { action: PodAction::Quiesce, .. } => "take no new work".into(),
        Action::Pod { action: PodAction::Resume, .. } => "serve again".into(),
        Action::Pod {
            action:
                PodAction::Flush { kind: FlushKind::PreCopy, .. }
                | PodAction::Save { kind: FlushKind::PreCopy, .. }
                | PodAction::Commit { kind: FlushKind::PreCopy, .. },
            ..
        } => "pre-copy".into(),
        Action::Pod { action: PodAction::Flush { .. }, .. } => "flush".into(),
        Action::Pod { action: PodAction::ProbeEngine, .. } => "probe the weights".into(),
        Action::Pod { action: PodAction::Save { rank, .. }, .. } => format!("save{}", place(*rank)),
        Action::Pod { action: PodAction::Reprioritise { rank, .. }, .. } => {
            format!("its save goes on{}", place(*rank))
        }
        Action::Pod { action: PodAction::Commit { partial: false, .. }, .. } => "commit".into(),
        Action::Pod { action: PodAction::Commit { without_endangered: true, .. }, .. } => {
            "commit what is not being removed as garbage".into()
        }
        Action::Pod { action: PodAction::Commit { partial: true, .. }, .. } => "commit what is whole".into(),
        Action::Pod { action: PodAction::Evict { grace, .. }, .. } => {
            format!("evict, {} s of grace{}", grace.as_secs(), if held { ", held" } else { "" })
        }
        Action::Pod { action: PodAction::MarkDisrupted, .. } => "set the condition DisruptionTarget".into(),
        Action::Pod { action: PodAction::DeletePod { grace, .. }, .. } => {
            format!("delete at its cut-off, {} s of grace", grace.as_secs())
        }
        Action::Node(NodeAction::WriteReport(report)) => self::report(report),
        Action::Node(NodeAction::Publish(event)) | Action::Pod { action: PodAction::Publish(event), .. } => {
            format!("Event {}: {}", event.reason, event.note)
        }
        Action::Restore { action: RestoreAction::FindLineage, .. } => "look for a checkpoint".into(),
        Action::Restore { action: RestoreAction::Claim { lineage, .. }, .. } => {
            format!("claim lineage {lineage}")
        }
        Action::Restore { action: RestoreAction::RenewClaim { .. }, .. } => "renew the claim".into(),
        Action::Restore { action: RestoreAction::Prefetch { .. }, .. } => {
            "fetch what it is likely to hold".into()
        }
        Action::Restore { action: RestoreAction::Fetch { .. }, .. } => "fetch".into(),
        Action::Restore { action: RestoreAction::CheckFingerprint, .. } => "check that it fits".into(),
        Action::Restore { action: RestoreAction::ImportState, .. } => "import it into the engine".into(),
        Action::Restore { action: RestoreAction::Verify, .. } => "verify that the engine uses it".into(),
        Action::Restore { action: RestoreAction::FinishClaim { .. }, .. } => "finish the claim".into(),
        Action::Restore { action: RestoreAction::GiveBackClaim { .. }, .. } => "give the claim back".into(),
        Action::Restore { action: RestoreAction::RecordVerdict { not_used }, .. } => {
            if not_used.is_some() {
                "note that it is not used".into()
            } else {
                "note that it is used".into()
            }
        }
        Action::Restore { action: RestoreAction::ReloadLocal, .. } => {
            "its engine was restarted: look for its own state in its volume".into()
        }
        Action::Restore { action: RestoreAction::OpenGate { outcome, message, .. }, .. }
            if message.is_empty() =>
        {
            format!("open the gate: {}", outcome.as_str())
        }
        Action::Restore { action: RestoreAction::OpenGate { outcome, message, .. }, .. } => {
            format!("open the gate: {}: {message}", outcome.as_str())
        }
        Action::Cancel { .. } => "cancel".into(),
        Action::Anomaly { what } => format!("{ANOMALY}: {what}"),
    }
}

/// What was answered, and whether it is not what was asked for.
pub(super) fn answered(action: &Action, outcome: &Outcome, took: Span) -> (String, bool) {
    let done = match outcome {
        Outcome::Done(done) => done,
        Outcome::Failed { kind: FailureKind::NotFound, .. }
            if matches!(
                action,
                Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. }
            ) =>
        {
            return ("it is gone already".into(), false);
        }
        Outcome::Failed { kind, why } if why.is_empty() || why == kind.as_str() => {
            return (kind.as_str().into(), true);
        }
        Outcome::Failed { kind, why } => return (format!("{}: {why}", kind.as_str()), true),
        Outcome::TimedOut => return (format!("no answer within {}", seconds(took)), true),
        Outcome::Panicked => return ("its task panicked".into(), true),
    };
    let text = match done {
        Done::IntentWritten { committed: Some((_, size)), .. } => {
            format!("committed already: {}", bytes(*size))
        }
        Done::Inspected { state_bytes, busy, .. } => {
            format!("{} of state, {}", bytes(*state_bytes), if *busy { "busy" } else { "idle" })
        }
        Done::Flushed { bytes: 0, .. } => "no state".into(),
        Done::Flushed { bytes: size, .. } | Done::Fetched { bytes: size } => bytes(*size),
        Done::Saved { bytes: size, sent, left_out, .. } => saved(*size, *sent, left_out.as_deref()),
        Done::Committed { bytes: size, .. } => format!("{} committed", bytes(*size)),
        Done::Lineages { candidates, .. } if candidates.is_empty() => "none".into(),
        Done::Lineages { candidates, worth_waiting_for: None } => format!("{} found", candidates.len()),
        Done::Lineages { candidates, worth_waiting_for: Some(why) } => {
            format!("{} found; {why}", candidates.len())
        }
        Done::FingerprintMatches { state_bytes: 0 } => "it fits".into(),
        Done::FingerprintMatches { state_bytes } => {
            format!("the engine has {} of its own already", bytes(*state_bytes))
        }
        Done::Tokens { count: Some(count) } => format!("{count} tokens"),
        Done::Verified(Verification::Used { tokens }) => format!("{tokens} tokens"),
        Done::Verified(Verification::NotUsed { why }) => format!("it does not use it: {why}"),
        Done::Verified(Verification::NotShown { why }) => format!("not shown: {why}"),
        Done::Nothing
            if matches!(
                action,
                Action::Pod { action: PodAction::Evict { .. } | PodAction::DeletePod { .. }, .. }
            ) =>
        {
            "accepted".into()
        }
        Done::Nothing
        | Done::Probed
        | Done::Claimed { .. }
        | Done::IntentWritten { committed: None, .. }
        | Done::Tokens { count: None } => "done".into(),
    };
    (text, false)
}

/// What a save brought into the store.
pub(super) fn saved(size: u64, sent: u64, left_out: Option<&str>) -> String {
    match left_out {
        None if sent == size => format!("{} sent", bytes(sent)),
        None => format!("{} of {} sent", bytes(sent), bytes(size)),
        Some(why) => format!("{} sent, {} is whole, left out: {why}", bytes(sent), bytes(size)),
    }
}

/// A report in one line.
fn report(report: &Report) -> String {
    let mut counts = Vec::new();
    for &state in StateOutcome::ALL {
        let count = report.pods.iter().filter(|pod| pod.state == state).count();
        if count > 0 && state != StateOutcome::None {
            counts.push(format!("{count} {}", state_word(state)));
        }
    }
    for &departure in DepartureOutcome::ALL {
        let count = report.pods.iter().filter(|pod| pod.departure == departure).count();
        if count > 0 {
            counts.push(format!("{count} {}", departure_word(departure)));
        }
    }
    let mut what = if report.complete { "report, complete" } else { "report, not complete yet" }.to_owned();
    if report.short {
        what.push_str(", of a short window");
    }
    if report.withdrawn {
        what.push_str(", withdrawn");
    }
    if counts.is_empty() { format!("{what}: no pods") } else { format!("{what}: {}", counts.join(", ")) }
}

/// What became of a state, in words.
pub const fn state_word(state: StateOutcome) -> &'static str {
    match state {
        StateOutcome::None => "without state",
        StateOutcome::Pending => "state not decided",
        StateOutcome::Saved => "saved",
        StateOutcome::Partial => "saved in part",
        StateOutcome::SavedWithoutEvidence => "saved, and no engine may use it",
        StateOutcome::Earlier => "only an earlier generation",
        StateOutcome::Lost => "LOST",
    }
}

/// What became of a pod, in words.
pub const fn departure_word(departure: DepartureOutcome) -> &'static str {
    match departure {
        DepartureOutcome::Stays => "staying",
        DepartureOutcome::Pending => "not decided",
        DepartureOutcome::Leaving => "evicted, not gone yet",
        DepartureOutcome::DeletedAtCutOff => "deleted at its cut-off, not gone yet",
        DepartureOutcome::Gone => "gone",
        DepartureOutcome::Abandoned => "given up",
    }
}

/// What the report says of one pod.
pub(super) fn outcome(pod: &PodReport, zero: Moment) -> String {
    let mut text = departure_word(pod.departure).to_owned();
    if let Some(gone) = pod.gone {
        text.push_str(&format!(" at {}", stamp(gone, zero)));
    }
    if let Some(reason) = &pod.reason {
        text.push_str(&format!(" ({reason})"));
    }
    if pod.state == StateOutcome::None {
        return text;
    }
    text.push_str(&format!("; state {}", state_word(pod.state)));
    if pod.bytes > 0 {
        text.push_str(&format!(", {}", bytes(pod.bytes)));
    }
    if let Some(committed) = pod.committed {
        text.push_str(&format!(" at {}", stamp(committed, zero)));
    }
    if let Some(reason) = &pod.state_reason {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

/// A place on the link.
fn place(rank: u64) -> String {
    match rank {
        0 => String::new(),
        rank if rank >= FIRST_DROPPED_RANK => ", behind all that fits".into(),
        // Not how many are in front of it: saves that are over keep their ranks.
        rank => format!(", rank {rank}"),
    }
}
