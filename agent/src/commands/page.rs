//! Text for people: lines and tables, in which nothing from the store can move the cursor or forge a line.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

/// `--output` of every command that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// What is written to standard output, built first and written once.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Adds a line.
    pub fn line(&mut self, text: &str) {
        self.0.push_str(&plain(text));
        self.0.push('\n');
    }

    /// Adds one line per fact, the values in one column.
    pub fn facts(&mut self, facts: &[(&str, String)]) {
        let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in facts {
            let _ = writeln!(self.0, "{name:width$}  {}", plain(value));
        }
    }

    /// Adds a table; a column whose name begins with `>` is flush right.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let titles = head.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        let all: Vec<Vec<String>> = std::iter::once(titles)
            .chain(rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()))
            .collect();
        let width = |column: usize| {
            all.iter().filter_map(|row: &Vec<String>| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
        for row in &all {
            let mut line = String::new();
            for ((cell, title), width) in row.iter().zip(head).zip(&widths) {
                let _ = match title.starts_with('>') {
                    true => write!(line, "{cell:>width$}  "),
                    false => write!(line, "{cell:width$}  "),
                };
            }
            self.0.push_str(line.trim_end());
            self.0.push('\n');
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// What the system says, for example that the disk behind a redirection is full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The text without anything that a terminal would obey.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// An age or a remaining time in its largest unit, as `kubectl` writes it: `42s`, `7m`, `3h`, `12d`.
#[must_use]
pub fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A number of bytes for people.
#[must_use]
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// `1 file`, `2 files`.
#[must_use]
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_are_flush_right() {
        let mut page = Page::default();
        page.table(&["NAME", ">BYTES"], &[vec!["a".into(), "1".into()], vec!["long".into(), "1000".into()]]);
        assert_eq!(page.as_str(), "NAME  BYTES\na         1\nlong   1000\n");
    }

    #[test]
    fn what_comes_from_the_store_cannot_forge_a_line_or_move_the_cursor() {
        let mut page = Page::default();
        page.table(&["WHY"], &[vec!["a\nall is well\x1b[2J".into()]]);
        page.facts(&[("why", "b\r\nc".into())]);
        page.line("d\x07");
        assert_eq!(page.as_str().lines().count(), 4, "{:?}", page.as_str());
        assert!(page.as_str().chars().all(|c| c == '\n' || !c.is_control()), "{:?}", page.as_str());
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|s| short(Duration::from_secs(s)));
        assert_eq!(told, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
