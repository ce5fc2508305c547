//! The values of the messages that find a path: probes of a pair of addresses, their replies, and lists of candidates.
//!
//! A probe and its reply have the same length, so an answer is never longer than its question.

use std::net::{IpAddr, SocketAddr};

use super::{Frame, u16_at};
use crate::Malformed;

/// Length of the value of a path probe and of its reply, in bytes.
pub(super) const PATH_PROBE_LEN: usize = 28;
/// Length of the fields in front of the candidates, in bytes.
pub(super) const CANDIDATES_HEADER_LEN: usize = 8;
/// The most candidates in one list.
pub const MAX_CANDIDATES: usize = 16;

const RELAYED: u8 = 0;
const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// Where a probe came from, as the node that answers sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// This address: the mapping of the NAT nearest to the node that answers, or the sender's own address.
    Direct(SocketAddr),
    /// A channel of a relay.
    Relayed,
}

/// A list of addresses, as it is in the frame. Each entry is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateList<'a>(&'a [u8]);

impl<'a> CandidateList<'a> {
    /// Writes a list to the front of `out`, at most [`MAX_CANDIDATES`] addresses, and lends it.
    pub fn write(addresses: &[SocketAddr], out: &'a mut [u8; MAX_CANDIDATES * 19]) -> Self {
        let mut len = 0;
        for address in addresses.iter().take(MAX_CANDIDATES) {
            len += put_address(*address, &mut out[len..]);
        }
        Self(&out[..len])
    }

    /// The addresses. An IPv4 address in the form of an IPv6 one is not told.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (address, behind) = take_address(rest)?;
            rest = behind;
            Some(address)
        })
        .filter(|address| address.ip() == address.ip().to_canonical())
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (mut rest, mut count) = (bytes, 0);
        while !rest.is_empty() {
            rest = take_address(rest).ok_or(Malformed)?.1;
            count += 1;
        }
        if count > MAX_CANDIDATES { Err(Malformed) } else { Ok(Self(bytes)) }
    }
}

/// Reads the value of a path probe.
pub(super) fn read_probe(value: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (id, sent) = two_numbers(value)?;
    Ok(Frame::PathProbe { id, sent, pair: value[8] })
}

pub(super) fn write_probe(value: &mut [u8], id: u32, sent: u32, pair: u8) {
    value.fill(0);
    value[..4].copy_from_slice(&id.to_be_bytes());
    value[4..8].copy_from_slice(&sent.to_be_bytes());
    value[8] = pair;
}

/// Reads the value of a path reply.
pub(super) fn read_reply(value: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (id, received) = two_numbers(value)?;
    let observed = match value[8] {
        RELAYED => Observed::Relayed,
        _ => Observed::Direct(take_address(&value[8..]).ok_or(Malformed)?.0),
    };
    Ok(Frame::PathReply { id, received, observed })
}

pub(super) fn write_reply(value: &mut [u8], id: u32, received: u32, observed: Observed) {
    value.fill(0);
    value[..4].copy_from_slice(&id.to_be_bytes());
    value[4..8].copy_from_slice(&received.to_be_bytes());
    if let Observed::Direct(address) = observed {
        put_address(address, &mut value[8..]);
    }
}

/// Reads the value of a list of candidates.
pub(super) fn read_candidates(value: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (revision, seen) = two_numbers(value)?;
    Ok(Frame::Candidates { revision, seen, list: CandidateList::parse(&value[CANDIDATES_HEADER_LEN..])? })
}

fn two_numbers(value: &[u8]) -> Result<(u32, u32), Malformed> {
    let [a, b, c, d, e, f, g, h] = *value.first_chunk::<8>().ok_or(Malformed)?;
    Ok((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
}

/// Writes family, port and address to the front of `out`. Returns their length.
fn put_address(address: SocketAddr, out: &mut [u8]) -> usize {
    out[1..3].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            out[0] = IPV4;
            out[3..7].copy_from_slice(&ip.octets());
            7
        }
        IpAddr::V6(ip) => {
            out[0] = IPV6;
            out[3..19].copy_from_slice(&ip.octets());
            19
        }
    }
}

/// The address at the front of `bytes`, and what follows it.
fn take_address(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (head, rest) = bytes.split_at_checked(3)?;
    let port = u16_at(head, 1);
    match head[0] {
        IPV4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            Some((SocketAddr::new(IpAddr::from(*ip), port), rest))
        }
        IPV6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            Some((SocketAddr::new(IpAddr::from(*ip), port), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
