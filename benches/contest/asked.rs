//! The requirements for the data plane, line by line: the limit, the value in this run, and whether the limit is met.
//!
//! One limit for the rate is the machine's own bound. A tunnel costs at least the plain TCP stream over the same veth
//! plus one seal and one open for each byte, so a perfect tunnel would carry `cores / (t_veth + t_aead)`.

use serde::Serialize;

use super::contestant::Role;
use super::report::Report;
use super::runs::{Runs, Subject};
use super::series::Series;
use super::settings::Wire;
use super::udp;

/// One requirement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) figure: String,
    pub(crate) limit: Limit,
    /// The unit of the limit and of the value, or what they are multiples of.
    pub(crate) unit: String,
    /// The median over the rounds. `None` if it was not measured.
    pub(crate) seen: Option<f64>,
    /// The minimum and maximum over the rounds, if there is a value for each round.
    pub(crate) range: Option<[f64; 2]>,
    pub(crate) is_met: Option<bool>,
}

/// The limit, and on which side of it the value must be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

use Limit::{AtLeast, AtMost};

/// The bound for one stream on the unmodified veth, in Gb/s, round by round.
pub(crate) fn bound(report: &Report) -> Series {
    let cores = report.machine.cores as f64;
    let veth = report.runs.one_stream(on_veth("veth"), |run| run.machine_cpu_seconds_per_gb);
    veth.with(&report.runs.aead(), |veth, aead| 8.0 * cores / (veth + aead))
}

/// All requirements, in the order of the design.
pub(crate) fn lines(report: &Report) -> Vec<Asked> {
    let figures = Figures { report, runs: &report.runs };
    let mut lines = figures.throughput();
    lines.extend(figures.latency());
    lines.extend(figures.memory_and_scale());
    lines.extend(figures.fairness());
    lines
}

/// The data from which the requirements are evaluated.
struct Figures<'a> {
    report: &'a Report,
    runs: &'a Runs,
}

