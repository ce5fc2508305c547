//! Many prefixes and many peers, next to a session that keeps working.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore as _};

use super::device::one_ping;
use super::worlds::Wire;
use crate::lab::{B, Finished, Outside, Pings};

/// Each line has two prefixes.
const PREFIX_LINES: usize = 255 * 256;
const PEERS: usize = 10_000;
/// The most memory that a peer may take.
const BYTES_PER_PEER: u64 = 16 << 10;

/// A public key. Any 32 bytes are valid, and drawing them at random is all that a test with ten thousand can afford.
fn public_key() -> String {
    use base64::Engine as _;
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// How many prefixes `wg show IFACE allowed-ips` lists. Each line has a key and its prefixes.
fn prefixes(shown: &str) -> usize {
    shown.split_whitespace().count() - shown.lines().count()
}

#[test]
fn prefixes_and_peers_in_bulk_come_and_go_beside_a_session_that_carries_on() {
    let Some(world) = Wire::new("bulk") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    let handshake = b.device.latest_handshake(&a.key);
    let pings = Pings::new(u16::MAX, Duration::from_millis(100)).start(&a.host, B.v4);
    let timed = |what: &str, limit: u64, finished: &dyn Fn() -> Finished| {
        let began = Instant::now();
        let said = finished().succeeded(what);
        let (took, held) = (began.elapsed(), a.device.resident());
        eprintln!("{what}: {:.2} s, {} MiB resident", took.as_secs_f64(), held >> 20);
        assert!(took < Duration::from_secs(limit), "{what} took {took:?}");
        said
    };

    let mut config = format!("[Peer]\nPublicKey = {}\n", public_key());
    for (high, low) in (1..=255).flat_map(|high| (0..=255).map(move |low| (high, low))) {
        writeln!(config, "AllowedIPs = {high}.{low}.0.0/16, {high}::{low}/128").expect("text");
    }
    timed("130,560 prefixes", 20, &|| a.device.conf("addconf", &config));
    let shown = timed("130,560 prefixes shown", 20, &|| a.host.run(format!("wg show {} allowed-ips", a.device.name())));
    assert_eq!(prefixes(&shown), 2 * PREFIX_LINES + 2, "every prefix, and the two of `b`");
    let first = config.lines().nth(1).and_then(|line| line.split(" = ").nth(1)).expect("a key").to_owned();
    timed("130,560 prefixes removed", 20, &|| a.host.run(format!("wg set {} peer {first} remove", a.device.name())));
    assert_eq!(prefixes(&a.device.show("allowed-ips")), 2);

    let before = a.device.resident();
    let keys: Vec<_> = (0..PEERS).map(|_| public_key()).collect();
    let mut config = String::new();
    for (number, key) in keys.iter().enumerate() {
        let (high, low) = (number / 250, number % 250);
        writeln!(config, "[Peer]\nPublicKey = {key}\nAllowedIPs = 172.20.{high}.{low}/32, 2001:db8:{high}::{low}/128")
            .expect("text");
    }
    timed("10,000 peers", 20, &|| a.device.conf("addconf", &config));
    let each = a.device.resident().saturating_sub(before) / PEERS as u64;
    assert!(each <= BYTES_PER_PEER, "{each} bytes for each peer");
    let shown = timed("10,000 peers shown", 20, &|| a.host.run(format!("wg show {} dump", a.device.name())));
    assert_eq!(shown.lines().count(), PEERS + 2, "the device, `b`, and all of them");
    let gone: String = keys.iter().fold(String::new(), |gone, key| gone + "peer " + key + " remove\n");
    let file = a.host.write("gone", gone);
    timed("10,000 peers removed", 60, &|| {
        a.host.run(["sh", "-ec", &format!("xargs -L 500 wg set {} <{}", a.device.name(), file.display())])
    });
    assert_eq!(a.device.show("peers").lines().count(), 1);

    pings.are_enough();
    pings.are_answered();
    assert_eq!(b.device.latest_handshake(&a.key), handshake, "the session was left alone");
}
