//! Durations as people write them: `500ms`, `10s`, `1.5s`, `2m`.

use evacuation::moment::Span;

/// Reads a duration.
///
/// # Errors
/// A sentence that names the text.
pub fn parse_span(text: &str) -> Result<Span, String> {
    let wrong = || format!("{text:?} is not a duration such as 500ms, 10s or 2m");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        _ => return Err(wrong()),
    };
    let ms = number.parse::<f64>().map_err(|_| wrong())? * unit_ms;
    // A day is more than any drill; the bound also makes the cast exact.
    if !(0.0..=86_400_000.0).contains(&ms) {
        return Err(wrong());
    }
    Ok(Span::from_millis(ms.round() as u64))
}

/// Writes a duration the short way, so that it can be read again.
pub fn show_span(span: Span) -> String {
    let ms = span.as_millis();
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_three_units_and_nothing_else() {
        assert_eq!(parse_span("500ms"), Ok(Span::from_millis(500)));
        assert_eq!(parse_span("1.5s"), Ok(Span::from_millis(1500)));
        assert_eq!(parse_span("2m"), Ok(Span::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "5h", "1e9s", "1.2.3s", "99999999999s"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for ms in [0, 1, 999, 1000, 1500, 60_000] {
            let span = Span::from_millis(ms);
            assert_eq!(parse_span(&show_span(span)), Ok(span));
        }
    }
}
