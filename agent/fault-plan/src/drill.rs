//! The fault plan as the drill and its stand-ins play it: its times are the core's.

use crate::{Fault, FaultError, Level};
use evacuation::moment::Span;
use std::time::Duration;

/// A plan's time as the core's. A plan has whole milliseconds.
pub fn span(time: Duration) -> Span {
    Span::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// From when to when a fault holds, in time after the notice.
pub fn window(fault: &Fault) -> (Span, Option<Span>) {
    let (from, until) = fault.window();
    (span(from), until.map(span))
}

/// Reads `500ms`, `10s` or `2m`.
///
/// # Errors
/// A sentence that names the text.
pub fn parse_span(text: &str) -> Result<Span, String> {
    crate::parse_duration(text).map(span)
}

/// Writes a span so that it can be read again.
pub fn show_span(span: Span) -> String {
    crate::show_duration(Duration::from_millis(span.as_millis()))
}

/// Reads one fault of a drill.
///
/// # Errors
/// See [`FaultError`].
pub fn parse_fault(text: &str) -> Result<Fault, FaultError> {
    Fault::read(text, Level::Drill)
}

/// Reads a plan: faults with white space between them, `#` at the start of a line is a comment.
///
/// # Errors
/// The first [`FaultError`].
pub fn parse_plan(text: &str) -> Result<Vec<Fault>, FaultError> {
    crate::parse_plan(text, Level::Drill)
}

/// The catalogue for programs: `--list-faults --output json`.
pub fn document() -> serde_json::Value {
    let drilled = crate::catalogue::entries().filter(|entry| entry.not_at(Level::Drill).is_none());
    drilled
        .map(|entry| {
            serde_json::json!({
                "name": entry.name,
                "example": entry.example,
                "what": entry.what,
                "tries": entry.tries,
            })
        })
        .collect()
}

/// The catalogue as `--list-faults` prints it.
pub fn listing() -> String {
    format!(
        "Faults: --fault 'target[:object]=outcome[:argument][*times|#which][@when][+duration]', repeatable.\n\
         @when counts from the notice; @step:NAME is the first effect of that name in the agent's journal.\n{}",
        crate::catalogue::listing(Level::Drill)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_and_a_span_are_the_plans_in_the_cores_time() {
        let fault = parse_fault("api=503@1500ms+5s").unwrap();
        assert_eq!(window(&fault), (Span::from_millis(1_500), Some(Span::from_millis(6_500))));
        assert_eq!(parse_span(&show_span(Span::from_millis(1_500))), Ok(Span::from_millis(1_500)));
    }

    #[test]
    fn the_drill_refuses_the_simulations_own_faults() {
        let error = parse_fault("watch=lags").unwrap_err().to_string();
        assert!(error.contains("the drill does not understand it"), "{error}");
    }

    #[test]
    fn the_listing_and_the_document_hold_what_the_drill_plays() {
        let document = document();
        let lines = document.as_array().unwrap();
        assert!(lines.len() > 25, "{}", lines.len());
        let text = listing();
        for line in lines {
            let own_line = format!("\n  {}\n", line["example"].as_str().unwrap());
            assert!(text.contains(&own_line), "{own_line}");
        }
    }
}
