//! The rounds: on each wire all contestants run at once, each does every step in turn, and the order rotates.
//!
//! Slow changes of the machine affect all of them alike, since only seconds lie between two contestants in a step.
//! While one is measured, the others only wait.

use std::path::Path;

use super::attempt::{Failure, attempt};
use super::contestant::{Contestant, Role};
use super::ping::PingFigures;
use super::runs::{Run, Runs, StartFigures};
use super::settings::{Measure, Settings, Wire};
use super::standing::Standing;
use super::tcp::Direction;
use super::{aead, memory, ping, tcp, udp};

/// One run of one measurement.
#[derive(Clone, Copy, Debug)]
enum Step {
    Tcp(u32, Direction),
    Udp(u32),
    PingIdle,
    PingLoaded,
}

const STEPS: [Step; 8] = [
    Step::Tcp(1, Direction::Forward),
    Step::Tcp(1, Direction::Reverse),
    Step::Tcp(8, Direction::Forward),
    Step::Tcp(8, Direction::Reverse),
    Step::Udp(udp::PAYLOADS[0]),
    Step::Udp(udp::PAYLOADS[1]),
    Step::PingIdle,
    Step::PingLoaded,
];

/// One wire in one round.
struct Lap<'a> {
    settings: &'a Settings,
    round: u32,
    wire: Wire,
    runs: &'a mut Runs,
    failures: &'a mut Vec<Failure>,
}

/// Runs all rounds.
pub(crate) fn measure(settings: &Settings, contestants: &[Contestant], failures: &mut Vec<Failure>) -> Runs {
    let mut runs = Runs::default();
    for round in 0..settings.rounds {
        if settings.wants(Measure::Aead) {
            runs.aead.push(aead::measure());
        }
        for wire in Wire::ALL.into_iter().filter(|wire| settings.wants_wire(*wire)) {
            Lap { settings, round, wire, runs: &mut runs, failures }.run(contestants);
        }
    }
    runs
}

