//! The vectors of RFC 5769, messages of a real server, and hostile bytes.

use proptest::prelude::*;

use super::*;
use crate::vectors::bytes;

/// RFC 5769 section 2.1: a request of ICE.
const REQUEST_2_1: &str = "00010058 2112a442 b7e7a701 bc34d686 fa87dfae
    80220010 5354554e 20746573 7420636c 69656e74 00240004 6e0001ff 80290008 932ff9b1 51263b36
    00060009 6576746a 3a683676 59202020 00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2 80280004 e57a3bcf";
/// RFC 5769 section 2.2: an answer with an IPv4 address.
const ANSWER_2_2: &str = "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae
    8022000b 74657374 20766563 746f7220 00200008 0001a147 e112a643
    00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96";
/// RFC 5769 section 2.3: an answer with an IPv6 address.
const ANSWER_2_3: &str = "01010048 2112a442 b7e7a701 bc34d686 fa87dfae
    8022000b 74657374 20766563 746f7220 00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9
    00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41 80280004 c8fb0b4c";
/// RFC 5769 section 2.4: a request with credentials, and without a FINGERPRINT.
const REQUEST_2_4: &str = "00010060 2112a442 78ad3433 c6ad72c0 29da412e
    00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000 0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946
    53547679 36347341 0014000b 6578616d 706c652e 6f726700 00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666";
/// What coturn 4.6.1 answers to a plain request, where it has two addresses: XOR-MAPPED-ADDRESS, MAPPED-ADDRESS,
/// RESPONSE-ORIGIN, OTHER-ADDRESS, SOFTWARE.
const ANSWER_OF_COTURN: &str = "01010048 2112a442 61626364 65666768 696a6b6c
    00200008 0001f286 e112a643 00010008 0001d394 c0000201 802b0008 00010d96 c0000201 802c0008 00010d97 c0000202
    80220014 436f7475 726e2d34 2e362e31 2027476f 72737427";
/// Its refusal of an attribute that it does not know.
const REFUSAL_OF_COTURN: &str = "0111003c 2112a442 61626364 65666768 696a6b6c
    00090018 00000414 556e6b6e 6f776e20 41747472 69627574 65000000 000a0002 7ffe0000
    80220014 436f7475 726e2d34 2e362e31 2027476f 72737427";

const ID: TransactionId = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn answer(mapped: &str) -> Answer {
    Answer { id: ID, mapped: address(mapped), origin: None, other: None }
}

/// A message of this type with these attributes, and the right length.
fn message(kind: u16, attributes: &str) -> Vec<u8> {
    let attributes = bytes(attributes);
    let mut message = Vec::new();
    write_header(kind, HEADER_LEN + attributes.len(), ID, &mut message);
    message.extend(attributes);
    message
}

