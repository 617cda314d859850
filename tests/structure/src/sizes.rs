//! The length of files.

use crate::source::Sources;
use crate::tree::Tree;

/// The most lines of one file.
pub const LINES_MAX: usize = 800;

/// The Rust files of the shipped crates, their tests among them, with their lines; the shortest first.
pub fn lines<'a>(tree: &'a Tree, sources: &Sources) -> Vec<(usize, &'a str)> {
    let folders: Vec<&str> =
        sources.crates.iter().map(|source| sources.member(source).folder.as_str()).collect();
    let is_shipped = |path: &str| folders.iter().any(|folder| crate::tree::is_below(path, folder));
    let files = tree.files().filter(|(path, _)| path.ends_with(".rs") && is_shipped(path));
    let mut lines: Vec<(usize, &str)> = files.map(|(path, text)| (text.lines().count(), path)).collect();
    lines.sort_unstable();
    lines
}

/// The files that are too long.
pub fn too_long<'a>(lines: &[(usize, &'a str)]) -> Vec<(usize, &'a str)> {
    lines.iter().copied().filter(|(lines, _)| *lines > LINES_MAX).collect()
}

/// The lines of the file in the middle.
pub fn median(lines: &[(usize, &str)]) -> usize {
    lines.get(lines.len() / 2).map_or(0, |(lines, _)| *lines)
}
