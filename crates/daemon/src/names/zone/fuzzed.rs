//! Questions that were damaged on purpose, through the whole of what answers them.

use hickory_proto::op::{Edns, Message};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::reply::{Carrier, Heard, read};
use super::tests::{DOMAIN, question, zone};
use super::*;

/// The longest answer over UDP.
const MAX_PAYLOAD: usize = 1_232;

/// A damage.
#[derive(Clone, Debug)]
enum Damage {
    /// A byte is something else.
    Set(Index, u8),
    /// The rest is missing.
    Cut(Index),
    /// Bytes are put in: a pointer, a long label, anything.
    Insert(Index, Vec<u8>),
    /// A part comes twice.
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let odd = prop_oneof![
        // Compression pointers, to themselves and far away, the longest label, and one that is too long.
        select(vec![vec![0xc0, 0x0c], vec![0xff, 0xff], vec![63], vec![64], vec![0; 12]]),
        prop::collection::vec(any::<u8>(), 1..40),
    ];
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), odd).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

/// A question that the zone can answer, or nearly.
fn whole() -> impl Strategy<Value = Vec<u8>> {
    let names = ["alice", "gpu._tag", "_http._tcp", "_http._tcp.gpu._tag", "nobody", "@", "2.0.99.10.in-addr.arpa."];
    let types = [RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::SRV, RecordType::TXT, RecordType::ANY];
    (select(names.to_vec()), select(types.to_vec()), prop::option::of(any::<u16>())).prop_map(|(name, asked, edns)| {
        let full = match name {
            "@" => format!("{DOMAIN}."),
            name if name.ends_with('.') => name.to_owned(),
            name => format!("{name}.{DOMAIN}."),
        };
        let mut message = Message::query();
        message.add_query(question(&full, asked));
        message.edns = edns.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        message.to_vec().expect("a message")
    })
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (whole(), prop::collection::vec(damage(), 0..4)).prop_map(|(mut bytes, damages)| {
        for damage in damages {
            let room = bytes.len() + 1;
            match damage {
                Damage::Set(at, value) if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
                Damage::Set(..) => {}
                Damage::Cut(at) => bytes.truncate(at.index(room)),
                Damage::Insert(at, more) => drop(bytes.splice(at.index(room)..at.index(room), more)),
                Damage::Repeat(from, to) => {
                    let (from, to) = (from.index(room), to.index(room));
                    bytes.extend_from_within(from.min(to)..from.max(to));
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_question_is_answered_by_the_rules_or_not_at_all(bytes in damaged(), is_tcp in any::<bool>()) {
        let carrier = if is_tcp { Carrier::Tcp } else { Carrier::Udp };
        match read(&bytes, carrier) {
            Heard::Question(asked) => {
                let reply = asked.reply(zone().answer(&asked.question, false));
                prop_assert_eq!(&reply[..2], &bytes[..2], "the question's number");
                prop_assert!(is_tcp || reply.len() <= MAX_PAYLOAD);
                let reply = Message::from_vec(&reply).expect("we write what can be read");
                prop_assert_eq!(reply.queries, vec![asked.question]);
            }
            Heard::Malformed(Some(reply)) => {
                prop_assert_eq!(&reply[..2], &bytes[..2], "the question's number");
                prop_assert!(reply[2] & 0x80 != 0, "an answer");
                // BADVERS has its upper bits in a record.
                prop_assert!(reply.len() > 12 || reply[3] & 0x0f != 0, "an error");
                prop_assert!(reply.len() <= bytes.len(), "{} bytes for {}", reply.len(), bytes.len());
            }
            Heard::Malformed(None) => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
        }
    }
}
