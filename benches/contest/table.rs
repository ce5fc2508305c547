//! Tables in Markdown that read well as text too, and numbers with as many digits as matter.

/// Cells by rows; the first row is the head.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns of words, from the left; the others hold figures.
    words: usize,
}

impl Table {
    /// With this head.
    pub(crate) fn new(words: usize, head: &[&str]) -> Self {
        Self { rows: vec![head.iter().copied().map(String::from).collect()], words }
    }

    /// One more row, as long as the head.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Without the columns in which nobody has a figure.
    pub(crate) fn without_gaps(mut self) -> Self {
        for column in (self.words..self.rows[0].len()).rev() {
            if self.rows[1..].iter().all(|row| row[column] == NOTHING) {
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
        self
    }

    /// Whether there are no figures.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1 || self.rows[0].len() == self.words
    }

    /// Words to the left, figures to the right.
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

/// What stands for a figure that was not measured.
const NOTHING: &str = "-";

/// Three digits that matter; a dash for what was not measured.
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

/// Two figures in one cell, `0.07 / 0.30`.
pub(crate) fn pair(first: Option<f64>, second: Option<f64>) -> String {
    if first.is_none() && second.is_none() { NOTHING.into() } else { format!("{} / {}", number(first), number(second)) }
}