#[test]
fn the_vectors_of_rfc_5769_are_read() {
    // PRIORITY belongs to ICE and has to be understood.
    let request = Request { id: ID, change: Change::NOTHING, is_understood: false };
    assert_eq!(Message::parse(&bytes(REQUEST_2_1)), Ok(Message::Request(request)));
    assert_eq!(Message::parse(&bytes(ANSWER_2_2)), Ok(Message::Answer(answer("192.0.2.1:32853"))));
    let six = answer("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
    assert_eq!(Message::parse(&bytes(ANSWER_2_3)), Ok(Message::Answer(six)));
    let id = TransactionId([0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e]);
    let request = Request { id, change: Change::NOTHING, is_understood: true };
    assert_eq!(Message::parse(&bytes(REQUEST_2_4)), Ok(Message::Request(request)));
}

/// The bytes are those of sections 2.2 and 2.3, without the attributes that are not ours to write.
#[test]
fn answers_are_written_as_in_rfc_5769() {
    for (answer, expected) in [
        (answer("192.0.2.1:32853"), "0101000c 2112a442 b7e7a701 bc34d686 fa87dfae 00200008 0001a147 e112a643"),
        (
            answer("[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
            "01010018 2112a442 b7e7a701 bc34d686 fa87dfae 00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9",
        ),
    ] {
        let mut written = Vec::new();
        answer.write(&mut written);
        assert_eq!(written, bytes(expected));
        assert_eq!(written.len(), answer.written_len());
    }
}

#[test]
fn the_addresses_of_rfc_5780_are_read_and_written_as_coturn_writes_them() {
    let id = TransactionId(*b"abcdefghijkl");
    let of_coturn = Answer {
        id,
        mapped: address("192.0.2.1:54164"),
        origin: Some(address("192.0.2.1:3478")),
        other: Some(address("192.0.2.2:3479")),
    };
    let expected = bytes(ANSWER_OF_COTURN);
    assert_eq!(Message::parse(&expected), Ok(Message::Answer(of_coturn)));
    let mut written = Vec::new();
    of_coturn.write(&mut written);
    assert_eq!(written[HEADER_LEN..32], expected[HEADER_LEN..32], "XOR-MAPPED-ADDRESS");
    assert_eq!(written[32..], expected[44..68], "RESPONSE-ORIGIN and OTHER-ADDRESS");
    assert_eq!(Message::parse(&bytes(REFUSAL_OF_COTURN)), Ok(Message::Refusal(Refusal { id, code: 420 })));
}

#[test]
fn an_old_server_tells_the_address_without_xor() {
    let old = message(SUCCESS, "00010008 00018055 c0000201 00040008 00010d96 c0000201 00050008 00010d97 c0000202");
    assert_eq!(Message::parse(&old), Ok(Message::Answer(answer("192.0.2.1:32853"))));
    let both = message(SUCCESS, "00010008 00010001 0a000001 00200008 0001a147 e112a643");
    assert_eq!(Message::parse(&both), Ok(Message::Answer(answer("192.0.2.1:32853"))), "the XORed one counts");
}

#[test]
fn our_requests_are_as_long_as_the_longest_answer() {
    let six = Some(address("[2001:db8::1]:1"));
    let longest = Answer { origin: six, other: six, ..answer("[2001:db8::1]:1") };
    assert_eq!(longest.written_len(), REQUEST_LEN);
    for (change, expected) in [
        (Change::NOTHING, "00010048 2112a442 b7e7a701 bc34d686 fa87dfae fffe0044"),
        (Change { ip: true, port: true }, "00010048 2112a442 b7e7a701 bc34d686 fa87dfae 00030004 00000006 fffe003c"),
        (Change { ip: true, port: false }, "00010048 2112a442 b7e7a701 bc34d686 fa87dfae 00030004 00000004 fffe003c"),
        (Change { ip: false, port: true }, "00010048 2112a442 b7e7a701 bc34d686 fa87dfae 00030004 00000002 fffe003c"),
    ] {
        let mut written = vec![7];
        write_request(ID, change, &mut written);
        let mut expected = bytes(expected);
        expected.resize(REQUEST_LEN, 0);
        assert_eq!(written[0], 7, "it appends");
        assert_eq!(written[1..], expected, "{change:?}");
        let read = Request { id: ID, change, is_understood: true };
        assert_eq!(Message::parse(&written[1..]), Ok(Message::Request(read)));
    }
}

#[test]
fn a_request_is_understood_unless_it_needs_what_we_do_not_know() {
    for (attributes, is_understood) in [
        ("", true),
        // PADDING of RFC 5780, and an optional attribute that nobody knows.
        ("00260004 00000000 ffff0000", true),
        // RESPONSE-PORT, which asks for an answer to a port that may be somebody else's.
        ("00270004 12340000", false),
        ("7fff0000", false),
    ] {
        let request = Request { id: ID, change: Change::NOTHING, is_understood };
        assert_eq!(Message::parse(&message(REQUEST, attributes)), Ok(Message::Request(request)), "{attributes}");
    }
    assert_eq!(Message::parse(&message(SUCCESS, "00200008 0001a147 e112a643 7fff0000")), Err(Malformed));
}

#[test]
fn what_is_not_a_binding_request_or_its_answer_is_neither() {
    for (kind, what) in [(0x0011, "an indication"), (0x0003, "TURN allocates"), (0x0103, "TURN has allocated")] {
        assert_eq!(Message::parse(&message(kind, "")), Ok(Message::Other), "{what}");
    }
}

#[test]
fn what_does_not_have_its_form_is_malformed() {
    for (kind, attributes, why) in [
        (0x4001, "", "the top bits are not 0"),
        (SUCCESS, "", "an answer without an address"),
        (SUCCESS, "00200008 0003a147 e112a643", "a family that does not exist"),
        (SUCCESS, "00200008 0002a147 e112a643", "a short IPv6 address"),
        (SUCCESS, "00200014 0001a147 e112a643 00000000 00000000 00000000", "a long IPv4 address"),
        (SUCCESS, "00200004 0001a147", "a port without an address"),
        (SUCCESS, "00200003 0001a100", "an address of three bytes"),
        (SUCCESS, "00200008 0001a147 e112a643 802c0008 0003a147 e112a643", "a damaged OTHER-ADDRESS"),
        (ERROR, "", "a refusal without a code"),
        (ERROR, "00090004 00000214", "a code of 220"),
        (ERROR, "00090004 00000764", "a code of 700"),
        (ERROR, "00090004 00000464", "a code of 400 and 100"),
        (ERROR, "00090003 00000400", "a code of three bytes"),
        (REQUEST, "00030003 00000600", "CHANGE-REQUEST of three bytes"),
        (REQUEST, "00030008 00000006 00000000", "CHANGE-REQUEST of eight bytes"),
        (REQUEST, "ffff0001", "a value that is not there"),
        (REQUEST, "ffffffff 00000000", "a value longer than the message"),
        (REQUEST, "80280004 00000000", "a wrong FINGERPRINT"),
        (REQUEST, "80280000", "an empty FINGERPRINT"),
    ] {
        assert_eq!(Message::parse(&message(kind, attributes)), Err(Malformed), "{why}");
    }
    let good = message(REQUEST, "ffff0004 00000000");
    assert!(Message::parse(&good).is_ok());
    for len in 0..good.len() {
        assert_eq!(Message::parse(&good[..len]), Err(Malformed), "{len} bytes");
    }
    let long = [&good[..], &[0; 4]].concat();
    assert_eq!(Message::parse(&long), Err(Malformed), "bytes behind the message");
    let mut uneven = message(REQUEST, "ffff0001 00");
    assert_eq!(Message::parse(&uneven), Err(Malformed), "the length is not a multiple of 4");
    uneven[4] ^= 1;
    assert_eq!(Message::parse(&uneven), Err(Malformed), "a wrong cookie");
}

#[test]
fn a_changed_byte_does_not_pass_the_fingerprint() {
    for vector in [REQUEST_2_1, ANSWER_2_2, ANSWER_2_3] {
        let good = bytes(vector);
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x10;
            // A type that is not FINGERPRINT hides it, and everything else fails.
            let is_its_type = (good.len() - 8..good.len() - 6).contains(&at);
            assert!(Message::parse(&changed).is_err() || is_its_type, "byte {at}");
        }
    }
    let mut not_last = bytes(REQUEST_2_1);
    not_last.extend([0xff, 0xff, 0, 0]);
    not_last[3] += 4;
    assert_eq!(Message::parse(&not_last), Err(Malformed));
}

#[test]
fn a_message_may_be_as_long_as_the_padding_of_an_ethernet_makes_it() {
    let long = |len: usize| {
        let mut message = Vec::new();
        write_header(REQUEST, len, ID, &mut message);
        write_attribute(PADDING, len - HEADER_LEN - ATTRIBUTE_HEADER_LEN, &mut message);
        message.resize(len, 0);
        message
    };
    let longest = MAX_LEN / 4 * 4;
    assert!(longest >= 1_524, "what `turnutils_natdiscovery -P` sends");
    assert!(Message::parse(&long(longest)).is_ok());
    assert_eq!(Message::parse(&long(longest + 4)), Err(Malformed));
}

proptest! {
    #[test]
    fn no_datagram_makes_parsing_panic(
        kind in prop::sample::select(vec![REQUEST, SUCCESS, ERROR]),
        mut attributes in prop::collection::vec((any::<u16>(), 0u16..40, prop::collection::vec(any::<u8>(), 0..24)), 0..6),
    ) {
        let known = [1, 3, 9, 0x20, 0x26, 0x8028, 0x802b, 0x802c];
        let mut message = Vec::new();
        write_header(kind, HEADER_LEN, ID, &mut message);
        for (attribute, len, value) in &mut attributes {
            let attribute = if *attribute < 0xc000 { known[usize::from(*attribute) % known.len()] } else { *attribute };
            write_attribute(attribute, usize::from(*len), &mut message);
            message.append(value);
        }
        message.resize(message.len().next_multiple_of(4), 0);
        let len = (message.len() - HEADER_LEN) as u16;
        message[2..4].copy_from_slice(&len.to_be_bytes());
        if let Ok(Message::Answer(answer)) = Message::parse(&message) {
            let mut written = Vec::new();
            answer.write(&mut written);
            prop_assert_eq!(Message::parse(&written), Ok(Message::Answer(answer)));
        }
    }
}
