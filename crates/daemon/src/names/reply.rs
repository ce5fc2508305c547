//! The bytes of a question, and the bytes of its answer.
//!
//! A malformed question gets twelve bytes (FORMERR). A message that is itself an answer gets no reply, so that two servers cannot
//! be made to talk to each other. No answer over UDP is longer than the client takes, or than 1,232 bytes, which pass every path.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};

use super::zone::Answer;

/// The most bytes of an answer over UDP to an asker without EDNS (RFC 1035 section 4.2.1).
const MIN_PAYLOAD: u16 = 512;
/// The most bytes of an answer over UDP.
const MAX_PAYLOAD: u16 = 1_232;
const HEADER_LEN: usize = 12;
/// The most additional records of a question: EDNS, and one more.
const MAX_ADDITIONALS: u16 = 2;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Udp,
    Tcp,
}

/// What bytes amount to.
#[derive(Debug)]
pub(super) enum Heard {
    Question(Box<Asked>),
    /// It cannot be answered with records. The reply, if there is one.
    Malformed(Option<Vec<u8>>),
}

/// A question that can be answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Query,
    message: Message,
    carrier: Carrier,
}

/// Reads a question.
pub(super) fn read(bytes: &[u8], carrier: Carrier) -> Heard {
    let Some(head) = bytes.get(..HEADER_LEN) else { return Heard::Malformed(None) };
    let is_answer = head[2] & 0x80 != 0;
    if is_answer {
        return Heard::Malformed(None);
    }
    // Room is made for as many records as the header promises, so it must not promise more than a question has.
    let [questions, answers, authorities, additionals] = counts(head);
    let is_question = (questions, answers, authorities) == (1, 0, 0) && additionals <= MAX_ADDITIONALS;
    let message = is_question.then(|| Message::from_vec(bytes).ok()).flatten();
    let Some(message) = message else {
        return Heard::Malformed(Some(format_error(head)));
    };
    let refuse = |code| Heard::Malformed(Some(encode(&answer_to(&message, code), limit_of(&message, carrier))));
    if message.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refuse(ResponseCode::BADVERS);
    }
    match &message.queries[..] {
        [question] => Heard::Question(Box::new(Asked { question: question.clone(), message, carrier })),
        _ => refuse(ResponseCode::FormErr),
    }
}

/// How many records of each section a header promises.
fn counts(head: &[u8]) -> [u16; 4] {
    [4, 6, 8, 10].map(|at| u16::from_be_bytes([head[at], head[at + 1]]))
}

impl Asked {
    /// The bytes that say this.
    pub(super) fn reply(&self, answer: Answer) -> Vec<u8> {
        let mut reply = answer_to(&self.message, answer.code);
        reply.metadata.authoritative = answer.is_ours;
        reply.answers = answer.answers;
        reply.authorities = answer.authority.into_iter().collect();
        encode(&reply, limit_of(&self.message, self.carrier))
    }
}

fn answer_to(asked: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.checking_disabled = asked.metadata.checking_disabled;
    reply.metadata.response_code = code;
    reply.queries.clone_from(&asked.queries);
    reply.edns = asked.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD).set_version(0);
        edns
    });
    reply
}

/// The most bytes that the asker takes.
fn limit_of(asked: &Message, carrier: Carrier) -> u16 {
    match (carrier, &asked.edns) {
        (Carrier::Tcp, _) => u16::MAX,
        (Carrier::Udp, Some(edns)) => edns.max_payload().clamp(MIN_PAYLOAD, MAX_PAYLOAD),
        (Carrier::Udp, None) => MIN_PAYLOAD,
    }
}

/// What does not fit is left out as a whole, so that the asker comes again over TCP.
fn encode(reply: &Message, limit: u16) -> Vec<u8> {
    let whole = written(reply, limit);
    if whole.as_deref().is_some_and(|bytes| !is_truncated(bytes)) {
        return whole.unwrap_or_default();
    }
    let mut empty = answer_to(reply, reply.metadata.response_code);
    empty.metadata.message_type = MessageType::Response;
    empty.metadata.authoritative = reply.metadata.authoritative;
    empty.metadata.truncation = true;
    written(&empty, limit).unwrap_or_default()
}

fn written(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(MIN_PAYLOAD));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    message.emit(&mut encoder).ok()?;
    Some(bytes)
}

