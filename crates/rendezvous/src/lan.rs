//! On one LAN: how trusted peers find each other when nobody else tells them where they are.
//!
//! An agent announces itself to a multicast group. The announcement says at which port its tunnel is, and has one tag for each
//! trusted peer that it is for:
//!
//! ```text
//! announcement = "ovL1" || flags(1) || port(2) || nonce(16) || tags(8 each, 1 to 128)
//! tag          = first 8 bytes of HKDF-SHA256( ikm = preshared key of both, salt = nonce,
//!                info = "overlay lan v1" || flags || sender's identity || sender's address (16) || port )
//! ```
//!
//! So a peer knows by its tag that the announcement was made by the other end, at the address that it came from, and anybody else
//! learns that some agent is there. The nonce makes the tags of each announcement look new. A copy from a different address is
//! nobody's; a copy from the same address says what was true. The address is a candidate, no more: the handshake decides.
//!
//! A flag asks the peer to announce itself in return, to the sender alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hkdf::Hkdf;
use overlay_wire::signed::PublicKey;
use sha2::Sha256;

/// The UDP port of announcements: "ov" in ASCII.
pub const PORT: u16 = 0x6f76;
/// The group of IPv4, in the local scope (RFC 2365).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 0x6f, 0x76);
/// The group of IPv6: transient, and on the link alone.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x6f76, 0x6572);
/// The most peers that one announcement is for.
pub const MAX_TAGS: usize = 128;

const MAGIC: [u8; 4] = *b"ovL1";
const ASKS: u8 = 1;
const NONCE_LEN: usize = 16;
const TAG_LEN: usize = 8;
const HEADER_LEN: usize = MAGIC.len() + 1 + 2 + NONCE_LEN;
/// The longest announcement in bytes.
pub const MAX_LEN: usize = HEADER_LEN + MAX_TAGS * TAG_LEN;
/// Announcements have a multiple of this many tags, so that they do not tell how many peers an agent has.
const TAGS_AT_ONCE: usize = 8;

/// An announcement that was received.
#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    flags: u8,
    nonce: [u8; NONCE_LEN],
    tags: &'a [u8],
    at: SocketAddr,
}

impl<'a> Announcement<'a> {
    /// Reads a datagram that came from this address. `None`: it is not an announcement.
    pub fn read(datagram: &'a [u8], from: IpAddr) -> Option<Self> {
        let (header, tags) = datagram.split_at_checked(HEADER_LEN)?;
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first()?;
        let (port, nonce) = rest.split_first_chunk::<2>()?;
        let (port, count) = (u16::from_be_bytes(*port), tags.len() / TAG_LEN);
        let is_good = *magic == MAGIC && port > 0 && tags.len() % TAG_LEN == 0 && (1..=MAX_TAGS).contains(&count);
        let at = SocketAddr::new(from.to_canonical(), port);
        is_good.then_some(Self { flags: *flags, nonce: nonce.try_into().ok()?, tags, at })
    }

    /// Whether it was made by this agent, which shares this key with us, for us.
    pub fn is_from(&self, sender: &PublicKey, preshared: &[u8; 32]) -> bool {
        let tag = tag((sender, self.at), preshared, self.flags, &self.nonce);
        // A stranger that tries tags learns at most that one was right, and would have to send from that address.
        self.tags.chunks_exact(TAG_LEN).any(|known| known == tag)
    }

    /// The address of the sender's tunnel.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Whether the sender wants to hear from us.
    pub fn asks(&self) -> bool {
        self.flags & ASKS != 0
    }
}

/// An announcement of ours: who we are, and where our tunnel is.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Our identity.
    pub identity: &'a PublicKey,
    /// The address that the announcement is sent from, and the port of our tunnel.
    pub at: SocketAddr,
    /// Whether peers are to announce themselves in return.
    pub asks: bool,
}

