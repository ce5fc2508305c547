//! Messages by type and length.

use proptest::prelude::*;

use super::*;

fn message(kind: u8, len: usize) -> Vec<u8> {
    let mut message = vec![0; len];
    message[0] = kind;
    for (at, byte) in message.iter_mut().enumerate().skip(4) {
        *byte = at as u8;
    }
    message
}

#[test]
fn the_first_bytes_decide_what_a_datagram_is() {
    for (first, expected) in [
        ([0x01, 0, 0, 0, 0, 0, 0, 0], Kind::WireGuard),
        ([0x02, 0, 0, 0, 0, 0, 0, 0], Kind::WireGuard),
        ([0x03, 0, 0, 0, 0, 0, 0, 0], Kind::WireGuard),
        ([0x04, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], Kind::WireGuard),
        ([0x00, 0, 0, 0, 0, 0, 0, 0], Kind::Unknown),
        ([0x05, 0, 0, 0, 0, 0, 0, 0], Kind::Unknown),
        ([0x04, 1, 0, 0, 0, 0, 0, 0], Kind::Unknown),
        ([0x04, 0, 1, 0, 0, 0, 0, 0], Kind::Unknown),
        ([0x04, 0, 0, 1, 0, 0, 0, 0], Kind::Unknown),
        // A STUN binding request, a success response of 12 bytes, an error response.
        ([0x00, 0x01, 0, 0x08, 0x21, 0x12, 0xa4, 0x42], Kind::Stun),
        ([0x01, 0x01, 0, 0x0c, 0x21, 0x12, 0xa4, 0x42], Kind::Stun),
        ([0x01, 0x11, 0, 0x00, 0x21, 0x12, 0xa4, 0x42], Kind::Stun),
        // A receiver index that happens to be the magic cookie.
        ([0x04, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42], Kind::WireGuard),
        // The cookie with one wrong byte.
        ([0x01, 0x01, 0, 0x0c, 0x21, 0x12, 0xa4, 0x43], Kind::Unknown),
        // A relay: data, and control. Its top bits decide, whatever follows.
        ([0x40, 0x01, 0, 0x0c, 0x21, 0x12, 0xa4, 0x42], Kind::Relayed),
        ([0x7f, 0, 0, 0, 0, 0, 0, 0], Kind::Relayed),
        ([0x80, 0, 0, 0, 0, 0, 0, 0], Kind::RelayControl),
        ([0xbf, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42], Kind::RelayControl),
        ([0xc0, 0, 0, 0, 0, 0, 0, 0], Kind::Unknown),
    ] {
        assert_eq!(kind(&first), expected, "{first:02x?}");
    }
    assert_eq!(kind(&[]), Kind::Unknown);
    assert_eq!(kind(&[4, 0, 0]), Kind::Unknown);
    assert_eq!(kind(&[4, 0, 0, 0]), Kind::WireGuard);
    assert_eq!(kind(&[0, 1, 0, 0, 0x21, 0x12, 0xa4]), Kind::Unknown);
}

#[test]
fn each_message_shows_its_indices_in_little_endian() {
    let initiation = message(1, 148);
    assert_eq!(Message::parse(&initiation), Ok(Message::Initiation(&initiation)));
    let response = message(2, 92);
    assert_eq!(Message::parse(&response), Ok(Message::Response { receiver: 0x0b0a_0908, bytes: &response }));
    let cookie = message(3, 64);
    assert_eq!(Message::parse(&cookie), Ok(Message::CookieReply { receiver: 0x0706_0504, bytes: &cookie }));
    let data = message(4, 48);
    assert_eq!(
        Message::parse(&data),
        Ok(Message::Data { receiver: 0x0706_0504, counter: 0x0f0e_0d0c_0b0a_0908, sealed: &data[16..] })
    );
}

#[test]
fn a_length_that_the_type_does_not_have_is_malformed() {
    for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
        assert!(Message::parse(&message(kind, len)).is_ok());
        for wrong in [4, len - 1, len + 1, 1500] {
            assert_eq!(Message::parse(&message(kind, wrong)), Err(Malformed), "type {kind}, {wrong} bytes");
        }
    }
    for short in 4..32 {
        assert_eq!(Message::parse(&message(4, short)), Err(Malformed), "data of {short} bytes");
    }
    assert!(Message::parse(&message(4, 32)).is_ok(), "a keepalive");
    assert!(Message::parse(&message(4, 33)).is_ok(), "a sender who does not pad");
}

#[test]
fn padding_is_to_sixteen_but_not_beyond_the_mtu() {
    for (len, mtu, padded) in
        [(0, 1420, 0), (1, 1420, 16), (16, 1420, 16), (17, 1420, 32), (1409, 1420, 1420), (1420, 1420, 1420)]
    {
        assert_eq!(padded_len(len, mtu), padded, "{len} bytes");
    }
    assert_eq!(padded_len(1500, 1420), 1500, "never shorter than the packet");
}

proptest! {
    #[test]
    fn no_datagram_makes_parsing_panic(mut datagram in prop::collection::vec(any::<u8>(), 0..200), first in 0u8..6) {
        let _ = Message::parse(&datagram);
        if datagram.len() >= 4 {
            datagram[..4].copy_from_slice(&[first, 0, 0, 0]);
            let _ = Message::parse(&datagram);
        }
    }
}
