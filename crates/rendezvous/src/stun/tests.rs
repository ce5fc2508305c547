//! Requests, forged and honest, and what comes back.

use overlay_wire::stun::{MAGIC_COOKIE, REQUEST_LEN, TransactionId, write_request};

use super::*;

const NOW: Duration = Duration::from_secs(5);
const ID: TransactionId = TransactionId(*b"abcdefghijkl");

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A message of this type, with a value of zeros behind each attribute's type and length.
fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    let len: usize = attributes.iter().map(|(_, value)| 4 + value.len()).sum();
    message.extend((len as u16).to_be_bytes());
    message.extend(MAGIC_COOKIE);
    message.extend(ID.0);
    for (attribute, value) in attributes {
        message.extend(attribute.to_be_bytes());
        message.extend((value.len() as u16).to_be_bytes());
        message.extend(*value);
    }
    message
}

fn padded(change: Change) -> Vec<u8> {
    let mut request = Vec::new();
    write_request(ID, change, &mut request);
    request
}

fn read(bytes: &[u8]) -> Answer {
    let Ok(Message::Answer(answer)) = Message::parse(bytes) else { panic!("not an answer: {bytes:02x?}") };
    answer
}

/// The four sockets: 192.0.2.1 and 192.0.2.2, ports 3478 and 3479.
fn first() -> Place {
    Place { at: address("192.0.2.1:3478"), other: address("192.0.2.2:3479") }
}

#[test]
fn each_datagram_gets_one_answer_or_one_named_silence() {
    let (plain, both) = (message(1, &[]), Change { ip: true, port: true });
    let (from, six) = ("203.0.113.7:40000", "[2001:db8::7]:40000");
    let silent = |reason| Err::<usize, _>(reason);
    for (datagram, from, has_second, expected) in [
        (plain.clone(), from, false, Ok(32)),
        (plain.clone(), six, false, Ok(44)),
        (plain.clone(), "[::ffff:203.0.113.7]:40000", false, Ok(32)),
        // A server with a second address tells it only to those who pad.
        (plain.clone(), from, true, Ok(32)),
        (padded(Change::NOTHING), from, false, Ok(32)),
        (padded(Change::NOTHING), from, true, Ok(56)),
        (padded(both), from, true, Ok(56)),
        // RFC 5780's own PADDING pads too, and 24 bytes of it are enough for IPv4.
        (message(1, &[(3, &[0, 0, 0, 6]), (0x26, &[0; 24])]), from, true, Ok(56)),
        (message(1, &[(3, &[0, 0, 0, 6]), (0x26, &[0; 20])]), from, true, silent(Silence::Unpadded)),
        (message(1, &[(3, &[0, 0, 0, 6])]), from, true, silent(Silence::Unpadded)),
        (padded(both), from, false, silent(Silence::NoSecondAddress)),
        (message(1, &[(0x27, &[0x12, 0x34, 0, 0])]), from, true, silent(Silence::NotUnderstood)),
        (message(0x101, &[(0x20, &[0, 1, 0, 9, 1, 2, 3, 4])]), from, true, silent(Silence::NotARequest)),
        (message(0x111, &[(9, &[0, 0, 4, 20])]), from, true, silent(Silence::NotARequest)),
        (message(0x011, &[]), from, true, silent(Silence::NotARequest)),
        (message(0x003, &[]), from, true, silent(Silence::NotARequest)),
        (plain[..19].to_vec(), from, true, silent(Silence::Malformed)),
        (Vec::new(), from, true, silent(Silence::Malformed)),
        (plain.clone(), "203.0.113.7:0", true, silent(Silence::BadSource)),
        (plain.clone(), "224.0.0.1:40000", true, silent(Silence::BadSource)),
        (plain.clone(), "255.255.255.255:40000", true, silent(Silence::BadSource)),
        (plain.clone(), "0.0.0.0:40000", true, silent(Silence::BadSource)),
        (plain.clone(), "[ff02::1]:40000", true, silent(Silence::BadSource)),
        (plain.clone(), "[::]:40000", true, silent(Silence::BadSource)),
        (plain.clone(), "[::ffff:224.0.0.1]:40000", true, silent(Silence::BadSource)),
    ] {
        let (mut gate, from) = (Gate::default(), address(from));
        let place = Place { at: address("192.0.2.1:3478"), other: address("192.0.2.2:3479") };
        let bytes = if has_second {
            answer_at(&datagram, from, place, NOW, &mut gate).map(|(bytes, _)| bytes)
        } else {
            answer(&datagram, from, NOW, &mut gate)
        };
        let what = format!("{} bytes from {from}: {datagram:02x?}", datagram.len());
        match expected {
            Ok(len) => {
                let bytes = bytes.expect(&what);
                assert_eq!(bytes.len(), len, "{what}");
                assert!(len <= LONGEST_PLAIN.max(datagram.len()), "{what}");
                assert_eq!(read(&bytes).mapped, SocketAddr::new(from.ip().to_canonical(), from.port()));
                assert_eq!((gate.stats.answered, gate.stats.silent), (1, [0; 7]), "{what}");
            }
            Err(reason) => {
                assert_eq!(bytes, None, "{what}");
                assert_eq!((gate.stats.answered, gate.stats.silent(reason)), (0, 1), "{what}");
                assert_eq!(gate.stats.silent.iter().sum::<u64>(), 1, "{what}");
            }
        }
    }
}

