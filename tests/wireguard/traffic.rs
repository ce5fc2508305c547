//! Pings and streams over both families inside and outside, with a tunnel's usual MTU and a jumbo MTU, and what is
//! counted.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::device::{Program, one_ping};
use super::worlds::{A_PORT, Apart, B_PORT, Two, Wire};
use crate::lab::pings::Underway;
use crate::lab::process::kill;
use crate::lab::{A, B, Host, Outside, Pings, SHORTLY, installed, within};

/// The longest packet that a wire of 65,536 bytes and two offloads allow, and more than any buffer made for 9,000.
const JUMBO: u32 = 34_736;
/// A tunnel's MTU on a wire of 1,500 bytes.
const USUAL: u32 = 1_420;
/// The time between two pings.
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn pings_and_streams_pass_at_both_mtus_over_ipv4() {
    pings_and_streams(Outside::V4);
}

#[test]
fn pings_and_streams_pass_at_both_mtus_over_ipv6() {
    pings_and_streams(Outside::V6);
}

fn pings_and_streams(outside: Outside) {
    if !installed("pings and streams", &["iperf3"]) {
        return;
    }
    let Some(world) = Apart::new("pings and streams") else { return };
    world.join(outside);
    for mtu in [USUAL, JUMBO, USUAL] {
        world.two.a.device.mtu(mtu);
        world.two.b.device.mtu(mtu);
        exchange(&world.two);
    }
    many_streams(&world.two);
}

/// Sends ten pings each way and one stream of each kind.
pub(super) fn exchange(two: &Two) {
    let (a, b) = (&two.a.host, &two.b.host);
    // The first one may have to wait for a handshake, but must not be lost.
    one_ping(b, A.v4);
    for (from, to) in [(b, A.v4), (a, B.v4), (b, A.v6), (a, B.v6)] {
        Pings::new(10, PAUSE).are_answered(from, to);
    }
    for (from, to, address) in [(a, b, B.v4), (b, a, A.v6)] {
        let bytes = stream(from, to, address, "");
        assert!(bytes > 1_000_000, "{bytes} bytes of TCP to {address}");
    }
    for (from, to, address) in [(b, a, A.v4), (a, b, B.v6)] {
        // 20 Mbit/s is 2.5 MB in a second. No wire here loses any of it, but a busy machine may.
        let bytes = stream(from, to, address, "-u -b 20M");
        assert!(bytes > 1_500_000, "{bytes} of 2,500,000 bytes of UDP to {address}");
    }
}

/// Four, five and then fifty streams at a time.
fn many_streams(two: &Two) {
    for streams in [4, 5, 50] {
        let bytes = stream(&two.a.host, &two.b.host, B.v4, &format!("-P {streams}"));
        assert!(bytes > 1_000_000, "{bytes} bytes in {streams} streams");
    }
}

/// Runs iperf3 for one second, and returns how many bytes arrived.
pub(super) fn stream(from: &Host, to: &Host, address: &str, how: &str) -> u64 {
    let server = to.spawn(format!("iperf3 -s -1 -B {address}"));
    to.wait_for_listener(5201);
    let client = from.spawn(format!("iperf3 -J -t 1 -c {address} {how}"));
    let said = client.succeed_within(Duration::from_secs(40));
    // The server exits later than its client, and the next one needs the port.
    server.finish_within(SHORTLY);
    let report: serde_json::Value = serde_json::from_str(&said).expect("iperf3 -J writes JSON");
    let end = &report["end"];
    // A UDP client reports the server's count in `sum`. Lost data must be subtracted.
    let sum = if how.contains("-u") { &end["sum"] } else { &end["sum_received"] };
    let lost = sum["lost_percent"].as_f64().unwrap_or(0.0);
    let bytes = sum["bytes"].as_f64().unwrap_or_else(|| panic!("no sum in {end}"));
    (bytes * (100.0 - lost) / 100.0) as u64
}

/// A handshake is 148 bytes one way and 92 back. A ping of 84 bytes is padded to 96 and carried in 128.
#[test]
fn what_is_counted_is_what_was_sent() {
    let Some(world) = Apart::new("counters") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    b.host.exec(format!("ping -n -c 10 -i 0.05 -W 4 {}", A.v4));
    let (received, sent) = b.device.transfer(&a.key);
    assert_eq!(received, 92 + 10 * 128);
    // This may include a keepalive, which confirms the response if nothing else is waiting to be sent.
    assert!([0, 32].contains(&(sent - 148 - 10 * 128)), "{sent} bytes sent");
    assert_eq!(a.device.transfer(&b.key), (sent, received), "each counts what the other does");
    for (side, far) in [(a, b), (b, a)] {
        let (received, sent) = link_counters(&side.host, side.device.name());
        // Inner packets: ten pings of 84 bytes each way, and IPv6's own announcements.
        assert!(received >= 840 && sent >= 840, "{received} and {sent} bytes at {}", side.host.name());
        assert_ne!(side.device.latest_handshake(&far.key), 0);
    }
}

fn link_counters(host: &Host, interface: &str) -> (u64, u64) {
    let json = host.ip(&format!("-j -s link show dev {interface}"));
    let links: serde_json::Value = serde_json::from_str(&json).expect("ip -j writes JSON");
    let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_u64().expect("a number of bytes");
    (bytes("rx"), bytes("tx"))
}

