//! Tunnels inside tunnels, on purpose and by mistake: a datagram that is routed into its own tunnel must not multiply.

use std::thread;
use std::time::{Duration, Instant};

use super::device::{Device, Key, Program, no_ping, one_ping};
use super::traffic::exchange;
use super::worlds::{A_PORT, Apart, Side, Two, Wire};
use crate::lab::{A, B, Host, Lab, Outside, SHORTLY, within};

/// The reason why the reference does not have to survive a loop.
const LOOPS: &str = "it seals its own datagrams again and again, as fast as it can, until the keys expire";

/// An outer tunnel with addresses of its own, and inside it one with the usual addresses.
struct Nested {
    inner: Two,
    outer: (Device, Device),
}

const OUTER_A: &str = "fd00::5:1";
const OUTER_B: &str = "fd00::5:2";

impl Nested {
    /// Turns a world's two devices into the outer tunnel, and creates the inner one.
    fn new(two: Two) -> Nested {
        let Two { a, b } = two;
        for (side, own, far, far_key) in [(&a, OUTER_A, OUTER_B, &b.key), (&b, OUTER_B, OUTER_A, &a.key)] {
            side.host.ip(&format!("address flush dev {}", side.device.name()));
            side.device.address(&format!("{own}/112"));
            side.device.set(&format!("peer {} allowed-ips {far}/128", far_key.public));
        }
        let (key_a, key_b) = (Key::new(&a.host, "inner"), Key::new(&b.host, "inner"));
        let inner = Two::configure(Device::second(&a.host), key_a, Device::second(&b.host), key_b);
        for side in [&inner.a, &inner.b] {
            side.device.mtu(1340);
        }
        inner.endpoints(&format!("[{OUTER_A}]:10001"), &format!("[{OUTER_B}]:10002"));
        Nested { inner, outer: (a.device, b.device) }
    }
}

#[test]
fn a_tunnel_in_a_tunnel_carries_pings_and_streams() {
    let Some(world) = Wire::new("nested") else { return };
    world.join(Outside::V4);
    let Wire { two, pair } = world;
    // The inner devices use the same ports in the same namespaces, so the outer ones change theirs.
    two.a.device.set("listen-port 11001");
    two.b.device.set("listen-port 11002");
    two.endpoints("10.1.0.1:11001", "10.1.0.2:11002");
    let nested = Nested::new(two);
    exchange(&nested.inner);
    assert!(nested.outer.0.is_alive() && nested.outer.1.is_alive());
    drop((nested, pair));
}

/// `wg set` may give a peer an endpoint that is reached through a different peer of the same device. That is not a
/// loop.
#[test]
fn a_peer_is_reached_through_another_peer_of_the_same_device() {
    let Some(world) = Wire::new("onion") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    let key = Key::new(&b.host, "onion");
    let inner = Device::second(&b.host);
    inner.address("192.168.242.2/24");
    inner.set(&format!(
        "private-key {} listen-port 5 peer {} allowed-ips 192.168.242.1/32",
        key.file.display(),
        a.key.public
    ));
    inner.up();
    a.device.address("192.168.242.1/24");
    a.device.set(&format!("peer {} allowed-ips 192.168.242.2/32 endpoint {}:5", key.public, B.v4));
    one_ping(&a.host, "192.168.242.2");
    assert_eq!(inner.endpoint_of(&a.key), format!("{}:10001", A.v4), "through the tunnel");
    inner.delete();

    // Now its endpoint is its own inner address.
    if Program::under_test().is_excused(LOOPS) {
        return;
    }
    a.device.set(&format!("peer {} endpoint 192.168.242.2:5", key.public));
    bounded(&a.device, || no_ping(&a.host, "192.168.242.2"));
    one_ping(&a.host, B.v4);
}

