//! Keys that change while the device runs, and keys that are not valid.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::capture;
use super::device::{Device, Key, Program, no_ping, one_ping};
use super::worlds::{A_PORT, B_PORT, Two, Wire};
use crate::lab::{A, B, Host, Lab, Outside, Pair, Pings, installed};

/// X25519 maps all of these to zero, whatever the private key. A device that used one would agree on a key that
/// everyone knows.
const LOW_ORDER: [&str; 7] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
    "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
    "7P///////////////////////////////////////38=",
    "7f///////////////////////////////////////38=",
    "7v///////////////////////////////////////38=",
];

#[test]
fn a_new_private_key_is_used_for_the_very_next_packet() {
    let Some(world) = Wire::new("key change") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);

    // First one side changes its key, and its peer is told.
    let new_a = Key::new(&a.host, "new-a");
    a.device.set(&format!("private-key {}", new_a.file.display()));
    let psk = a.host.dir().join("psk");
    b.device.set(&format!(
        "peer {} preshared-key {} allowed-ips {} peer {} remove",
        new_a.public,
        psk.display(),
        A.allowed().join(","),
        a.key.public
    ));
    one_ping(&a.host, B.v4);
    assert_eq!(a.device.show("public-key"), new_a.public);

    // Then the other side does, and it starts the handshake.
    let new_b = Key::new(&b.host, "new-b");
    let endpoint = B.endpoint(Outside::V4, B_PORT);
    a.device.set(&format!(
        "peer {} preshared-key {} allowed-ips {} endpoint {endpoint} peer {} remove",
        new_b.public,
        psk.display(),
        B.allowed().join(","),
        b.key.public
    ));
    b.device.set(&format!("private-key {}", new_b.file.display()));
    one_ping(&b.host, A.v4);

    // Without a key it stays silent.
    b.device.set(&format!("private-key {}", Key::NONE));
    no_ping(&a.host, B.v4);
    no_ping(&b.host, A.v4);
    b.device.set(&format!("private-key {}", new_b.file.display()));
    one_ping(&b.host, A.v4);
}

/// The existing session continues. The next handshake works only if both sides have the key.
#[test]
fn a_peer_with_another_preshared_key_gets_no_session() {
    let Some(world) = Wire::new("preshared key") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    let other = a.host.write_secret("other-psk", &a.host.exec("wg genpsk"));
    let handshake = a.device.latest_handshake(&b.key);
    a.device.set(&format!("peer {} preshared-key {}", b.key.public, other.display()));
    one_ping(&a.host, B.v4);
    one_ping(&b.host, A.v4);
    assert_eq!(a.device.latest_handshake(&b.key), handshake);
    // Setting the private key again, even to the same value, ends the sessions that used it.
    renew(&a.device, &a.key);
    no_ping(&a.host, B.v4);
    b.device.set(&format!("peer {} preshared-key {}", a.key.public, other.display()));
    a.host.reaches(B.v4);
    for (side, peer) in [(a, b), (b, a)] {
        side.device.set(&format!("peer {} preshared-key {}", peer.key.public, Key::NONE));
    }
    renew(&a.device, &a.key);
    a.host.reaches(B.v4);
}

/// As fast as `wg` can, with either side first in turn.
#[test]
fn a_preshared_key_that_changes_loses_nothing_and_no_session() {
    let Some(world) = Wire::new("changing psk") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    let handshake = b.device.latest_handshake(&a.key);
    let pings = Pings::new(300, Duration::from_millis(5));
    let pings = [(a, B.v4), (b, A.v6)].map(|(from, to)| pings.start(&from.host, to));
    let keys = Keys::new(&a.host);
    for round in 0..60 {
        keys.set(&world.two, round, round % 2 == 0);
    }
    for ping in pings {
        ping.are_answered();
    }
    assert_eq!(b.device.latest_handshake(&a.key), handshake);
}

/// As Rosenpass does it, but more often. With a peer of our own kind and with a stock one.
#[test]
fn pings_over_a_rekey_while_preshared_keys_change_all_the_time_are_all_answered() {
    let name = "psk and rekey";
    if !installed(name, &["wireguard-go"]) {
        return;
    }
    thread::scope(|scope| {
        for (far, outside) in [(Program::under_test(), Outside::V4), (Program::Reference, Outside::V6)] {
            for a_begins in [true, false] {
                scope.spawn(move || over_a_rekey(name, far, outside, a_begins));
            }
        }
    });
}

fn over_a_rekey(name: &str, far: Program, outside: Outside, a_begins: bool) {
    let Some(pair) = Pair::new(name) else { return };
    let devices = (Device::start(&pair.a), Device::named(far, &pair.b, pair.b.interface()));
    let two = Two::configure(devices.0, Key::of(&pair.a), devices.1, Key::of(&pair.b));
    two.endpoints(&A.endpoint(outside, A_PORT), &B.endpoint(outside, B_PORT));
    let (a, b) = (&two.a, &two.b);
    let (first, address) = if a_begins { (a, B.v4) } else { (b, A.v4) };
    one_ping(&first.host, address);
    let handshake = a.device.latest_handshake(&b.key);
    // 135 s: the initiator rekeys after 120 s, and again 5 s later if that attempt fell between the two sides' changes.
    let pings = Pings::new(4500, Duration::from_millis(30));
    let pings = [(a, B.v4), (b, A.v6)].map(|(from, to)| pings.start(&from.host, to));
    let keys = Keys::new(&a.host);
    let began = Instant::now();
    for round in 0.. {
        keys.set(&two, round, round % 2 == 0);
        if began.elapsed() > Duration::from_secs(135) {
            break;
        }
        thread::sleep(Duration::from_millis(700));
    }
    for ping in pings {
        ping.finish().unwrap_or_else(|lost| panic!("{far:?}, {outside:?}, a begins: {a_begins}: {lost}"));
    }
    assert!(a.device.latest_handshake(&b.key) >= handshake + 120, "{far:?}, {outside:?}, a begins: {a_begins}");
}