impl Lap<'_> {
    fn run(&mut self, contestants: &[Contestant]) {
        let mut order: Vec<&Contestant> = contestants.iter().collect();
        let first = self.round as usize % order.len().max(1);
        order.rotate_left(first);
        let mut all: Vec<(&Contestant, Standing)> =
            order.into_iter().filter_map(|contestant| Some((contestant, self.stand(contestant)?))).collect();
        for step in STEPS.into_iter().filter(|step| self.settings.wants(step.measure())) {
            let first = usize::from(!all.is_empty());
            all.rotate_left(first);
            all.retain(|(contestant, standing)| {
                if contestant.role != Role::OverlayVariant || step.is_for_variants() {
                    self.take(step, contestant, standing);
                }
                self.still_stands(contestant, standing)
            });
        }
        if self.settings.wants(Measure::Memory) {
            for (contestant, standing) in all.iter().filter(|(contestant, _)| contestant.role != Role::Veth) {
                let figures = self.attempt(contestant, "memory", || memory::measure(standing));
                self.runs.memory.extend(figures.map(|figures| self.run_of(contestant, figures)));
            }
        }
    }

    /// Starts a contestant and warms it up.
    fn stand(&mut self, contestant: &Contestant) -> Option<Standing> {
        let wire = self.wire;
        let standing = self.attempt(contestant, "start", || {
            let standing = contestant.stand(wire);
            tcp::warm_up(&standing);
            standing
        })?;
        if let Some(time) = standing.start.filter(|_| self.settings.wants(Measure::Start)) {
            let figures = StartFigures { first_answer_milliseconds: time.as_secs_f64() * 1e3 };
            self.runs.start.push(self.run_of(contestant, figures));
            self.say("start", contestant, &format!("{:.0} ms", figures.first_answer_milliseconds));
        }
        Some(standing)
    }

    fn take(&mut self, step: Step, contestant: &Contestant, standing: &Standing) {
        let (name, seconds) = (step.name(), self.settings.seconds);
        match step {
            Step::Tcp(streams, direction) => {
                let figures = self.attempt(contestant, &name, || tcp::measure(standing, streams, direction, seconds));
                let Some(figures) = figures else { return };
                self.say(&name, contestant, &format!("{:.2} Gb/s", figures.gigabits_per_second));
                self.runs.tcp.push(self.run_of(contestant, figures));
            }
            Step::Udp(payload) => {
                let figures = self.attempt(contestant, &name, || udp::measure(standing, payload, seconds));
                let Some(figures) = figures else { return };
                self.say(&name, contestant, &format!("{:.1} kpps", figures.kilopackets_per_second));
                self.runs.udp.push(self.run_of(contestant, figures));
            }
            Step::PingIdle | Step::PingLoaded => {
                let measure = if matches!(step, Step::PingIdle) { ping::idle } else { ping::loaded };
                let figures = self.attempt(contestant, &name, || measure(standing, seconds));
                let Some(figures) = figures else { return };
                let PingFigures { p50_milliseconds, p99_milliseconds, .. } = figures;
                self.say(&name, contestant, &format!("p50 {p50_milliseconds:.2} ms, p99 {p99_milliseconds:.2} ms"));
                self.runs.ping.push(self.run_of(contestant, figures));
            }
        }
    }

    /// Whether the contestant's daemons are still running. If not, the failure is recorded and the round continues
    /// without it.
    fn still_stands(&mut self, contestant: &Contestant, standing: &Standing) -> bool {
        let ended = standing.pids.iter().find(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        if ended.is_some() {
            self.note_failure(contestant, "stand", format!("a daemon has ended: {}", standing.last_words()));
        }
        ended.is_none()
    }

    /// The result of `act`. If it fails, records the failure and returns `None`.
    fn attempt<T>(&mut self, contestant: &Contestant, step: &str, act: impl FnOnce() -> T) -> Option<T> {
        attempt(act).map_err(|reason| self.note_failure(contestant, step, reason)).ok()
    }

    fn note_failure(&mut self, contestant: &Contestant, step: &str, reason: String) {
        self.say(step, contestant, &format!("failed: {reason}"));
        self.failures.push(Failure {
            contestant: contestant.label.clone(),
            step: step.into(),
            round: Some(self.round),
            wire: Some(self.wire),
            reason,
        });
    }

    fn run_of<F>(&self, contestant: &Contestant, figures: F) -> Run<F> {
        Run { round: self.round, wire: self.wire, contestant: contestant.label.clone(), figures }
    }

    /// Prints a line of progress.
    fn say(&self, step: &str, contestant: &Contestant, outcome: &str) {
        let (round, rounds, wire) = (self.round + 1, self.settings.rounds, self.wire.title());
        eprintln!("round {round} of {rounds}, {wire}: {step}, {}: {outcome}", contestant.label);
    }
}

impl Step {
    fn measure(self) -> Measure {
        match self {
            Step::Tcp(1, _) => Measure::Tcp,
            Step::Tcp(..) => Measure::Tcp8,
            Step::Udp(_) => Measure::Udp,
            Step::PingIdle | Step::PingLoaded => Measure::Ping,
        }
    }

    /// Whether the step is for the variants too. A different scheduling class affects only latency, and has a price.
    fn is_for_variants(self) -> bool {
        const SMALL: u32 = udp::PAYLOADS[0];
        matches!(self, Step::Tcp(1, Direction::Forward) | Step::Udp(SMALL) | Step::PingIdle | Step::PingLoaded)
    }

    fn name(self) -> String {
        let name_of = |direction| if direction == Direction::Forward { "forward" } else { "reverse" };
        match self {
            Step::Tcp(1, direction) => format!("TCP, one stream, {}", name_of(direction)),
            Step::Tcp(streams, direction) => format!("TCP, {streams} streams, {}", name_of(direction)),
            Step::Udp(payload) => format!("UDP, {payload} bytes"),
            Step::PingIdle => "ping, idle".into(),
            Step::PingLoaded => "ping beside a TCP stream".into(),
        }
    }
}
