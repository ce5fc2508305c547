//! How soon a tunnel carries: from the start of the second daemon, everything it reads being written, to the first answer.
//!
//! An echo is sent as soon as there is a route, and again whenever none has come back for a while. A thread inside the
//! namespace asks, since starting `ping` costs as much as some daemons take.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use overlay_os::ping::Ping;

use super::namespace::inside;
use crate::lab::Host;

/// Between two attempts while there is no route.
const PAUSE: Duration = Duration::from_millis(1);
/// How long an echo is waited for. A lost first handshake is repeated by any WireGuard after 5 s.
const ECHO: Duration = Duration::from_millis(100);
/// Who has not answered by then does not.
const LIMIT: Duration = Duration::from_secs(15);

/// Does `start`, and says how long it took from then until `address` answered pings from `host`, or why it did not.
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

/// Whether an echo comes back.
fn echo(destination: IpAddr, sequence: u16) -> std::io::Result<bool> {
    let ping = Ping::connect(destination, None)?;
    ping.send(sequence, &[0; 56])?;
    Ok(ping.receive(ECHO)?.is_some())
}
