//! STUN: "from which address do you see me?" (RFC 8489), and the questions about a NAT's behaviour (RFC 5780).
//!
//! [`Message::parse`] reads binding requests and what answers them. [`write_request`] and [`Answer::write`] write them. That
//! is all of STUN that overlay speaks: it has no credentials, no TCP, and no other method.
//!
//! ```text
//! 2 bits 0 | 14 bits class and method | 16 bits length | magic cookie 2112a442 | 96 bits transaction id | attributes
//! attribute: 16 bits type | 16 bits length | value | 0 to 3 bytes, so that the next one begins at a multiple of 4
//! ```
//!
//! The code is our own because the libraries do not fit. `stun-types` 2.0 does not know the attributes of RFC 5780, draws
//! from the global random source, logs warnings about bytes of strangers, and brings MD5, SHA-1 and HMAC for credentials
//! that are not used here. `is` 0.12 refuses every binding message without MESSAGE-INTEGRITY, which is what a plain STUN
//! server sends.
//!
//! Nothing that is read here is authenticated. Anybody who sees a request can answer it, and the transaction id only keeps
//! those out who do not see it. So an answer is a hint about our own address, and never proves a path.
//!
//! Our requests are padded to [`REQUEST_LEN`], so that no answer with all its addresses is longer than its request. The
//! padding is an optional attribute without a meaning, which every server ignores. It is not PADDING of RFC 5780: a server
//! that knows PADDING answers with 1,500 bytes of it (section 6.1), and a server that does not know it refuses the request.
//!
//! Left out: MESSAGE-INTEGRITY is not verified, because there is no shared key, and SOFTWARE is neither read nor written.

mod address;
mod fingerprint;

use std::net::SocketAddr;

use crate::Malformed;

/// Bytes 4 to 7 of every STUN message.
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Length of the header in bytes: type, length, cookie, transaction id.
pub const HEADER_LEN: usize = 20;
/// Length of our requests in bytes: that of the longest [`Answer`] that we write, three addresses of IPv6.
pub const REQUEST_LEN: usize = HEADER_LEN + 3 * (ATTRIBUTE_HEADER_LEN + address::V6_LEN);
/// The longest message that is read, in bytes. RFC 8489 section 6.1 wants messages to fit a packet, but PADDING of RFC 5780
/// alone is as long as an Ethernet's MTU. A buffer that is longer shows which datagrams are too long.
pub const MAX_LEN: usize = 2_047;

const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The method Binding, with each class (RFC 8489 section 5).
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const ERROR: u16 = 0x0111;

const MAPPED_ADDRESS: u16 = 0x0001;
const CHANGE_REQUEST: u16 = 0x0003;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PADDING: u16 = 0x0026;
const FINGERPRINT: u16 = 0x8028;
const RESPONSE_ORIGIN: u16 = 0x802b;
const OTHER_ADDRESS: u16 = 0x802c;
/// What pads our requests. IANA has not assigned the type, and receivers may ignore it (RFC 8489 section 14).
const FILLER: u16 = 0xfffe;

/// Types from here on may be ignored by a receiver that does not know them.
const OPTIONAL: u16 = 0x8000;
/// Types below [`OPTIONAL`] that this module knows and passes over: USERNAME, MESSAGE-INTEGRITY, UNKNOWN-ATTRIBUTES, REALM,
/// NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM and USERHASH of RFC 8489, and SOURCE-ADDRESS and CHANGED-ADDRESS of
/// RFC 3489, which old servers still send.
const PASSED_OVER: [u16; 10] = [0x0004, 0x0005, 0x0006, 0x0008, 0x000a, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e];

/// The bits of CHANGE-REQUEST (RFC 5780 section 7.2).
const CHANGE_IP: u32 = 0x04;
const CHANGE_PORT: u32 = 0x02;

/// What ties an answer to its request. It is drawn at random, so that strangers cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub [u8; 12]);

