//! A wall clock that is wrong when the daemon starts, as on machines without a battery, and is corrected while it runs.
//!
//! The daemon runs under libfaketime, which changes only what libc reports as the wall clock. CLOCK_BOOTTIME and the
//! timers are the kernel's. The kernel's own notice that the clock was set (TFD_TIMER_CANCEL_ON_SET) cannot be had
//! without setting this machine's clock. The daemon also notices the change at its next timer, and that is tested here.
#![allow(clippy::disallowed_methods, reason = "real time is what this is about")]

mod lab;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::faketime::{set_offset, under_another_clock};
use lab::{B, Host, Outside, Overlay, Pair, SHORTLY, within};

/// By when a peer is heard again after its clock was changed: three attempts at a handshake, 5 s apart.
const HEARD_AGAIN: Duration = Duration::from_secs(15);

/// `overlay up` with a wall clock that is off by the current content of the file.
fn up_under_another_clock(host: &Host, config: &str, offset: &Path) -> Option<Command> {
    let path = host.write("overlay.toml", config);
    let mut command = host.overlay_command(format!("up {}", path.display()));
    under_another_clock(&mut command, offset).then_some(command)
}

#[test]
fn a_daemon_that_began_a_day_behind_is_heard_once_its_clock_is_right() {
    let Some(pair) = Pair::new("wall clock") else { return };
    let b = pair.b.overlay_up(&pair.config_of_b_waiting());
    // The peer cannot call, so only our handshakes can connect the two.
    pair.b.exec("nft add table inet mute");
    pair.b.exec("nft add chain inet mute out { type filter hook output priority 0 ; }");
    pair.b.exec("nft add rule inet mute out udp sport 51820 @th,64,8 1 drop");
    let config = pair.config_of_a(Outside::V4) + "persistent_keepalive = 1\n";
    let offset = set_offset(&pair.a, "-1d");
    let Some(command) = up_under_another_clock(&pair.a, &config, &offset) else { return };

    // The peer remembers a handshake from today.
    let a = pair.a.overlay_up(&config);
    pair.a.reaches(B.v4);
    // A daemon that ends in order would hand over its latest timestamp.
    a.kill9();

    let a = Overlay::from_command(&pair.a, command);
    within(SHORTLY, "the peer to refuse yesterday", || (b.dropped("handshake_replay") > 0).then_some(()));
    assert_ne!(a.peer(&pair.b)["state"], "connected");

    set_offset(&pair.a, "+0");
    pair.a.reaches_within(HEARD_AGAIN, B.v4);
    // What is shown follows the clock as well.
    let status = a.peer(&pair.b);
    let (latest, now) = (status["latest_handshake"].as_u64().unwrap_or_default(), now());
    assert!(now - 60 <= latest && latest <= now + 1, "{latest} at {now}");

    // Setting the clock back: the peer has seen a later timestamp from us, and still accepts us. Dates follow.
    set_offset(&pair.a, "-1d");
    within(SHORTLY, "yesterday's date", || {
        let latest = a.peer(&pair.b)["latest_handshake"].as_u64()?;
        (latest < now - 86_000).then_some(())
    });
    // A peer that is removed and added again has no session and no memory of the earlier one.
    let (interface, key) = (pair.a.interface(), pair.b.public_key());
    pair.a.exec(format!("wg set {interface} peer {key} remove"));
    let endpoint = B.endpoint(Outside::V4, 51820);
    pair.a.exec(format!("wg set {interface} peer {key} allowed-ips {}/32,{}/128 endpoint {endpoint}", B.v4, B.v6));
    pair.a.reaches_within(HEARD_AGAIN, B.v4);
}

#[test]
fn a_daemon_whose_clock_was_set_back_is_heard_after_an_orderly_restart() {
    let Some(pair) = Pair::new("wall clock, restart") else { return };
    let b = pair.b.overlay_up(&pair.config_of_b_waiting());
    let config = pair.config_of_a(Outside::V4) + "persistent_keepalive = 1\n";
    let offset = set_offset(&pair.a, "+1d");
    let Some(command) = up_under_another_clock(&pair.a, &config, &offset) else { return };
    let tomorrow = Overlay::from_command(&pair.a, command);
    pair.a.reaches(B.v4);
    set_offset(&pair.a, "+0");
    tomorrow.stop();

    // Twice, because the second daemon never saw the false time.
    for _ in 0..2 {
        let a = pair.a.overlay_up(&config);
        pair.a.reaches(B.v4);
        assert_eq!(b.dropped("handshake_replay"), 0);
        a.stop();
    }
}

/// The time in seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
