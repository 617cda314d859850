//! Which relative paths may name a file of a state: the same rule for a manifest and for a folder.

/// The folder in a state volume that is ours: never saved, and never named by a manifest.
pub const OURS: &str = ".lifeboat";

/// The longest path, in bytes (Linux `PATH_MAX` with its NUL is 4096).
const PATH_MAX: usize = 4095;
/// The longest component, in bytes (Linux `NAME_MAX`).
const NAME_MAX: usize = 255;
/// The deepest nesting: listing and removing hold one descriptor per level.
pub const DEPTH_MAX: usize = 32;

/// A path that could lead outside, or into what is ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?} is refused: {why}")]
pub struct BadPath {
    /// The path, cut to a readable length.
    pub path: String,
    /// The rule it breaks.
    pub why: &'static str,
}

/// Checks a path below a folder: relative, and every component a plain name.
///
/// # Errors
/// [`BadPath`] with the rule that is broken.
pub fn check(path: &str) -> Result<(), BadPath> {
    let refuse = |why| Err(BadPath { path: path.chars().take(120).collect(), why });
    if path.is_empty() {
        return refuse("it is empty");
    }
    if path.len() > PATH_MAX {
        return refuse("it is longer than 4095 bytes");
    }
    if path.contains('\0') {
        return refuse("it contains NUL");
    }
    if path.starts_with('/') {
        return refuse("it is absolute");
    }
    let mut depth = 0;
    for name in path.split('/') {
        depth += 1;
        match name {
            "" => return refuse("it has an empty component"),
            "." | ".." => return refuse("it has a component '.' or '..'"),
            _ if name.len() > NAME_MAX => return refuse("a component is longer than 255 bytes"),
            _ if depth > DEPTH_MAX => return refuse("it is nested too deep"),
            _ => {}
        }
    }
    Ok(())
}

/// [`check`], and not below `.lifeboat/`, which is ours.
///
/// # Errors
/// [`BadPath`] with the rule that is broken.
pub fn check_state(path: &str) -> Result<(), BadPath> {
    check(path)?;
    if path.split('/').next() == Some(OURS) {
        return Err(BadPath {
            path: path.chars().take(120).collect(),
            why: ".lifeboat/ is not part of a state",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\0b",
            &"a/".repeat(40),
            &"a".repeat(256),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        check("slots/0.bin").unwrap();
        check(".lifeboat/restore/1/x").unwrap();
        assert!(check_state(".lifeboat/hold").is_err());
        assert!(check_state(".lifeboat").is_err());
        check_state(".lifeboat-not").unwrap();
    }
}