/// From which of its sockets a server is asked to answer (RFC 5780 section 7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// From its other IP address.
    pub ip: bool,
    /// From its other port.
    pub port: bool,
}

impl Change {
    /// The answer comes from where the request went.
    pub const NOTHING: Self = Self { ip: false, port: false };
}

/// A STUN message of the method Binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks.
    Request(Request),
    /// The server tells.
    Answer(Answer),
    /// The server does not tell.
    Refusal(Refusal),
    /// An indication, or a method of an extension such as TURN.
    Other,
}

/// A question for the address from which it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the answer repeats.
    pub id: TransactionId,
    /// From where the answer is wanted.
    pub change: Change,
    /// Whether every attribute that has to be understood is. Otherwise the request means something that we do not know.
    pub is_understood: bool,
}

/// The answer of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// That of the request.
    pub id: TransactionId,
    /// The source of the request, as the server saw it: XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS of old servers.
    pub mapped: SocketAddr,
    /// The server's address from which the answer was sent (RESPONSE-ORIGIN).
    pub origin: Option<SocketAddr>,
    /// The server's address with a different IP address and a different port (OTHER-ADDRESS).
    pub other: Option<SocketAddr>,
}

/// The answer of a server that does not do what the request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// That of the request.
    pub id: TransactionId,
    /// The reason, 300 to 699 (RFC 8489 section 14.8). 420: the server does not know an attribute.
    pub code: u16,
}

impl Message {
    /// Reads a datagram. If an attribute appears twice, the first one counts.
    ///
    /// # Errors
    /// Returns [`Malformed`] if it is not one whole STUN message of at most [`MAX_LEN`] bytes, if an attribute does not have
    /// its form, if the FINGERPRINT is wrong or not at the end, or if an answer lacks its address or has an attribute that
    /// must be understood and is not.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let (header, attributes) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(Malformed)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, id @ ..] = *header;
        let (kind, len) = (u16::from_be_bytes([t0, t1]), usize::from(u16::from_be_bytes([l0, l1])));
        let is_stun = kind < 0x4000 && [c0, c1, c2, c3] == MAGIC_COOKIE;
        if !is_stun || len != attributes.len() || !len.is_multiple_of(4) || datagram.len() > MAX_LEN {
            return Err(Malformed);
        }
        let (id, found) = (TransactionId(id), Found::read(datagram)?);
        match kind {
            REQUEST => {
                let change = found.change.unwrap_or_default();
                Ok(Self::Request(Request { id, change, is_understood: !found.is_beyond_us }))
            }
            SUCCESS if !found.is_beyond_us => {
                let mapped = found.xor_mapped.or(found.mapped).ok_or(Malformed)?;
                Ok(Self::Answer(Answer { id, mapped, origin: found.origin, other: found.other }))
            }
            ERROR => Ok(Self::Refusal(Refusal { id, code: found.code.ok_or(Malformed)? })),
            SUCCESS => Err(Malformed),
            _ => Ok(Self::Other),
        }
    }
}

/// The attributes of a message.
#[derive(Default)]
struct Found {
    change: Option<Change>,
    xor_mapped: Option<SocketAddr>,
    mapped: Option<SocketAddr>,
    origin: Option<SocketAddr>,
    other: Option<SocketAddr>,
    code: Option<u16>,
    /// Whether there is one that must be understood and is not.
    is_beyond_us: bool,
}

