//! `make bench`: compares the data plane with those of other programs, in one run.
//!
//! All contestants do the same work in interleaved rounds over the same two kinds of veth, one as it is and one without
//! offloads: TCP, UDP and ping, while their memory and CPU time are measured. The results are a table,
//! `target/bench/report.json`, `target/bench/RESULTS.md` and a plot. `contest/settings.rs` lists the environment
//! variables.
//!
//! Needs root. The exit code is 1 if ours failed anywhere, and 2 if something unknown was requested. If another
//! contestant fails, that is reported and the run continues.
#![allow(clippy::disallowed_methods, reason = "real time and real processes are what this is about")]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod contest {
    pub(crate) mod aead;
    pub(crate) mod asked;
    pub(crate) mod attempt;
    pub(crate) mod chapters;
    pub(crate) mod contestant;
    pub(crate) mod copier;
    pub(crate) mod cpu;
    pub(crate) mod fairness;
    pub(crate) mod iperf;
    pub(crate) mod latency;
    pub(crate) mod machine;
    pub(crate) mod markdown;
    pub(crate) mod memory;
    pub(crate) mod namespace;
    pub(crate) mod ping;
    pub(crate) mod plot;
    pub(crate) mod report;
    pub(crate) mod rounds;
    pub(crate) mod runs;
    pub(crate) mod scale;
    pub(crate) mod series;
    pub(crate) mod settings;
    pub(crate) mod standing;
    pub(crate) mod start;
    pub(crate) mod table;
    pub(crate) mod tcp;
    pub(crate) mod udp;
}

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use contest::contestant::{Contestant, Role};
use contest::machine::Machine;
use contest::report::{Chapters, Report};
use contest::settings::Settings;
use contest::{attempt, chapters, latency, markdown, plot, rounds};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(played) = latency::play(&arguments) {
        return played.map_or_else(|error| fail(&error.to_string(), 1), |()| ExitCode::SUCCESS);
    }
    match Settings::from_environment().and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => fail("ours failed somewhere: see above", 1),
        Err(reason) => fail(&reason, 2),
    }
}

fn fail(reason: &str, code: u8) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(code)
}

/// Whether ours completed everything.
fn run(settings: Settings) -> Result<bool, String> {
    let all = Contestant::all(&settings.peer_bins);
    let labels: Vec<_> = all.iter().map(|contestant| contestant.label.clone()).collect();
    settings.check(&labels)?;
    if lab::Lab::new("contest").is_none() {
        return Err("this machine cannot run the contest".into());
    }
    let contestants: Vec<_> =
        all.into_iter().filter(|contestant| settings.wants_contestant(&contestant.label, &labels)).collect();
    attempt::panic_briefly();

    let began = Instant::now();
    let mut failures = Vec::new();
    let runs = rounds::measure(&settings, &contestants, &mut failures);
    let with_chapters = contestants.iter().any(|contestant| contestant.role == Role::Overlay);
    let chapters = if with_chapters { chapters::measure(&settings, &mut failures) } else { Chapters::default() };
    let report = Report {
        schema: Report::SCHEMA,
        date: today(),
        duration_minutes: began.elapsed().as_secs_f64() / 60.0,
        machine: Machine::this(),
        contestants: contestants.iter().map(Contestant::identity).collect(),
        settings,
        runs,
        chapters,
        bound_gigabits_per_second: None,
        asked: Vec::new(),
        failures,
    }
    .conclude();

    let document = markdown::document(&report);
    println!("{document}");
    let folder = Path::new("target/bench");
    write(folder, &report, &document).map_err(|error| format!("{}: {error}", folder.display()))?;
    eprintln!("written to {}: report.json, RESULTS.md, plot.svg", folder.display());
    let is_ours = |label: &str| contestants.iter().any(|one| one.label == label && one.is_ours()) || label == "overlay";
    Ok(!report.failures.iter().any(|failure| is_ours(&failure.contestant)))
}

fn today() -> String {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn write(folder: &Path, report: &Report, document: &str) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(folder.join("RESULTS.md"), document)?;
    plot::draw(&folder.join("plot.svg"), report)
}