fn is_truncated(bytes: &[u8]) -> bool {
    bytes.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// The reply to a message of which only the header can be read.
fn format_error(head: &[u8]) -> Vec<u8> {
    let mut reply = vec![0; HEADER_LEN];
    reply[..2].copy_from_slice(&head[..2]);
    // An answer, with the operation and the wish for recursion as they came.
    reply[2] = 0x80 | (head[2] & 0x79);
    reply[3] = 1;
    reply
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn question(edns: Option<u16>) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Alice.lab.").expect("a name"), RecordType::A));
        message.edns = edns.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        message
    }

    fn asked(message: &Message, carrier: Carrier) -> Asked {
        match read(&message.to_vec().expect("a message"), carrier) {
            Heard::Question(asked) => *asked,
            other => panic!("{other:?}"),
        }
    }

    fn answer(count: u8) -> Answer {
        let name = Name::from_ascii("alice.lab.").expect("a name");
        let records =
            (0..count).map(|i| Record::from_rdata(name.clone(), 5, RData::A(Ipv4Addr::new(10, 0, 0, i).into())));
        Answer { code: ResponseCode::NoError, is_ours: true, answers: records.collect(), authority: None }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_marked() {
        // (EDNS, records, over TCP) and (records that arrive, truncated).
        for ((edns, records, carrier), (arrive, is_truncated)) in [
            ((None, 10, Carrier::Udp), (10, false)),
            ((None, 100, Carrier::Udp), (0, true)),
            ((Some(100), 40, Carrier::Udp), (0, true)),
            ((Some(4096), 60, Carrier::Udp), (60, false)),
            ((Some(4096), 100, Carrier::Udp), (0, true)),
            ((None, 200, Carrier::Tcp), (200, false)),
        ] {
            let asked = asked(&question(edns), carrier);
            let bytes = asked.reply(answer(records));
            let reply = Message::from_vec(&bytes).expect("an answer");
            assert_eq!((reply.answers.len(), reply.metadata.truncation), (arrive, is_truncated), "{edns:?} {records}");
            assert_eq!(reply.edns.is_some(), edns.is_some());
            assert_eq!(reply.queries, question(edns).queries, "as it was asked, capitals included");
            assert!(reply.metadata.authoritative && reply.metadata.recursion_desired);
            assert!(carrier == Carrier::Tcp || bytes.len() <= 1_232);
        }
    }

    /// As a number: two codes share that of BADVERS.
    fn code_of(heard: Heard) -> Option<u16> {
        let Heard::Malformed(reply) = heard else { panic!("it was understood") };
        reply.map(|bytes| Message::from_vec(&bytes).expect("an answer").metadata.response_code.into())
    }

    #[test]
    fn what_is_no_question_is_told_so_or_met_with_silence() {
        let whole = question(None).to_vec().expect("a message");
        let answer = Message::response(7, OpCode::Query).to_vec().expect("a message");
        let mut update = question(None);
        update.metadata.op_code = OpCode::Update;
        let mut two = question(None);
        two.add_query(two.queries[0].clone());
        let mut newer = question(Some(1_232));
        newer.edns.as_mut().expect("there").set_version(1);
        let bytes = |message: &Message| message.to_vec().expect("a message");
        for (what, bytes, code) in [
            ("nothing", Vec::new(), None),
            ("half a header", whole[..11].to_vec(), None),
            ("an answer", answer, None),
            ("half a question", whole[..20].to_vec(), Some(ResponseCode::FormErr)),
            ("no question", bytes(&Message::query()), Some(ResponseCode::FormErr)),
            ("two questions", bytes(&two), Some(ResponseCode::FormErr)),
            ("an update", bytes(&update), Some(ResponseCode::NotImp)),
            ("a newer EDNS", bytes(&newer), Some(ResponseCode::BADVERS)),
        ] {
            assert_eq!(code_of(read(&bytes, Carrier::Udp)), code.map(u16::from), "{what}");
        }
    }

    #[test]
    fn any_bytes_are_survived_and_answered_with_no_more_than_they_are() {
        let whole = question(Some(1_232)).to_vec().expect("a message");
        for at in 0..whole.len() {
            for value in 0..=u8::MAX {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Heard::Malformed(Some(reply)) = read(&bytes, Carrier::Udp) {
                    assert!(reply.len() <= bytes.len(), "byte {at} is {value}");
                }
            }
            let _ = read(&whole[..at], Carrier::Udp);
        }
    }
}
