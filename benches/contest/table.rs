//! Tables in Markdown that are also readable as text, and numbers with a suitable number of digits.

/// Rows of cells. The first row is the header.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// How many columns on the left hold words. The others hold numbers.
    words: usize,
}

impl Table {
    /// Creates a table with this header.
    pub(crate) fn new(words: usize, head: &[&str]) -> Self {
        Self { rows: vec![head.iter().copied().map(String::from).collect()], words }
    }

    /// Adds a row, which must be as long as the header.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Removes columns without any number.
    pub(crate) fn without_gaps(mut self) -> Self {
        for column in (self.words..self.rows[0].len()).rev() {
            if self.rows[1..].iter().all(|row| row[column] == NOTHING) {
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
        self
    }

    /// Whether there are no numbers.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1 || self.rows[0].len() == self.words
    }

    /// Formats the table, with words aligned left and numbers aligned right.
    pub(crate) fn to_markdown(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column < self.words { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") }
            });
            format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
        };
        let rule = widths.iter().enumerate().map(|(column, width)| {
            if column < self.words { "-".repeat(width + 2) } else { "-".repeat(width + 1) + ":" }
        });
        let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        self.rows[..1].iter().map(line).chain([rule]).chain(self.rows[1..].iter().map(line)).collect()
    }
}

/// The text in place of a value that was not measured.
const NOTHING: &str = "-";

/// Formats a number with three significant digits. A dash if it was not measured.
pub(crate) fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return NOTHING.into() };
    let digits = match value.abs() {
        99.95.. => 0,
        9.995.. => 1,
        0.9995.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Formats two values in one cell, `0.07 / 0.30`.
pub(crate) fn pair(first: Option<f64>, second: Option<f64>) -> String {
    if first.is_none() && second.is_none() { NOTHING.into() } else { format!("{} / {}", number(first), number(second)) }
}