impl Found {
    fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let (header, mut rest) = message.split_first_chunk::<HEADER_LEN>().ok_or(Malformed)?;
        while !rest.is_empty() {
            let at = message.len() - rest.len();
            let (&[t0, t1, l0, l1], behind) = rest.split_first_chunk::<ATTRIBUTE_HEADER_LEN>().ok_or(Malformed)?;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            // The length of the message is a multiple of 4, so what pads the last value is there too.
            let (value, _) = behind.split_at_checked(len).ok_or(Malformed)?;
            rest = behind.split_at_checked(len.next_multiple_of(4)).ok_or(Malformed)?.1;
            match u16::from_be_bytes([t0, t1]) {
                CHANGE_REQUEST => first(&mut found.change, change(value)?),
                XOR_MAPPED_ADDRESS => first(&mut found.xor_mapped, address::read_xor(value, header)?),
                MAPPED_ADDRESS => first(&mut found.mapped, address::read(value)?),
                RESPONSE_ORIGIN => first(&mut found.origin, address::read(value)?),
                OTHER_ADDRESS => first(&mut found.other, address::read(value)?),
                ERROR_CODE => first(&mut found.code, code(value)?),
                FINGERPRINT if value == fingerprint::of(&message[..at]) && rest.is_empty() => {}
                FINGERPRINT => return Err(Malformed),
                kind => found.is_beyond_us |= kind < OPTIONAL && kind != PADDING && !PASSED_OVER.contains(&kind),
            }
        }
        Ok(found)
    }
}

fn first<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

fn change(value: &[u8]) -> Result<Change, Malformed> {
    let flags = u32::from_be_bytes(value.try_into().map_err(|_| Malformed)?);
    Ok(Change { ip: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 })
}

/// The number of ERROR-CODE: the hundreds in the third byte, the rest in the fourth, then a text.
fn code(value: &[u8]) -> Result<u16, Malformed> {
    let [_, _, hundreds, rest, ..] = *value else { return Err(Malformed) };
    match (hundreds & 7, rest) {
        (3..=6, 0..=99) => Ok(u16::from(hundreds & 7) * 100 + u16::from(rest)),
        _ => Err(Malformed),
    }
}

/// Appends a request of [`REQUEST_LEN`] bytes.
pub fn write_request(id: TransactionId, change: Change, into: &mut Vec<u8>) {
    let begin = into.len();
    write_header(REQUEST, REQUEST_LEN, id, into);
    if change != Change::NOTHING {
        write_attribute(CHANGE_REQUEST, 4, into);
        let flags = if change.ip { CHANGE_IP } else { 0 } | if change.port { CHANGE_PORT } else { 0 };
        into.extend(flags.to_be_bytes());
    }
    let filler = REQUEST_LEN - (into.len() - begin) - ATTRIBUTE_HEADER_LEN;
    write_attribute(FILLER, filler, into);
    into.resize(begin + REQUEST_LEN, 0);
}

impl Answer {
    /// The length of the answer as [`Self::write`] writes it, in bytes.
    pub fn written_len(&self) -> usize {
        let addresses = [Some(self.mapped), self.origin, self.other];
        let lens = addresses.iter().flatten().map(|address| ATTRIBUTE_HEADER_LEN + address::len(*address));
        HEADER_LEN + lens.sum::<usize>()
    }

    /// Appends the answer.
    pub fn write(&self, into: &mut Vec<u8>) {
        write_header(SUCCESS, self.written_len(), self.id, into);
        write_attribute(XOR_MAPPED_ADDRESS, address::len(self.mapped), into);
        address::write_xor(self.mapped, self.id, into);
        for (kind, address) in [(RESPONSE_ORIGIN, self.origin), (OTHER_ADDRESS, self.other)] {
            if let Some(address) = address {
                write_attribute(kind, address::len(address), into);
                address::write(address, into);
            }
        }
    }
}

/// Writes the header of a message that will be `len` bytes long.
fn write_header(kind: u16, len: usize, id: TransactionId, into: &mut Vec<u8>) {
    into.extend(kind.to_be_bytes());
    into.extend(((len - HEADER_LEN) as u16).to_be_bytes());
    into.extend(MAGIC_COOKIE);
    into.extend(id.0);
}

fn write_attribute(kind: u16, len: usize, into: &mut Vec<u8>) {
    into.extend(kind.to_be_bytes());
    into.extend((len as u16).to_be_bytes());
}

#[cfg(test)]
mod tests;
