//! Path messages byte by byte. The checksums in the vectors were computed by an independent program.

use super::super::tests::{vector, written};
use super::*;

fn zeros(count: usize) -> String {
    "00".repeat(count)
}

#[test]
fn each_path_message_has_its_bytes() {
    let v4: SocketAddr = "192.0.2.1:52212".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:52212".parse().unwrap();
    let (id, received) = (7, 9);
    let reply = |observed| Frame::PathReply { id, received, observed };
    let mut room = [0; MAX_CANDIDATES * 19];
    let list = CandidateList::write(&[v4, SocketAddr::new(v6.ip(), 1)], &mut room);
    let mut room = [0; MAX_CANDIDATES * 19];
    let none = CandidateList::write(&[], &mut room);
    for (frame, expected) in [
        (
            Frame::PathProbe { id, sent: 9, pair: 3 },
            vector("0028", "2be4", &format!("8007 001c 00000007 00000009 03 {}", zeros(19))),
        ),
        (
            reply(Observed::Direct(v4)),
            vector("0028", "3455", &format!("8008 001c 00000007 00000009 04 cbf4 c0000201 {}", zeros(13))),
        ),
        (
            reply(Observed::Direct(v6)),
            vector("0028", "79e9", "8008 001c 00000007 00000009 06 cbf4 20010db8000000000000000000000001 00"),
        ),
        (reply(Observed::Relayed), vector("0028", "2ee3", &format!("8008 001c 00000007 00000009 00 {}", zeros(19)))),
        (
            Frame::Candidates { revision: 2, seen: 1, list },
            vector(
                "002e",
                "068e",
                "8009 0022 00000002 00000001 04 cbf4 c0000201 06 0001 20010db8000000000000000000000001",
            ),
        ),
        (Frame::Candidates { revision: 2, seen: 0, list: none }, vector("0014", "2f2c", "8009 0008 00000002 00000000")),
    ] {
        assert_eq!(written(frame), expected, "{frame:?}");
        assert_eq!(Frame::parse(&expected), Ok(frame));
    }
}

#[test]
fn a_list_of_candidates_is_whole_and_short_or_malformed() {
    for cut in 1..7 {
        let entry = "04 cbf4 c0000201".replace(' ', "");
        let value = format!("00000002 00000001 {}", &entry[..2 * cut]);
        let len = format!("{:04x}", 8 + 4 + 8 + cut);
        let frame = vector(&len, "0000", &format!("8009 {:04x} {value}", 8 + cut));
        assert_eq!(Frame::parse(&frame), Err(crate::control::Refused::Malformed), "{cut}");
    }
    let entries = |count: usize| "04cbf4c0000201".repeat(count);
    let frame = |count: usize| {
        let len = 8 + 7 * count;
        vector(&format!("{:04x}", 8 + 4 + len), "0000", &format!("8009 {len:04x} 00000002 00000001 {}", entries(count)))
    };
    assert!(Frame::parse(&frame(MAX_CANDIDATES)).is_ok());
    assert!(Frame::parse(&frame(MAX_CANDIDATES + 1)).is_err());
}

#[test]
fn an_ipv4_address_in_the_form_of_an_ipv6_one_is_not_told() {
    let frame = vector("0027", "0000", "8009 001b 00000002 00000001 06 0001 00000000000000000000ffffc0000201");
    let Ok(Frame::Candidates { list, .. }) = Frame::parse(&frame) else { panic!("a list") };
    assert_eq!(list.iter().count(), 0);
}

#[test]
fn a_probe_of_a_different_length_or_a_reply_of_an_unknown_family_is_malformed() {
    let short = vector("0027", "0000", &format!("8007 001b 00000007 00000009 03 {}", zeros(18)));
    let unknown = vector("0028", "0000", &format!("8008 001c 00000007 00000009 05 {}", zeros(19)));
    for frame in [short, unknown] {
        assert!(Frame::parse(&frame).is_err());
    }
}