/// The wire's route is replaced by one into the tunnel during a session, so sealed datagrams come back to be sealed
/// again.
#[test]
fn an_endpoint_inside_its_own_tunnel_stays_bounded() {
    if Program::under_test().is_excused(LOOPS) {
        return;
    }
    for outside in [Outside::V4, Outside::V6] {
        let Some(world) = Wire::new("loop") else { return };
        world.join(outside);
        let (a, b) = (&world.two.a, &world.two.b);
        one_ping(&a.host, B.v4);
        let (prefix, family) = if outside == Outside::V4 { (B.outer_v4, "-4") } else { (B.outer_v6, "-6") };
        a.device.set(&format!("peer {} allowed-ips 0.0.0.0/0,::/0", b.key.public));
        a.host.ip(&format!("{family} route add {prefix} dev {}", a.device.name()));
        bounded(&a.device, || {
            let said = a.host.run(format!("ping -n -q -c 100 -i 0.01 -W 1 -s 1300 {}", B.v4));
            assert_ne!(said.code, 0, "{}", said.stdout);
        });
        // When the mistake is corrected, the tunnel works again.
        a.host.ip(&format!("{family} route delete {prefix} dev {}", a.device.name()));
        a.host.reaches(B.v4);
    }
}

/// Requires that a device neither spins nor grows while `act` runs and for two seconds afterwards.
fn bounded(device: &Device, act: impl FnOnce()) {
    let strain = Strain::on(device, act);
    assert!(strain.busy < 0.25, "{strain:?}");
    assert!(strain.grown < GROWTH, "{strain:?}");
    assert!(strain.packets < 1_000 && strain.bytes < 1_000_000, "{strain:?}");
}

/// How much a device may grow, in bytes, while its buffers fill for the first time.
const GROWTH: u64 = 8 << 20;

/// The load on a device.
#[derive(Debug)]
struct Strain {
    /// CPU use as a share of one core.
    busy: f64,
    /// Growth of memory in bytes.
    grown: u64,
    /// Packets that were sent into its interface.
    packets: u64,
    /// Bytes that were sent into its interface.
    bytes: u64,
}

impl Strain {
    /// Measures while `act` runs and for two seconds afterwards.
    fn on(device: &Device, act: impl FnOnce()) -> Strain {
        let (before, ticks, began, sent) = (device.resident(), device.ticks(), Instant::now(), sent_by(device));
        act();
        thread::sleep(Duration::from_secs(2));
        let busy = (device.ticks() - ticks) as f64 / 100.0 / began.elapsed().as_secs_f64();
        let (packets, bytes) = sent_by(device).minus(sent);
        let strain = Strain { busy, grown: device.resident().saturating_sub(before), packets, bytes };
        eprintln!("{}: {strain:?}", device.name());
        strain
    }
}

/// How many packets and bytes the kernel passed to a device.
#[derive(Clone, Copy, Debug)]
struct Sent(u64, u64);

impl Sent {
    fn minus(self, before: Sent) -> (u64, u64) {
        (self.0 - before.0, self.1 - before.1)
    }
}

fn sent_by(device: &Device) -> Sent {
    let json = device.host().ip(&format!("-j -s link show dev {}", device.name()));
    let links: serde_json::Value = serde_json::from_str(&json).expect("ip -j writes JSON");
    let number = |what: &str| links[0]["stats64"]["tx"][what].as_u64().expect("a number");
    Sent(number("packets"), number("bytes"))
}

/// The loop of two tunnels: the outer tunnel's peer is inside the inner one, and both remote ends are gone.
struct Mutual {
    inner: Device,
    outer: Device,
    far: Key,
    middle: Host,
    _lab: Lab,
}

impl Mutual {
    fn new(name: &str) -> Option<Mutual> {
        let world = Apart::new(name)?;
        world.join(Outside::V4);
        let Apart { two, middle, lab } = world;
        one_ping(&two.a.host, B.v4);
        let far = two.b.key.clone();
        let Nested { inner, outer } = Nested::new(two);
        one_ping(&inner.a.host, B.v4);
        // The inner interface moves to the namespace with the outer one's sockets.
        let Two { a: Side { device: mut inner, .. }, .. } = inner;
        inner.move_to(&middle);
        inner.address(&A.inner()[0]);
        inner.up();
        middle.reaches(B.v4);
        outer.0.set(&format!("peer {} endpoint {}:7", far.public, B.v4));
        Some(Mutual { inner, outer: outer.0, far, middle, _lab: lab })
    }