/// Preshared keys that are used in turn.
struct Keys(Vec<PathBuf>);

impl Keys {
    fn new(host: &Host) -> Keys {
        Keys((0..3).map(|number| host.write_secret(&format!("psk-{number}"), &host.exec("wg genpsk"))).collect())
    }

    /// Gives both sides the key of this round.
    #[track_caller]
    fn set(&self, two: &Two, round: usize, a_is_first: bool) {
        let file = self.0[round % self.0.len()].display();
        let (a, b) = (&two.a, &two.b);
        let sides = if a_is_first { [(a, b), (b, a)] } else { [(b, a), (a, b)] };
        for (side, peer) in sides {
            side.device.set(&format!("peer {} preshared-key {file}", peer.key.public));
        }
    }
}

/// Makes a device forget its sessions: it gets a different key, and then its own again.
fn renew(device: &Device, key: &Key) {
    let passing = Key::new(device.host(), "passing");
    device.set(&format!("private-key {}", passing.file.display()));
    device.set(&format!("private-key {}", key.file.display()));
}

/// `wg` allows peers with such keys to be configured, but nothing is ever sent to them.
#[test]
fn peers_with_low_order_keys_are_met_with_silence() {
    let Some(pair) = Pair::new("low order") else { return };
    let device = Device::start(&pair.a);
    let honest = Key::of(&pair.b);
    let capture = capture::start(&pair.b, &pair.b.link_to(&pair.a), "udp");
    device.address("10.77.0.1/24");
    device.set(&format!("private-key {} listen-port {A_PORT}", pair.a.private_key_file().display()));
    for (number, key) in LOW_ORDER.iter().enumerate() {
        device.set(&format!(
            "peer {key} persistent-keepalive 1 endpoint 10.1.0.2:1111 allowed-ips 10.77.0.{}/32",
            100 + number
        ));
    }
    device.up();
    assert_eq!(device.show("peers").lines().count(), LOW_ORDER.len(), "{}", device.show("peers"));
    for number in 0..LOW_ORDER.len() {
        no_ping(&pair.a, &format!("10.77.0.{}", 100 + number));
    }
    // Two keepalive intervals and a retry later, nothing has been sent. An honest peer next to them is called at once.
    let quiet_until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < quiet_until {
        assert_eq!(capture.datagrams_from(A_PORT), Vec::<Vec<u8>>::new());
        thread::sleep(Duration::from_millis(250));
    }
    device.set(&format!("peer {} persistent-keepalive 1 endpoint 10.1.0.2:1111", honest.public));
    crate::lab::within(crate::lab::SHORTLY, "an initiation to the honest one", || {
        capture.datagrams_from(A_PORT).iter().any(|datagram| datagram[0] == 1).then_some(())
    });
    assert!(device.is_alive());
}

/// The work of fifty devices in one: peers are distinguished only by their keys.
#[test]
fn peers_behind_one_address_are_told_apart_by_their_keys() {
    let Some(lab) = Lab::new("by keys") else { return };
    let [hub, spokes] = ["hub", "spokes"].map(|name| lab.host(name));
    lab.link(&hub, &spokes, &["10.1.0.1/24"], &["10.1.0.2/24"]);
    let device = Device::start(&hub);
    device.address("10.77.0.1/24");
    device.set(&format!("private-key {} listen-port {A_PORT}", hub.private_key_file().display()));
    device.up();
    let homes: Vec<_> = (2..5).map(|number| lab.host(&format!("home{number}"))).collect();
    let devices: Vec<_> = homes
        .iter()
        .zip(2..)
        .map(|(home, number)| {
            let psk = home.write_secret("psk", &home.exec("wg genpsk"));
            let key = Key::of(home);
            let mut spoke = Device::named(Program::under_test(), &spokes, home.interface());
            spoke.move_to(home);
            spoke.address(&format!("10.77.0.{number}/24"));
            spoke.set(&format!(
                "private-key {} peer {} preshared-key {} allowed-ips 10.77.0.0/24 endpoint 10.1.0.1:{A_PORT}",
                key.file.display(),
                hub.public_key(),
                psk.display()
            ));
            spoke.up();
            device.set(&format!("peer {} preshared-key {} allowed-ips 10.77.0.{number}/32", key.public, psk.display()));
            spoke
        })
        .collect();
    for (home, number) in homes.iter().zip(2..) {
        one_ping(home, "10.77.0.1");
        one_ping(&hub, &format!("10.77.0.{number}"));
    }
    // From one peer to another through the hub.
    hub.exec("sysctl -qw net.ipv4.ip_forward=1");
    one_ping(&homes[0], "10.77.0.4");
    assert!(devices.iter().all(Device::is_alive));
}
