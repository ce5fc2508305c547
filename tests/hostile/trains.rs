//! Trains: one system call of the attacker and one of the victim for packets that have nothing else in common.
//!
//! The peer chose every packet, so the second is judged separately, regardless of the first and the third.

use super::bytes::{ACK, Ends, TCP, UDP, ends, with};
use super::siege::{CAROL, MALLORY, Siege};
use crate::lab::{A, Outside};

/// A packet with 8 bytes of data, so that all messages have the same length.
fn udp(ends: Ends, port: u16) -> Vec<u8> {
    ends.udp(4660, port, b"8 bytes.")
}

/// The same with `more` bytes of data, up to 7. Its message still has the same length, but a datagram that is longer
/// than the previous one is not joined to it.
fn longer_udp(ends: Ends, port: u16, more: usize) -> Vec<u8> {
    ends.udp(4660, port, &b"8 bytes. And so on"[..8 + more])
}

/// Three segments of 100 bytes that follow each other in one connection to this port.
fn segments(ends: Ends, port: u16) -> Vec<Vec<u8>> {
    let segment = |number: u8| {
        let bytes = ends.tcp_bytes(4660, port, 1 + 100 * u32::from(number), ACK, &[number; 100]);
        let packet = ends.ip(TCP, &bytes);
        // With DF, as every kernel sends TCP, so that identifications have no meaning.
        if ends.is_v4() { with(packet, 6, &[0x40]) } else { packet }
    };
    (0..3).map(segment).collect()
}

/// A datagram with this identification, so that a series of them counts up.
fn datagram(ends: Ends, text: &[u8], id: u8) -> Vec<u8> {
    let packet = ends.udp(4660, 7000, text);
    if !ends.is_v4() {
        return packet;
    }
    with(packet, 4, &[0x12, id])
}

fn from(source: &str) -> Ends {
    ends(source, if source.contains(':') { A.v6 } else { A.v4 })
}

#[test]
fn what_crosses_the_wire_as_a_train_is_received_as_one() {
    for outside in [Outside::V4, Outside::V6] {
        let Some(mut siege) = Siege::begin("one train", outside, "", &[MALLORY.own_peer_toml()]) else { return };
        let mut mallory = siege.attacker(MALLORY);
        for ends in MALLORY.both_families() {
            // Only packets of one train are joined, so this proves that the segments came as one.
            let messages = mallory.seal(&segments(ends, 22));
            let outcome = siege.strike_as_train(&mut mallory, &messages);
            assert_eq!((outcome.delivered.len(), outcome.dropped.len()), (1, 0), "{outcome:?}");
            let data = outcome.delivered[0].len() - 300;
            assert_eq!(outcome.delivered[0][data..], [[0; 100], [1; 100], [2; 100]].concat());
        }
        for ends in MALLORY.both_families() {
            // Datagrams are joined too, and an application receives each of them separately.
            let application = siege.application(7000);
            let texts: Vec<_> = (0..9).map(|number| vec![number; 300 - usize::from(number / 8)]).collect();
            let packets: Vec<_> = texts.iter().zip(0..).map(|(text, id)| datagram(ends, text, id)).collect();
            let messages = mallory.seal(&packets);
            let outcome = siege.strike_as_train(&mut mallory, &messages);
            assert_eq!((outcome.delivered.len(), outcome.dropped.len()), (1, 0), "{outcome:?}");
            for text in texts {
                assert_eq!(application.receives(), text);
            }
        }
    }
}

