//! The report as Markdown, for a terminal and for `benches/RESULTS.md`.

use super::report::Report;
use super::rounds::series;
use super::settings::Wire;
use super::tcp::{Direction, TcpFigures};

/// The whole report.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for wire in Wire::ALL.into_iter().filter(|wire| report.settings.wants_wire(*wire)) {
        text += &format!("\n## {}\n\n", wire.title());
        text += &rates(report, wire);
    }
    text
}

fn rates(report: &Report, wire: Wire) -> String {
    let mut table = Table::new(&["", "TCP 1, Gb/s", "reverse", "CPU s/GB, daemons", "machine"]);
    for contestant in &report.contestants {
        let tcp = |streams, direction, value: fn(&TcpFigures) -> f64| {
            let its = |run: &TcpFigures| (run.streams == streams && run.direction == direction).then(|| value(run));
            number(series(&report.runs.tcp, wire, &contestant.label, its).median())
        };
        table.row(vec![
            contestant.label.clone(),
            tcp(1, Direction::Forward, |run| run.gigabits_per_second),
            tcp(1, Direction::Reverse, |run| run.gigabits_per_second),
            tcp(1, Direction::Forward, |run| run.daemon_cpu_seconds_per_gb),
            tcp(1, Direction::Forward, |run| run.machine_cpu_seconds_per_gb),
        ]);
    }
    table.to_markdown()
}

/// Three digits that matter; a dash for what was not measured.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".into() };
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Cells by rows; the first row is the head.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().copied().map(String::from).collect()] }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Aligned for those who read it as text: words to the left, figures to the right.
    fn to_markdown(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!(" {cell:<width$} "),
                _ => format!(" {cell:>width$} "),
            });
            format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
        };
        let rule = widths.iter().enumerate().map(|(column, width)| match column {
            0 => "-".repeat(width + 2),
            _ => "-".repeat(width + 1) + ":",
        });
        let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        self.rows[..1].iter().map(line).chain([rule]).chain(self.rows[1..].iter().map(line)).collect()
    }
}
