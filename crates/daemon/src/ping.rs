//! Measures round trips to a virtual IP with ICMP echoes, one after another, and reports each result.
//!
//! It is like `ping`, but goes out through our interface and nowhere else, so that an answer proves that the tunnel
//! works. Late answers count as lost. It blocks, so it needs its own thread.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use overlay_os::ping::Ping;

use crate::failure::{ExitKind, Failure};

/// ENODEV: the network namespace of this process has no such interface.
const NO_SUCH_DEVICE: i32 = 19;

/// The payload of each echo in bytes, as in `ping`.
const PAYLOAD_LEN: usize = 56;

/// The target, and how patiently to probe it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to probe.
    pub target: IpAddr,
    /// The interface to go out through, or `None` to follow the routes.
    pub device: Option<String>,
    /// Stop after this many probes, or `None` to continue.
    pub count: Option<u32>,
    /// The time between two probes. A probe that still waits for its answer delays the next one.
    pub interval: Duration,
    /// How long to wait for each answer.
    pub wait: Duration,
}

/// The result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The number of the probe, from 1.
    pub sequence: u32,
    /// The answer, or `None` if none arrived in time.
    pub answer: Option<Answer>,
}

/// An answer that arrived in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The time from just before sending to just after receiving.
    pub round_trip: Duration,
    /// The remaining TTL of the answer, if the kernel reports it.
    pub ttl: Option<u8>,
}

/// The combined result of all probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many probes were sent and have a result.
    pub sent: u32,
    /// How many answers arrived in time.
    pub received: u32,
    /// The shortest round trip. Without answers, this and the following are zero.
    pub shortest: Duration,
    /// The longest round trip.
    pub longest: Duration,
    total: Duration,
}

impl Summary {
    /// Adds the result of a probe.
    pub fn add(&mut self, probe: &Probe) {
        self.sent += 1;
        let Some(Answer { round_trip, .. }) = probe.answer else { return };
        self.shortest = if self.received == 0 { round_trip } else { self.shortest.min(round_trip) };
        self.longest = self.longest.max(round_trip);
        self.total += round_trip;
        self.received += 1;
    }

    /// Returns the mean round trip.
    pub fn mean(&self) -> Duration {
        self.total.checked_div(self.received).unwrap_or_default()
    }

    /// Returns the share of probes without an answer, in per cent.
    pub fn loss_percent(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { f64::from(self.sent - self.received) * 100.0 / f64::from(self.sent) }
    }
}

/// Sends probes until the count is reached or `on_probe` returns `Break`.
///
/// # Errors
///
/// [`ExitKind::Permission`] if ICMP sockets are forbidden, [`ExitKind::NotFound`] if the device is not in this network
/// namespace, [`ExitKind::Other`] for any other error when opening the socket. A probe that cannot be sent counts as lost.
pub fn run(options: &Options, mut on_probe: impl FnMut(Probe) -> ControlFlow<()>) -> Result<(), Failure> {
    let socket =
        Ping::connect(options.target, options.device.as_deref()).map_err(|error| no_socket(options, &error))?;
    let mut sequence = 0;
    while options.count.is_none_or(|count| sequence < count) {
        sequence += 1;
        let sent = Instant::now();
        let answer = ask(&socket, sequence, options.wait);
        if on_probe(Probe { sequence, answer }).is_break() {
            break;
        }
        if options.count != Some(sequence) {
            std::thread::sleep(options.interval.saturating_sub(sent.elapsed()));
        }
    }
    Ok(())
}

/// Sends one probe and waits for its answer. The wire carries the lower half of its number.
fn ask(socket: &Ping, sequence: u32, wait: Duration) -> Option<Answer> {
    let on_wire = sequence as u16;
    let sent = Instant::now();
    socket.send(on_wire, &[0x5a; PAYLOAD_LEN]).ok()?;
    loop {
        let left = wait.checked_sub(sent.elapsed()).filter(|left| !left.is_zero())?;
        match socket.receive(left) {
            // This answers an earlier probe and is too late.
            Ok(Some(reply)) if reply.sequence != on_wire => {}
            Ok(Some(reply)) => return Some(Answer { round_trip: sent.elapsed(), ttl: reply.ttl }),
            // An ICMP error such as "host unreachable" means a lost probe, like silence.
            Ok(None) | Err(_) => return None,
        }
    }
}

fn no_socket(options: &Options, error: &io::Error) -> Failure {
    if let (Some(device), Some(NO_SUCH_DEVICE)) = (&options.device, error.raw_os_error()) {
        return Failure::new(ExitKind::NotFound, format!("interface `{device}` is in a different network namespace"))
            .with_cause("the daemon answers here, but packets must be sent from the namespace of the interface");
    }
    let failure = Failure::new(ExitKind::Other, "cannot open an ICMP socket").with_cause(error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let hint = match overlay_os::privileges::effective_uid() {
                0 => "sudo sysctl net.ipv4.ping_group_range=\"0 2147483647\"",
                _ => "run the same command with sudo",
            };
            Failure { code: ExitKind::Permission, ..failure }.with_hint(hint)
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_summary_counts_losses_and_keeps_extremes_and_mean() {
        let mut summary = Summary::default();
        assert_eq!(summary.loss_percent(), 0.0);
        for (sequence, micros) in [(1, Some(400)), (2, None), (3, Some(200)), (4, Some(600))] {
            let answer = micros.map(|micros| Answer { round_trip: Duration::from_micros(micros), ttl: None });
            summary.add(&Probe { sequence, answer });
        }
        assert_eq!((summary.sent, summary.received), (4, 3));
        assert_eq!(summary.loss_percent(), 25.0);
        assert_eq!(summary.shortest, Duration::from_micros(200));
        assert_eq!(summary.longest, Duration::from_micros(600));
        assert_eq!(summary.mean(), Duration::from_micros(400));
    }

    #[test]
    fn a_device_that_this_namespace_lacks_is_said_to_be_elsewhere() {
        let options = Options {
            target: Ipv4Addr::LOCALHOST.into(),
            device: Some("nosuchdevice".to_owned()),
            count: Some(1),
            interval: Duration::ZERO,
            wait: Duration::ZERO,
        };
        let failure = run(&options, |_| ControlFlow::Continue(())).expect_err("no such device");
        if failure.code == ExitKind::Permission {
            println!("skipped: {failure}");
            return;
        }
        let expected = (ExitKind::NotFound, "interface `nosuchdevice` is in a different network namespace");
        assert_eq!((failure.code, failure.error.as_str()), expected);
    }

    #[test]
    fn loopback_answers_every_probe_and_the_callback_ends_it() {
        let options = Options {
            target: Ipv4Addr::LOCALHOST.into(),
            device: None,
            count: Some(5),
            interval: Duration::from_millis(1),
            wait: Duration::from_secs(2),
        };
        let mut seen = Vec::new();
        let done = run(&options, |probe| {
            seen.push(probe);
            if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(failure) = done {
            println!("skipped: {failure}");
            return;
        }
        assert_eq!(seen.iter().map(|probe| probe.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(seen.iter().all(|probe| probe.answer.is_some()), "{seen:?}");
    }
}