#[test]
fn the_second_packet_of_a_train_is_dropped_for_itself_alone() {
    let peers = [MALLORY.own_peer_toml(), CAROL.own_peer_toml()];
    for outside in [Outside::V4, Outside::V6] {
        let Some(mut siege) = Siege::begin("second of a train", outside, "", &peers) else { return };
        let (mut mallory, mut carol) = (siege.attacker(MALLORY), siege.attacker(CAROL));
        for (own, carols) in [(MALLORY.v4, CAROL.v4), (MALLORY.v6, CAROL.v6)] {
            let honest = [udp(from(own), 7000), longer_udp(from(own), 7000, 1)];
            let (ours, elsewhere, loopback) =
                if own.contains(':') { (A.v6, "fd77::9", "::1") } else { (A.v4, "10.77.0.9", "127.0.0.1") };
            for (what, second, reason) in [
                ("another peer's source", udp(from(carols), 7000), "spoofed_source"),
                ("our source", udp(from(ours), 7000), "martian_source"),
                ("loopback", udp(from(loopback), 7000), "martian_source"),
                ("another destination", udp(ends(own, elsewhere), 7000), "inbound_destination"),
                ("a packet cut short", udp(from(own), 7000)[..30].to_vec(), "inbound_malformed"),
            ] {
                let first = mallory.session.seal(&honest[0]);
                let mut plaintext = second;
                plaintext.resize(first.len() - 32, 0);
                if reason == "inbound_malformed" {
                    plaintext[0] = 0;
                }
                let messages = [first, mallory.session.seal(&plaintext), mallory.session.seal(&honest[1])];
                let outcome = siege.strike_as_train(&mut mallory, &messages);
                outcome.is(what, &honest, &[(reason, 1)]);
            }

            let mut messages = mallory.seal(&[&honest[..1], &honest[..]].concat());
            messages[1][20] ^= 1;
            siege.strike_as_train(&mut mallory, &messages).is("a forged one", &honest, &[("forged", 1)]);
            let mut messages = mallory.seal(&honest);
            messages.insert(1, messages[0].clone());
            siege.strike_as_train(&mut mallory, &messages).is("a replay", &honest, &[("replay", 1)]);
            let mut messages = mallory.seal(&honest);
            messages.insert(1, mallory.session.seal_as_is(u64::MAX, &messages[0][16..messages[0].len() - 16]));
            let outcome = siege.strike_as_train(&mut mallory, &messages);
            outcome.is("a counter at the end", &honest, &[("counter_exhausted", 1)]);
            let mut messages = mallory.seal(&honest);
            messages.insert(1, vec![0xee; messages[0].len()]);
            siege.strike_as_train(&mut mallory, &messages).is("noise", &honest, &[("inbound_unknown", 1)]);

            // Messages of two sessions in one train: an honest one from Carol, then one of hers with Mallory's source.
            let [hers, not_hers] = [udp(from(carols), 7000), udp(from(own), 7000)];
            let mut messages = mallory.seal(&honest);
            messages.insert(1, carol.session.seal(&hers));
            let delivered = [honest[0].clone(), hers, honest[1].clone()];
            siege.strike_as_train(&mut mallory, &messages).is("two sessions", &delivered, &[]);
            let mut messages = mallory.seal(&honest);
            messages.insert(1, carol.session.seal(&not_hers));
            let outcome = siege.strike_as_train(&mut mallory, &messages);
            outcome.is("two sessions, one source", &honest, &[("spoofed_source", 1)]);

            // Segments that would be joined if the middle one did not come from someone else.
            let mut packets = segments(from(own), 22);
            packets[1] = segments(from(carols), 22).swap_remove(1);
            let messages = mallory.seal(&packets);
            packets.remove(1);
            let outcome = siege.strike_as_train(&mut mallory, &messages);
            outcome.is("a segment in the middle", &packets, &[("spoofed_source", 1)]);
        }
        siege.is_alive(&mut carol);
    }
}

#[test]
fn the_second_packet_of_a_train_is_asked_of_the_allowlist_by_itself() {
    let Some(mut siege) = Siege::with_allowlist("trains and allow", &["tcp/22", "udp/7000-7010", "icmp"]) else {
        return;
    };
    let mut mallory = siege.attacker(MALLORY);
    for ends in MALLORY.both_families() {
        let honest = [udp(ends, 7000), udp(ends, 7010)];
        let other_protocol = ends.ip(136, &ends.udp_bytes(4660, 7000, b"8 bytes."));
        let later = ends.fragment(UDP, 1, 3, false, &[0; 8]);
        for (what, second, reason) in [
            ("a different port", udp(ends, 7011), "not_allowed"),
            ("another protocol", other_protocol, "not_allowed"),
            ("TCP to the same port", ends.tcp(4660, 7000, ACK), "not_allowed"),
            ("a fragment without its first", later, "fragment_orphan"),
        ] {
            let first = mallory.session.seal(&honest[0]);
            let mut second = second;
            second.resize(first.len() - 32, 0);
            let messages = [first, mallory.session.seal(&second), mallory.session.seal(&honest[1])];
            siege.strike_as_train(&mut mallory, &messages).is(what, &honest, &[(reason, 1)]);
        }
        // The verdict on a packet is reused for the next packet of the same flow, and not beyond that.
        let ports = [7000, 7000, 22, 7000, 7011, 7000, 7011];
        let packets: Vec<_> = ports.iter().zip(0..).map(|(port, more)| longer_udp(ends, *port, more)).collect();
        let messages = mallory.seal(&packets);
        let delivered = [0, 1, 3, 5].map(|at| packets[at].clone());
        siege.strike_as_train(&mut mallory, &messages).is("in turn", &delivered, &[("not_allowed", 3)]);

        let mut packets = segments(ends, 22);
        packets[1] = segments(ends, 23).swap_remove(1);
        let messages = mallory.seal(&packets);
        packets.remove(1);
        let outcome = siege.strike_as_train(&mut mallory, &messages);
        outcome.is("a segment in the middle", &packets, &[("not_allowed", 1)]);
    }
}
