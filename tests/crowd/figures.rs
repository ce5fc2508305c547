//! What was measured: percentiles, and the table that `make crowd` puts together.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Rows of what was measured, next to what is promised.
#[derive(Default)]
pub(crate) struct Table(String);

impl Table {
    /// Adds a row, and prints it.
    pub(crate) fn row(&mut self, what: &str, measured: &str, promised: &str) {
        eprintln!("{what}: {measured} ({promised})");
        let _ = writeln!(self.0, "| {what} | {measured} | {promised} |");
    }

    /// Writes the rows where `make crowd` finds them.
    #[track_caller]
    pub(crate) fn write(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("crowd");
        std::fs::create_dir_all(&folder).expect("a folder for results");
        std::fs::write(folder.join(format!("{name}.md")), &self.0).expect("a file of ours");
    }
}

/// Times that something took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that `share` of them did not exceed: 0.5 is the median, 1.0 the longest.
    #[track_caller]
    pub(crate) fn at(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let last = sorted.len().checked_sub(1).expect("something was measured");
        sorted[((last as f64 * share).ceil() as usize).min(last)]
    }

    /// The median, the 99th percentile and the longest, as text.
    pub(crate) fn shown(&self) -> String {
        let [median, p99, longest] = [0.5, 0.99, 1.0].map(|share| self.at(share).as_secs_f64() * 1e3);
        format!("median {median:.1} ms, p99 {p99:.1} ms, longest {longest:.0} ms")
    }
}

/// The one in the middle.
#[track_caller]
pub(crate) fn median(of: &[Duration]) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}