#[test]
fn an_answer_comes_from_the_socket_that_is_asked_for() {
    let from = address("203.0.113.7:40000");
    for (ip, port, expected) in [
        (false, false, "192.0.2.1:3478"),
        (true, false, "192.0.2.2:3478"),
        (false, true, "192.0.2.1:3479"),
        (true, true, "192.0.2.2:3479"),
    ] {
        let mut gate = Gate::default();
        let request = padded(Change { ip, port });
        let (bytes, by) = answer_at(&request, from, first(), NOW, &mut gate).expect("an answer");
        assert_eq!(by, address(expected));
        let answer = read(&bytes);
        assert_eq!((answer.origin, answer.other), (Some(by), Some(address("192.0.2.2:3479"))));
        assert_eq!(gate.stats.answered_from_other, u64::from(ip || port));
    }
}

#[test]
fn the_longest_request_of_ipv6_gets_no_more_than_its_length() {
    let place = Place { at: address("[2001:db8::1]:3478"), other: address("[2001:db8::2]:3479") };
    let (from, mut gate) = (address("[2001:db8:7::7]:40000"), Gate::default());
    let (bytes, _) = answer_at(&padded(Change::NOTHING), from, place, NOW, &mut gate).expect("an answer");
    assert_eq!(bytes.len(), REQUEST_LEN);
    assert_eq!(read(&bytes).other, Some(place.other));
}

#[test]
fn a_source_over_its_rate_gets_silence_until_it_has_waited() {
    let mut gate = Gate::new(Rate { per_second: 10, burst: 3 });
    let ask = |gate: &mut Gate, from: &str, now| answer(&message(1, &[]), address(from), now, gate).is_some();
    for from in ["203.0.113.7:40000", "203.0.113.7:40001", "[::ffff:203.0.113.7]:5"] {
        assert!(ask(&mut gate, from, NOW));
    }
    assert!(!ask(&mut gate, "203.0.113.7:40002", NOW), "ports do not count");
    assert!(ask(&mut gate, "203.0.113.8:40000", NOW), "its neighbour");
    for from in ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::ffff:0:0:3]:1"] {
        assert!(ask(&mut gate, from, NOW));
    }
    assert!(!ask(&mut gate, "[2001:db8::4]:1", NOW), "a /64 is one source");
    assert!(ask(&mut gate, "[2001:db8:0:1::4]:1", NOW));
    assert_eq!(gate.stats.silent(Silence::OverRate), 2);
    assert!(ask(&mut gate, "203.0.113.7:40000", NOW + Duration::from_millis(100)));
    assert!(!ask(&mut gate, "203.0.113.7:40000", NOW + Duration::from_millis(150)));
}

#[test]
fn what_gets_silence_does_not_count_against_its_source() {
    let mut gate = Gate::new(Rate { per_second: 1, burst: 1 });
    let from = address("203.0.113.7:40000");
    for _ in 0..10 {
        assert_eq!(answer(&message(3, &[]), from, NOW, &mut gate), None);
    }
    assert!(answer(&message(1, &[]), from, NOW, &mut gate).is_some());
}

/// `quota` tests the bound itself. Here a flood from forged sources meets it.
#[test]
fn forged_sources_share_one_rate_beyond_the_table() {
    let mut gate = Gate::new(Rate { per_second: 10, burst: 3 });
    let source = |n: u32| SocketAddr::new(IpAddr::from((0x0b00_0000 + n).to_be_bytes()), 9);
    let answered = (0..70_000).filter(|n| answer(&message(1, &[]), source(*n), NOW, &mut gate).is_some()).count();
    assert_eq!(answered, 65_536 + 3);
    assert_eq!(gate.stats.silent(Silence::OverRate), 70_000 - 65_536 - 3);
}

#[test]
fn each_silence_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = Silence::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Silence::ALL.len());
    assert!(Silence::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
}
