//! How quickly a tunnel works: the time from the start of the second daemon, with all its files already written, to the
//! first answer.
//!
//! An echo is sent as soon as there is a route, and again whenever none has come back for a while. A thread inside the
//! namespace sends it, since starting `ping` takes as long as some daemons do.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use overlay_os::ping::Ping;

use super::namespace::inside;
use crate::lab::Host;

/// The time between two attempts while there is no route.
const PAUSE: Duration = Duration::from_millis(1);
/// How long to wait for an echo. Any WireGuard repeats a lost first handshake only after 5 s.
const ECHO: Duration = Duration::from_millis(100);
/// The most time for an answer.
const LIMIT: Duration = Duration::from_secs(15);

/// Calls `start`. Returns how long it took from then until `address` answered pings from `host`, or why it did not.
pub(crate) fn answered_after<T>(
    host: &Host,
    address: &str,
    start: impl FnOnce() -> T,
) -> (T, Result<Duration, String>) {
    let destination: IpAddr = address.parse().expect("an address");
    thread::scope(|scope| {
        let began = Instant::now();
        let answered = inside(scope, host, move || {
            let mut last = String::new();
            for sequence in 0..u16::MAX {
                if began.elapsed() > LIMIT {
                    break;
                }
                match echo(destination, sequence) {
                    Ok(true) => return Ok(began.elapsed()),
                    Ok(false) => last = "no echo came back".into(),
                    Err(error) => {
                        last = error.to_string();
                        thread::sleep(PAUSE);
                    }
                }
            }
            Err(last)
        });
        let started = start();
        let answered = answered.join().expect("it panics nowhere");
        let why = |reason| format!("no answer from {address} within {} s: {reason}", LIMIT.as_secs());
        (started, answered.map_err(why))
    })
}

/// Sends an echo, and returns whether it comes back.
fn echo(destination: IpAddr, sequence: u16) -> std::io::Result<bool> {
    let ping = Ping::connect(destination, None)?;
    ping.send(sequence, &[0; 56])?;
    Ok(ping.receive(ECHO)?.is_some())
}
