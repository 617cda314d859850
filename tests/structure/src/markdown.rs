//! Tables and headings of a Markdown document.

use crate::StructureError;

/// A table below a heading, to be read strictly: what cannot be right is an error with its line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    /// The document, from the root of the tree.
    pub file: &'a str,
    /// The whole line of the heading above it.
    pub heading: &'a str,
    /// The names of its columns.
    pub columns: [&'a str; 3],
}

impl Table<'_> {
    /// Its rows, each with its line.
    pub(crate) fn rows(&self, text: &str) -> Result<Vec<(usize, [String; 3])>, StructureError> {
        let wrong = |line: usize, why: String| StructureError::malformed(self.file, line, why);
        let heading = text
            .lines()
            .position(|line| line.trim_end() == self.heading)
            .ok_or_else(|| wrong(1, format!("the heading `{}` with its table is missing", self.heading)))?;
        let mut rows = text
            .lines()
            .enumerate()
            .skip(heading + 1)
            .take_while(|(_, line)| !line.starts_with('#'))
            .filter(|(_, line)| line.starts_with('|'))
            .map(|(index, line)| (index + 1, cells(line)));
        if rows.next().is_none_or(|(_, cells)| cells != self.columns) {
            let columns = self.columns.join(", ");
            return Err(wrong(heading + 1, format!("a table with the columns {columns} must follow")));
        }
        let rows: Vec<_> = rows
            .filter(|(_, cells)| !cells.iter().all(|cell| cell.trim_matches([':', '-']).is_empty()))
            .map(|(line, cells)| {
                let cells = <[String; 3]>::try_from(cells)
                    .map_err(|cells| wrong(line, format!("{} cells instead of 3", cells.len())))?;
                Ok((line, cells))
            })
            .collect::<Result<_, _>>()?;
        if rows.is_empty() { Err(wrong(heading + 1, "the table has no line".into())) } else { Ok(rows) }
    }
}

/// The cells of a line of a table. Backticks around all of a cell are left out.
fn cells(line: &str) -> Vec<String> {
    let cell = |cell: &str| {
        let cell = cell.trim();
        let inner = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
        inner.filter(|inner| !inner.contains('`')).unwrap_or(cell).to_owned()
    };
    line.trim().trim_matches('|').split('|').map(cell).collect()
}

/// The titles of a document's headings.
pub(crate) fn headings(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter_map(move |line| {
        is_code ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        (!is_code && title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
    })
}
