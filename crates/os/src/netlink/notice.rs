//! Netlink messages as bytes: the headers of the messages in a datagram, and the attributes behind them.
//!
//! This is for code that needs only a few bytes of many messages, and for netlink families that our libraries do not
//! cover.

/// Length of `nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
/// Length of an attribute's header.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The two upper bits of an attribute's number are flags.
const ATTRIBUTE_MASK: u16 = 0x3fff;

/// One netlink message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// The message type.
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// The port of the socket that caused the message. 0 if the kernel did.
    pub(crate) port: u32,
    /// The bytes behind the header.
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram, up to the first incomplete one.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = word(datagram, 0)? as usize;
        let message = datagram.get(..len).filter(|message| message.len() >= HEADER_LEN)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: half_word(message, 4)?,
            flags: half_word(message, 6)?,
            port: word(message, 12)?,
            payload: message.get(HEADER_LEN..)?,
        })
    })
}

/// The value of the first attribute with this number.
pub(crate) fn attribute(mut attributes: &[u8], number: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(half_word(attributes, 0)?);
        let is_it = half_word(attributes, 2)? & ATTRIBUTE_MASK == number;
        let value = attributes.get(ATTRIBUTE_HEADER_LEN..len)?;
        if is_it {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of type 17 from port 9 with the attributes 1 = `ab` and 2 = `cdefg`, as a kernel on this machine
    /// writes it.
    fn datagram() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(36u32.to_ne_bytes());
        bytes.extend(17u16.to_ne_bytes());
        bytes.extend(0x10u16.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(9u32.to_ne_bytes());
        for (number, value) in [(1u16, &b"ab"[..]), (2 | 0x8000, b"cdefg")] {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(number.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn messages_and_attributes_are_found_and_no_cut_is_read_past() {
        let one = datagram();
        assert_eq!(one.len(), 36);
        let two = [one.clone(), one.clone()].concat();
        let read: Vec<_> = messages(&two).map(|message| (message.kind, message.flags, message.port)).collect();
        assert_eq!(read, [(17, 0x10, 9); 2]);
        let payload = messages(&one).next().expect("one").payload;
        assert_eq!(
            (attribute(payload, 1), attribute(payload, 2), attribute(payload, 3)),
            (Some(&b"ab"[..]), Some(&b"cdefg"[..]), None)
        );
        for cut in 0..one.len() {
            assert_eq!(messages(&one[..cut]).count(), 0, "{cut}");
        }
        for cut in 0..payload.len() {
            let _ = attribute(&payload[..cut], 2);
        }
        assert_eq!(attribute(&[0; 8], 1), None, "a length of 0 does not go on for ever");
    }
}
