//! Values of flags, as people write them. They stand in attributes: `value_parser = crate::runtime::values::span`.

use evacuation::moment::Span;
use std::time::Duration;

/// A duration as people write it: `500ms`, `30s`, `5m`.
pub(crate) fn span(text: &str) -> Result<Span, String> {
    let wrong = || format!("{text:?} is no duration: write 500ms, 30s or 5m");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    u64::try_from(parsed.as_millis()).map(Span::from_millis).map_err(|_| wrong())
}

/// `10m`, `36h`, `7d`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write 10m, 36h or 7d");
    let split = text.find(|digit: char| !digit.is_ascii_digit()).ok_or_else(wrong)?;
    let (digits, unit) = text.split_at(split);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_people_write_it() {
        assert_eq!(span("500ms").unwrap(), Span::from_millis(500));
        assert_eq!(span("30m").unwrap(), Span::from_secs(1800));
        assert!(span("soon").unwrap_err().contains("30s"));
        assert!(span("-3s").is_err());
    }
}