impl Figures<'_> {
    fn throughput(&self) -> Vec<Asked> {
        let rate = |subject: Subject<'_>| self.runs.one_stream(subject, |run| run.gigabits_per_second);
        let rate_on = |wire| self.against_best_peer(f64::max, |contestant| rate(Subject { contestant, wire }));
        let cpu = |label: &str| self.runs.one_stream(on_veth(label), |run| run.daemon_cpu_seconds_per_gb);
        let rust = Series::best(self.labels(&[Role::RustPeer]).map(cpu), f64::min);
        let [small, _] = udp::PAYLOADS;
        let small = |label: &str| self.runs.udp(on_veth(label), small, |run| run.kilopackets_per_second);
        let share = rate(on_veth("overlay")).over(&bound(self.report));
        let alone = cpu("overlay").over(&self.runs.aead());
        vec![
            line("TCP, one stream, veth as it is", AtLeast(4.5), "x the best peer", &rate_on(Wire::Veth)),
            line("the same, share of the bound", AtLeast(0.55), "of the bound", &share),
            line("TCP, one stream, plain wire", AtLeast(2.2), "x the best peer", &rate_on(Wire::Plain)),
            line("CPU for each GB, both daemons", AtMost(0.25), "x the best Rust peer", &cpu("overlay").over(&rust)),
            line("the same", AtMost(3.0), "x the AEAD alone", &alone),
            line("UDP, 64 bytes, one flow", AtLeast(1.5), "x the best peer", &self.against_best_peer(f64::max, small)),
        ]
    }

    fn latency(&self) -> Vec<Asked> {
        let p50 = |label: &str, is_loaded| self.runs.ping(on_veth(label), is_loaded, |run| run.p50_milliseconds);
        let p99 = |label: &str, is_loaded| self.runs.ping(on_veth(label), is_loaded, |run| run.p99_milliseconds);
        let above_veth = p50("overlay", false).with(&p50("veth", false), |mine, veth| mine - veth);
        let p50_of_best = self.against_best_peer(f64::min, |label| p50(label, true));
        let p99_of_best = self.against_best_peer(f64::min, |label| p99(label, true));
        let mut lines = vec![
            line("ping, idle, p50 above the veth's", AtMost(0.3), "ms", &above_veth),
            line("ping beside a TCP stream, p50", AtMost(1.0), "x the best peer", &p50_of_best),
            line("the same, p99", AtMost(1.0), "x the best peer", &p99_of_best),
            line("the same, p50", AtMost(4.0), "ms", &p50("overlay", true)),
            line("the same, p99", AtMost(14.0), "ms", &p99("overlay", true)),
            line("scheduling = \"realtime\", p50", AtMost(0.5), "ms", &p50("overlay-realtime", true)),
            line("scheduling = \"realtime\", p99", AtMost(4.0), "ms", &p99("overlay-realtime", true)),
        ];
        if let Some(latency) = &self.report.chapters.latency {
            for (protocol, figures) in [("UDP", &latency.udp), ("TCP", &latency.tcp)] {
                let range = Some(figures.ratio_range);
                let figure = format!("{} bytes there and back, {protocol}", latency.message_bytes);
                let unit = "x a copier without cryptography";
                lines.push(Asked::new(figure, AtMost(latency.asked_ratio), unit, Some(figures.ratio), range));
            }
        }
        lines
    }

    fn memory_and_scale(&self) -> Vec<Asked> {
        let peak = self.runs.memory(on_veth("overlay"), |run| run.peak_bytes);
        let mut lines = vec![line("memory with one peer, at most ever", AtMost(20.0), "MB", &peak)];
        let Some(scale) = &self.report.chapters.scale else { return lines };
        let further_kib = scale.asked_further_peer_bytes / 1024.0;
        for (kind, crowd) in [("waited for", &scale.waited_for), ("with endpoints", &scale.with_endpoints)] {
            let figures = [
                ("memory, each further one", further_kib, "KiB", crowd.further_peer_bytes / 1024.0),
                ("`up`", scale.asked_up_seconds, "s", crowd.up_seconds),
                ("idle", scale.asked_idle_cores, "of a core", crowd.idle_cores),
            ];
            lines.extend(figures.map(|(figure, most, unit, seen)| {
                Asked::new(format!("{} peers {kind}: {figure}", scale.peers), AtMost(most), unit, Some(seen), None)
            }));
        }
        lines
    }

    fn fairness(&self) -> Vec<Asked> {
        let Some(fairness) = &self.report.chapters.fairness else { return Vec::new() };
        let sharing = &fairness.overlay;
        let line = |figure: &str, limit, unit, seen| {
            Asked::new(format!("{} TCP streams: {figure}", fairness.streams), limit, unit, Some(seen), None)
        };
        vec![
            line("Jain's index", AtLeast(fairness.asked_jain_index), "", sharing.jain_index),
            line("longest stall", AtMost(fairness.asked_stall_seconds), "s", sharing.longest_stall_seconds),
        ]
    }

    /// Our value divided by that of the best peer, round by round.
    fn against_best_peer(&self, better: fn(f64, f64) -> f64, of: impl Fn(&str) -> Series) -> Series {
        of("overlay").over(&Series::best(self.labels(&[Role::Peer, Role::RustPeer]).map(&of), better))
    }

    fn labels<'a>(&'a self, roles: &'a [Role]) -> impl Iterator<Item = &'a str> {
        let those = self.report.contestants.iter().filter(|contestant| roles.contains(&contestant.role));
        those.map(|contestant| contestant.label.as_str())
    }
}

fn on_veth(contestant: &str) -> Subject<'_> {
    Subject { contestant, wire: Wire::Veth }
}

fn line(figure: &str, limit: Limit, unit: &str, seen: &Series) -> Asked {
    Asked::new(figure.into(), limit, unit, seen.median(), seen.range())
}

impl Asked {
    fn new(figure: String, limit: Limit, unit: &str, seen: Option<f64>, range: Option<[f64; 2]>) -> Self {
        let is_met = seen.map(|seen| match limit {
            AtLeast(least) => seen >= least,
            AtMost(most) => seen <= most,
        });
        Self { figure, limit, unit: unit.into(), seen, range, is_met }
    }
}