    fn pings(&self) {
        let said = self.middle.run(format!("ping -n -q -c 10 -i 0.01 -W 1 {}", B.v4));
        assert_ne!(said.code, 0, "{}", said.stdout);
    }
}

/// The loop of `netns.sh`. Each program sees only another program's datagrams, which look like any others. They
/// circulate as fast as the programs can forward them, in fragments once they exceed the MTU, until the keys expire,
/// since no side can rekey. Until then nothing may grow and everything must respond, and the loop ends at once when the
/// mistake is corrected.
#[test]
fn two_tunnels_that_lead_into_each_other_stay_bounded() {
    let Some(world) = Mutual::new("mutual loop") else { return };
    let mut inner = None;
    let outer = Strain::on(&world.outer, || inner = Some(Strain::on(&world.inner, || world.pings())));
    for strain in [Some(outer), inner].into_iter().flatten() {
        assert!(strain.grown < GROWTH, "{strain:?}");
    }
    world.outer.set(&format!("peer {} endpoint 127.0.0.1:9", world.far.public));
    assert_ended(&world);
}

#[test]
fn soak_a_loop_of_two_tunnels_ends_with_their_keys() {
    /// REJECT_AFTER_TIME, plus time for datagrams in flight.
    const KEYS: Duration = Duration::from_secs(190);
    let Some(world) = Mutual::new("mutual loop, keys") else { return };
    let began = [&world.outer, &world.inner].map(Device::resident);
    world.pings();
    thread::sleep(KEYS);
    for (device, before) in [&world.outer, &world.inner].into_iter().zip(began) {
        let grown = device.resident().saturating_sub(before);
        assert!(grown < GROWTH, "{grown} bytes more");
    }
    assert_ended(&world);
}

/// Only a handshake attempt every 5 s still goes on.
#[track_caller]
fn assert_ended(world: &Mutual) {
    for device in [&world.outer, &world.inner] {
        within(SHORTLY, "the loop to end", || {
            let strain = Strain::on(device, || ());
            (strain.packets < 50 && strain.busy < 0.05).then_some(())
        });
    }
}

/// The interface is in a container, the sockets are on the host. The container sees only the tunnel.
#[test]
fn an_interface_in_a_container_is_its_only_way_out() {
    let Some(world) = Wire::new("container") else { return };
    world.join(Outside::V4);
    let container = world.pair.lab.host("box");
    let Wire { two, pair } = world;
    let Two { a: Side { mut device, key, host }, b } = two;
    one_ping(&host, B.v4);
    device.move_to(&container);
    device.address(&A.inner()[0]);
    device.address(&A.inner()[1]);
    container.ip(&format!("link set {} up", device.name()));
    container.ip(&format!("route add default dev {}", device.name()));
    device.set(&format!("peer {} allowed-ips 0.0.0.0/0,::/0", b.key.public));
    container.reaches(B.v4);
    one_ping(&container, B.v6);
    one_ping(&b.host, A.v4);
    // Addresses beyond `b` are reached only through `b`.
    b.host.ip("address add 192.0.2.1/32 dev lo");
    one_ping(&container, "192.0.2.1");
    assert_eq!(container.ip("-o link show").lines().count(), 2, "its loopback and the tunnel");
    assert_eq!(container.exec("ss -Hlun"), "", "the sockets stayed");
    assert_eq!(b.device.endpoint_of(&key), "10.1.0.1:10001");
    // Down and up again in there, and back home.
    container.ip(&format!("link set {} down", device.name()));
    no_ping(&b.host, A.v4);
    container.ip(&format!("link set {} up", device.name()));
    container.ip(&format!("route replace default dev {}", device.name()));
    container.reaches(B.v4);
    device.move_to(&host);
    device.address(&A.inner()[0]);
    host.ip(&format!("link set {} up", device.name()));
    host.reaches(B.v4);
    device.delete();
    within(SHORTLY, "the port to be free", || {
        pair.a.exec(format!("ss -Hlun sport = :{A_PORT}")).is_empty().then_some(())
    });
}
