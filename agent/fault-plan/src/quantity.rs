//! Times and rates as people write them: `500ms`, `10s`, `1.5s`, `2m`; `2MiB/s`, `1.5GB/s`.

use std::time::Duration;

/// Reads a time. It is whole milliseconds, a day at most.
///
/// # Errors
/// A sentence that names the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 500ms, 10s or 2m");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let unit_ms = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        _ => return Err(wrong()),
    };
    let ms = number * unit_ms;
    // A day is more than any run; the bound also makes the cast exact.
    if !(0.0..=86_400_000.0).contains(&ms) {
        return Err(wrong());
    }
    Ok(Duration::from_millis(ms.round() as u64))
}

/// Writes a time the short way, so that it can be read again.
pub fn show_duration(time: Duration) -> String {
    let ms = time.as_millis();
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a rate in bytes per second: at least 1, at most a terabyte.
///
/// # Errors
/// A sentence that names the text.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a rate such as 2MiB/s");
    let (number, unit) = text.strip_suffix("/s").and_then(number_and_unit).ok_or_else(wrong)?;
    let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
    let bytes = number * known.1 as f64;
    if !(1.0..=1e12).contains(&bytes) {
        return Err(wrong());
    }
    Ok(bytes.round() as u64)
}

/// Writes a rate with the largest unit that needs no fraction, so that it can be read again.
pub fn show_rate(bytes_per_second: u64) -> String {
    let whole = UNITS.iter().find(|(_, unit)| bytes_per_second.is_multiple_of(*unit));
    let (name, unit) = whole.copied().unwrap_or(("B", 1));
    format!("{}{name}/s", bytes_per_second / unit)
}

/// `1.5s` is 1.5 and `s`.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_three_units_and_nothing_else() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "5h", "1e9s", "1.2.3s", "99999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_read_in_decimal_and_binary_units_and_nothing_else() {
        assert_eq!(parse_rate("2MiB/s"), Ok(2 << 20));
        assert_eq!(parse_rate("1.5GB/s"), Ok(1_500_000_000));
        assert_eq!(parse_rate("1kb/s"), Ok(1_000));
        assert_eq!(parse_rate("7B/s"), Ok(7));
        for bad in ["", "fast", "2MiB", "MiB/s", "0MiB/s", "-1B/s", "2/s", "9999999GB/s", "1e9B/s"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for ms in [0, 1, 999, 1000, 1500, 60_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(time)), Ok(time));
        }
        for rate in [1, 999, 1_000, 1_024, 2 << 20, 1_500_000, 10_000_000_000, 12_345_678_901] {
            assert_eq!(parse_rate(&show_rate(rate)), Ok(rate));
        }
        assert_eq!(show_rate(2 << 20), "2MiB/s");
        assert_eq!(show_rate(10_000_000), "10MB/s");
    }
}