/// Every size that fits crosses the wire unfragmented, with DF set. Padding never makes a packet longer than the MTU.
#[test]
fn every_size_with_df_crosses_a_wire_that_has_no_byte_to_spare() {
    for (outside, overhead) in [(Outside::V4, 60), (Outside::V6, 80)] {
        let Some(world) = Wire::new("sizes") else { return };
        world.join(outside);
        let (a, b) = (&world.two.a, &world.two.b);
        for mtu in [1500 - overhead, 1300, 1281] {
            a.device.mtu(mtu);
            b.device.mtu(mtu);
            only_up_to(&world.pair.a, mtu + overhead);
            only_up_to(&world.pair.b, mtu + overhead);
            // A program may notice the change a moment later.
            within(SHORTLY, &format!("MTU {mtu} to be noticed"), || ping_of(&a.host, mtu, "1").then_some(()));
            for size in (84..200).step_by(7).chain(mtu - 20..=mtu) {
                assert!(ping_of(&a.host, size, "4"), "{size} bytes at MTU {mtu}, {outside:?}");
            }
            assert!(!ping_of(&a.host, mtu + 1, "1"), "more than the MTU with DF is refused");
        }
    }
}

/// The same for an interface that was moved away from its program.
#[test]
fn a_changed_mtu_is_noticed_on_an_interface_that_was_moved() {
    if Program::under_test().is_excused("it hears of changes in its own namespace only, and pads beyond a smaller MTU")
    {
        return;
    }
    let Some(world) = Apart::new("moved, MTU") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    for mtu in [1300, 1281, 1500] {
        a.device.mtu(mtu);
        b.device.mtu(mtu);
        only_up_to(&world.middle, mtu + 60);
        within(SHORTLY, &format!("MTU {mtu} to be noticed"), || ping_of(&a.host, mtu, "1").then_some(()));
        for size in mtu - 20..=mtu {
            assert!(ping_of(&a.host, size, "4"), "{size} bytes at MTU {mtu}");
        }
    }
}

/// Neither a packet nor the session is lost, in both namespaces that an interface can be in.
#[test]
fn a_changed_mtu_loses_nothing() {
    let (Some(wire), Some(apart)) = (Wire::new("MTU, wire"), Apart::new("MTU, moved")) else { return };
    wire.join(Outside::V4);
    apart.join(Outside::V6);
    for two in [&wire.two, &apart.two] {
        let (a, b) = (&two.a, &two.b);
        one_ping(&a.host, B.v4);
        let handshake = b.device.latest_handshake(&a.key);
        let pings = [(a, B.v4), (b, A.v6)].map(|(from, to)| Pings::new(300, PAUSE).start(&from.host, to));
        let began = Instant::now();
        for mtu in [JUMBO, USUAL, 1300, JUMBO, 1281].into_iter().cycle().take(40) {
            a.device.mtu(mtu);
            b.device.mtu(mtu);
        }
        let took = began.elapsed();
        for pings in pings {
            let answered = pings.finish();
            let account = || [a, b].map(|side| format!("alive: {}\n{}", side.device.is_alive(), side.device.account()));
            assert!(answered.is_ok(), "{answered:?}\nthe changes took {took:?}\n{}", account().join("\n"));
        }
        assert_eq!(b.device.latest_handshake(&a.key), handshake);
    }
}

/// Packets sent in the meantime wait: inside, in the interface's queue, and outside, in the socket's buffer.
#[test]
fn a_program_that_stands_still_for_a_moment_loses_nothing() {
    let Some(world) = Wire::new("standstill") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    let handshake = b.device.latest_handshake(&a.key);
    // It is stopped while the last of them are sent.
    kill(&b.device.pid().to_string(), Signal::STOP);
    let pings = [(a, B.v4), (b, A.v6)].map(|(from, to)| Pings::new(50, PAUSE).start(&from.host, to));
    within(SHORTLY, "the last to be sent", || pings.iter().all(Underway::are_sent).then_some(()));
    kill(&b.device.pid().to_string(), Signal::CONT);
    for pings in pings {
        pings.are_answered();
    }
    assert_eq!(b.device.latest_handshake(&a.key), handshake);
}

/// Whether a ping of this many bytes, including the IP header, is answered with DF set.
fn ping_of(from: &Host, size: u32, patience: &str) -> bool {
    from.run(format!("ping -n -q -c 1 -W {patience} -M do -s {} {}", size - 28, B.v4)).code == 0
}

/// Drops datagrams of the tunnel that are longer than this, and their fragments.
fn only_up_to(host: &Host, length: u32) {
    let rules = format!(
        "table inet narrow {{ }}
        delete table inet narrow
        table inet narrow {{
            chain in {{
                type filter hook prerouting priority -500;
                udp dport {{ {A_PORT}, {B_PORT} }} meta length > {length} drop
                ip frag-off & 0x3fff != 0 drop
                exthdr frag exists drop
            }}
        }}"
    );
    let file = host.write("narrow.nft", rules);
    host.exec(format!("nft -f {}", file.display()));
}
