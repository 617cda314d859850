//! One annotation's value. Each parser's error is `(problem, fix)`, both without the annotation's
//! name, which the caller adds.

use bytesize::ByteSize;
use evacuation::moment::Span;
use std::path::{Component, Path, PathBuf};

type Parsed<T> = Result<T, (String, String)>;

fn refuse<T>(problem: impl Into<String>, fix: impl Into<String>) -> Parsed<T> {
    Err((problem.into(), fix.into()))
}

/// One of a closed set.
pub(super) fn choice<T: Copy>(value: &str, choices: &[(&str, T)]) -> Parsed<T> {
    match choices.iter().find(|(name, _)| *name == value) {
        Some((_, chosen)) => Ok(*chosen),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            refuse("is not one of its values", format!("use one of {}", names.join(", ")))
        }
    }
}

/// A TCP port.
pub(super) fn port(value: &str) -> Parsed<u16> {
    match value.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => refuse("is not a port", "use a number from 1 to 65535"),
    }
}

/// A length of time such as `30s`, `2m` or `1m 30s`, between one second and `longest`.
pub(super) fn span(value: &str, longest: Span) -> Parsed<Span> {
    let fix = format!("use a duration such as 30s or 2m, from 1s to {}s", longest.as_secs());
    let Ok(duration) = value.parse::<jiff::SignedDuration>() else {
        return refuse("is not a duration", fix);
    };
    match u64::try_from(duration.as_millis()).map(Span::from_millis) {
        Ok(span) if span >= Span::from_secs(1) && span <= longest => Ok(span),
        _ => refuse("is out of range", fix),
    }
}

/// A number of bytes such as `64GiB` or, as Kubernetes writes it, `64Gi`.
pub(super) fn bytes(value: &str) -> Parsed<u64> {
    match value.parse::<ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        _ => refuse("is not a size", "use a size such as 512MiB or 64GiB"),
    }
}

/// A path that stays below the directory it is joined to.
pub(super) fn relative_path(value: &str) -> Parsed<PathBuf> {
    let path = Path::new(value);
    let inside = !value.is_empty()
        && !value.contains('\0')
        && path.components().all(|component| matches!(component, Component::Normal(_)));
    if inside {
        Ok(path.to_path_buf())
    } else {
        refuse("leads out of the state volume", "use a path relative to the state volume, without '..'")
    }
}

/// A name that can stand in the store's keys: what Kubernetes calls a DNS subdomain.
pub(super) fn name(value: &str) -> Parsed<String> {
    let ordinary = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = (1..=63).contains(&value.len())
        && value.chars().all(|c| ordinary(c) || c == '-' || c == '.')
        && value.starts_with(ordinary)
        && value.ends_with(ordinary)
        && !value.contains("..");
    if valid {
        Ok(value.to_owned())
    } else {
        refuse(
            "is not a name",
            "use at most 63 lowercase letters, digits, '-' and '.', as in a Deployment's name",
        )
    }
}

/// Any short visible text.
pub(super) fn key(value: &str) -> Parsed<String> {
    if (1..=128).contains(&value.len()) && value.chars().all(|c| c.is_ascii_graphic()) {
        Ok(value.to_owned())
    } else {
        refuse("is not a key", "use 1 to 128 visible ASCII characters without spaces")
    }
}
