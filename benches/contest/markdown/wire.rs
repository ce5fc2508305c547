//! The results of all contestants on one wire: rates, latencies, and the effect of the scheduling classes.

use super::row;
use crate::contest::contestant::{Identity, Role};
use crate::contest::report::Report;
use crate::contest::runs::Subject;
use crate::contest::series::Series;
use crate::contest::settings::Wire;
use crate::contest::table::{Table, number, pair};
use crate::contest::tcp::Direction;
use crate::contest::udp;

/// The title and the tables.
pub(super) fn section(report: &Report, wire: Wire) -> String {
    let figures = Figures { report, wire };
    format!("\n## {}\n{}{}{}", wire.title(), figures.rates(), figures.waiting(), figures.scheduling())
}

/// A table below its explanation. Empty if the table has no values.
fn explained(text: &str, table: Table) -> String {
    let table = table.without_gaps();
    if table.is_empty() { String::new() } else { format!("\n{text}\n\n{}", table.to_markdown()) }
}

/// The contestants on one wire.
struct Figures<'a> {
    report: &'a Report,
    wire: Wire,
}

impl Figures<'_> {
    fn rates(&self) -> String {
        let head = [
            "",
            "TCP 1, Gb/s",
            "reverse",
            "TCP 8, Gb/s",
            "reverse",
            "UDP 64 B, kpps",
            "lost, %",
            "UDP 1372 B, Gb/s",
            "lost, %",
            "CPU s/GB, daemons",
            "machine",
        ];
        let mut table = Table::new(1, &head);
        let [small, large] = udp::PAYLOADS;
        for subject in self.subjects() {
            let runs = &self.report.runs;
            let rate = |streams, direction| runs.tcp(subject, streams, direction, |run| run.gigabits_per_second);
            let figures = [
                rate(1, Direction::Forward),
                rate(1, Direction::Reverse),
                rate(8, Direction::Forward),
                rate(8, Direction::Reverse),
                runs.udp(subject, small, |run| run.kilopackets_per_second),
                runs.udp(subject, small, |run| run.lost_percent),
                runs.udp(subject, large, |run| run.gigabits_per_second),
                runs.udp(subject, large, |run| run.lost_percent),
                runs.one_stream(subject, |run| run.daemon_cpu_seconds_per_gb),
                runs.one_stream(subject, |run| run.machine_cpu_seconds_per_gb),
            ];
            table.row(row(subject.contestant, figures.map(|figure| number(figure.median()))));
        }
        explained(
            "TCP with one stream and with eight, from the host whose daemon came last (forward) and towards it; UDP sent as\n\
             fast as the sender can, payload and datagrams that arrived; CPU time during the one stream forward.",
            table,
        )
    }

    fn waiting(&self) -> String {
        let head = [
            "",
            "ping idle, ms p50 / p99",
            "beside TCP, ms p50 / p99",
            "that stream, Gb/s",
            "memory at rest, MB",
            "under load",
            "at most",
            "first answer, ms",
        ];
        let mut table = Table::new(1, &head);
        for subject in self.subjects() {
            let runs = &self.report.runs;
            let ping = |is_loaded| {
                let p50 = runs.ping(subject, is_loaded, |run| run.p50_milliseconds);
                pair(p50.median(), runs.ping(subject, is_loaded, |run| run.p99_milliseconds).median())
            };
            let figures = [
                runs.stream_beside_ping(subject),
                runs.memory(subject, |run| run.at_rest_bytes),
                runs.memory(subject, |run| run.under_load_bytes),
                runs.memory(subject, |run| run.peak_bytes),
                runs.first_answer(subject),
            ];
            let figures = figures.map(|figure| number(figure.median()));
            table.row(row(subject.contestant, [ping(false), ping(true)].into_iter().chain(figures)));
        }
        explained(
            "Round trips, idle and beside one TCP stream in the same direction; what the larger daemon holds (VmRSS, VmHWM);\n\
             from the start of the second daemon, all files being there, to the first answered ping.",
            table,
        )
    }

    /// The benefit and cost of the scheduling classes, compared with ours by default.
    fn scheduling(&self) -> String {
        let head = [
            "",
            "beside TCP, p50 / p99",
            "that stream",
            "TCP 1",
            "UDP 64 B",
            "CPU for each GB, daemons",
            "CPU for each GB, machine",
        ];
        let mut table = Table::new(1, &head);
        let variants = self.report.contestants.iter().filter(|one| one.role == Role::OverlayVariant);
        for Identity { label, .. } in variants {
            let runs = &self.report.runs;
            let times = |of: &dyn Fn(Subject<'_>) -> Series| {
                let [variant, ours] =
                    [label.as_str(), "overlay"].map(|contestant| of(Subject { contestant, wire: self.wire }));
                variant.over(&ours).median()
            };
            let [small, _] = udp::PAYLOADS;
            let p50 = times(&|subject| runs.ping(subject, true, |run| run.p50_milliseconds));
            let p99 = times(&|subject| runs.ping(subject, true, |run| run.p99_milliseconds));
            let figures = [
                times(&|subject| runs.stream_beside_ping(subject)),
                times(&|subject| runs.one_stream(subject, |run| run.gigabits_per_second)),
                times(&|subject| runs.udp(subject, small, |run| run.kilopackets_per_second)),
                times(&|subject| runs.one_stream(subject, |run| run.daemon_cpu_seconds_per_gb)),
                times(&|subject| runs.one_stream(subject, |run| run.machine_cpu_seconds_per_gb)),
            ];
            table.row(row(label, [pair(p50, p99)].into_iter().chain(figures.map(number))));
        }
        explained("What a scheduling class brings and costs, as multiples of ours without one.", table)
    }

    fn subjects(&self) -> impl Iterator<Item = Subject<'_>> {
        self.report.contestants.iter().map(|contestant| Subject { contestant: &contestant.label, wire: self.wire })
    }
}