impl Own<'_> {
    /// Writes it for the peers with whom we share these keys. The first [`MAX_TAGS`] count. `random` fills bytes.
    pub fn write<'k>(
        &self,
        preshared: impl Iterator<Item = &'k [u8; 32]>,
        mut random: impl FnMut(&mut [u8]),
    ) -> Vec<u8> {
        let (mut nonce, flags) = ([0; NONCE_LEN], if self.asks { ASKS } else { 0 });
        random(&mut nonce);
        let mut tags: Vec<[u8; TAG_LEN]> =
            preshared.take(MAX_TAGS).map(|key| tag((self.identity, self.at), key, flags, &nonce)).collect();
        tags.resize_with(tags.len().next_multiple_of(TAGS_AT_ONCE).clamp(TAGS_AT_ONCE, MAX_TAGS), || {
            let mut nobodys = [0; TAG_LEN];
            random(&mut nobodys);
            nobodys
        });
        // Their order would tell who was sought.
        tags.sort_unstable();
        [&MAGIC[..], &[flags], &self.at.port().to_be_bytes(), &nonce, tags.as_flattened()].concat()
    }
}

fn tag(
    (sender, at): (&PublicKey, SocketAddr),
    preshared: &[u8; 32],
    flags: u8,
    nonce: &[u8; NONCE_LEN],
) -> [u8; TAG_LEN] {
    let address = match at.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let info = [b"overlay lan v1", &[flags][..], &sender.0, &address.octets(), &at.port().to_be_bytes()].concat();
    let mut tag = [0; TAG_LEN];
    // Eight bytes are never too many.
    let _ = Hkdf::<Sha256>::new(Some(nonce), preshared).expand(&info, &mut tag);
    tag
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::*;

    const KEYS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

    fn written(asks: bool, count: usize) -> (PublicKey, SocketAddr, Vec<u8>) {
        let identity = SecretKey::from_bytes(&[9; 32]).public();
        let at: SocketAddr = "192.168.1.7:51820".parse().expect("an address");
        let mut next = 0;
        let random = |bytes: &mut [u8]| {
            next += 1;
            bytes.fill(next);
        };
        let bytes = Own { identity: &identity, at, asks }.write(KEYS.iter().cycle().take(count), random);
        (identity, at, bytes)
    }

    #[test]
    fn the_peers_that_it_is_for_know_it_and_nobody_else_does() {
        let (sender, at, bytes) = written(true, 2);
        let announcement = Announcement::read(&bytes, at.ip()).expect("a good one");
        assert_eq!((announcement.at(), announcement.asks()), (at, true));
        let known: Vec<_> = KEYS.iter().map(|key| announcement.is_from(&sender, key)).collect();
        assert_eq!(known, [true, true, false]);
        let other = SecretKey::from_bytes(&[8; 32]).public();
        assert!(!announcement.is_from(&other, &KEYS[0]), "a different sender");
        let copied = Announcement::read(&bytes, "192.168.1.8".parse().expect("one")).expect("the same bytes");
        assert!(!copied.is_from(&sender, &KEYS[0]), "from elsewhere");
        for at in [4, 5, 7, HEADER_LEN - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 2;
            let changed = Announcement::read(&changed, announcement.at().ip()).expect("still one");
            assert!(!changed.is_from(&sender, &KEYS[0]), "byte {at}");
        }
    }

    #[test]
    fn its_length_does_not_tell_how_many_it_is_for() {
        let tags = |count| (written(false, count).2.len() - HEADER_LEN) / TAG_LEN;
        assert_eq!([0, 1, 8, 9, 128, 500].map(tags), [8, 8, 8, 16, 128, 128]);
        assert_eq!(written(false, 500).2.len(), MAX_LEN);
    }

    #[test]
    fn anything_else_is_no_announcement() {
        let (_, at, bytes) = written(false, 1);
        for len in 0..bytes.len() {
            let is_whole = len > HEADER_LEN && (len - HEADER_LEN).is_multiple_of(TAG_LEN);
            assert_eq!(Announcement::read(&bytes[..len], at.ip()).is_some(), is_whole, "{len} bytes");
        }
        let long = [&bytes[..], &[0; MAX_LEN]].concat();
        assert!(Announcement::read(&long[..MAX_LEN + TAG_LEN], at.ip()).is_none());
        let mut portless = bytes.clone();
        portless[5..7].fill(0);
        assert!(Announcement::read(&portless, at.ip()).is_none());
    }
}
