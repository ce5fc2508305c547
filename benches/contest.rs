//! `make bench`: the data plane beside other people's, in one run.
//!
//! In interleaved rounds over the same kind of veth, both as it is and without offloads, every contestant does the same:
//! TCP, UDP, ping, with its memory and its CPU time watched. The result is a table, `target/bench/report.json`,
//! `target/bench/RESULTS.md` and a plot. See `contest/settings.rs` for what the environment may say.
//!
//! Needs root. The exit code is 1 if ours failed somewhere, 2 if it was asked for something unknown; a peer that fails is
//! reported and the run goes on.
#![allow(clippy::disallowed_methods, reason = "real time and real processes are what this is about")]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod contest {
    pub(crate) mod contestant;
    pub(crate) mod cpu;
    pub(crate) mod iperf;
    pub(crate) mod machine;
    pub(crate) mod memory;
    pub(crate) mod namespace;
    pub(crate) mod ping;
    pub(crate) mod report;
    pub(crate) mod rounds;
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
use std::process::ExitCode;

use contest::contestant::Contestant;
use contest::machine::Machine;
use contest::report::Report;
use contest::settings::Settings;
use contest::{rounds, table};

fn main() -> ExitCode {
    match Settings::from_environment().and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Whether ours did everything.
fn run(settings: Settings) -> Result<bool, String> {
    let all = Contestant::all(&settings.peer_bins);
    let labels: Vec<_> = all.iter().map(|contestant| contestant.label.clone()).collect();
    settings.check(&labels)?;
    if lab::Lab::new("contest").is_none() {
        return Err("this machine cannot run the contest".into());
    }
    let contestants: Vec<_> =
        all.into_iter().filter(|contestant| settings.wants_contestant(&contestant.label, &labels)).collect();

    let runs = rounds::measure(&settings, &contestants);
    let report = Report {
        schema: Report::SCHEMA,
        machine: Machine::this(),
        contestants: contestants.iter().map(Contestant::identity).collect(),
        settings,
        runs,
    };
    let markdown = table::markdown(&report);
    println!("{markdown}");
    write(&report, &markdown).map_err(|error| format!("target/bench: {error}"))?;
    Ok(true)
}

fn write(report: &Report, markdown: &str) -> std::io::Result<()> {
    let folder = Path::new("target/bench");
    fs::create_dir_all(folder)?;
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(folder.join("RESULTS.md"), markdown)
}
