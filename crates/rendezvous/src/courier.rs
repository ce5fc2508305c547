//! Friends as a rendezvous: what trusted peers carry for each other where one does not find another.
//!
//! An agent that does not find a peer asks the friends that it reaches. It hands each its own endpoints, sealed for that peer. A
//! friend that trusts both hands them on, and the peer answers in the same way. So a friend learns who looks for whom, and not
//! where they are: that is sealed and signed, as at a rendezvous. It also says from which address it hears the agent that asks, and
//! the one that is to answer, as a relay would: behind a NAT nobody else can.

mod keeper;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use overlay_wire::Malformed;
use overlay_wire::signed::PublicKey;

use crate::protocol::{MAX_SLOT_LEN, decode, encode};
pub use keeper::{Keeper, MAX_KEPT, Sealed};

/// What one trusted peer hands to another.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Parcel {
    /// Endpoints of the peer that hands it over, for the reader or for a third agent.
    #[n(0)]
    To {
        /// The agent that they are sealed for.
        #[n(0)]
        to: PublicKey,
        /// As in a slot of a rendezvous, at most [`MAX_SLOT_LEN`] bytes. Nothing, if the peer knows too little to say it to the
        /// reader.
        #[n(1)]
        sealed: ByteVec,
        /// Whether the endpoints of the other agent are wanted in return. If that is the reader: where it sees the peer.
        #[n(2)]
        asks: bool,
    },
    /// Endpoints of a third agent, sealed for the reader.
    #[n(1)]
    From {
        /// The agent that has sealed them, as the peer says.
        #[n(0)]
        from: PublicKey,
        /// As in a slot of a rendezvous, at most [`MAX_SLOT_LEN`] bytes.
        #[n(1)]
        sealed: ByteVec,
        /// Whether the endpoints of the other agent are wanted in return.
        #[n(2)]
        asks: bool,
    },
    /// Where the reader's datagrams come from, as the peer sees it. Told to those that ask or are asked.
    #[n(2)]
    Seen {
        /// An IPv4 address and port (6 bytes), or an IPv6 address and port (18 bytes).
        #[n(0)]
        at: ByteVec,
    },
}

impl Parcel {
    /// A parcel that says where the reader is seen.
    pub fn seen(at: SocketAddr) -> Self {
        let ip = match at.ip().to_canonical() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self::Seen { at: [&ip[..], &at.port().to_be_bytes()].concat().into() }
    }

    /// The address in [`Parcel::Seen`]. `None`: the bytes are not an address.
    pub fn seen_at(at: &[u8]) -> Option<SocketAddr> {
        let (ip, port) = at.split_last_chunk::<2>()?;
        let ip: IpAddr = match ip.len() {
            4 => <[u8; 4]>::try_from(ip).ok()?.into(),
            16 => <[u8; 16]>::try_from(ip).ok()?.into(),
            _ => return None,
        };
        let port = u16::from_be_bytes(*port);
        (port > 0 && ip == ip.to_canonical()).then(|| SocketAddr::new(ip, port))
    }

    /// The bytes of the parcel.
    pub fn write(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a parcel.
    ///
    /// # Errors
    /// [`Malformed`], also if what is sealed is too long.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let parcel = decode(bytes)?;
        let is_good = match &parcel {
            Self::To { sealed, .. } | Self::From { sealed, .. } => sealed.len() <= MAX_SLOT_LEN,
            Self::Seen { at } => Self::seen_at(at).is_some(),
        };
        if is_good { Ok(parcel) } else { Err(Malformed) }
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { to, sealed, .. } => write!(f, "{} bytes to {to}", sealed.len()),
            Self::From { from, sealed, .. } => write!(f, "{} bytes from {from}", sealed.len()),
            Self::Seen { .. } => f.write_str("an address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::control::MAX_PARCEL_LEN;
    use overlay_wire::signed::SecretKey;

    use super::*;

    #[test]
    fn the_longest_parcel_fits_a_frame_and_a_longer_one_is_refused() {
        let to = SecretKey::from_bytes(&[7; 32]).public();
        for (len, is_good) in [(MAX_SLOT_LEN, true), (MAX_SLOT_LEN + 1, false)] {
            let sealed = || vec![9; len].into();
            for parcel in [
                Parcel::To { to, sealed: sealed(), asks: true },
                Parcel::From { from: to, sealed: sealed(), asks: true },
            ] {
                let bytes = parcel.write();
                assert_eq!(Parcel::read(&bytes), if is_good { Ok(parcel) } else { Err(Malformed) });
                assert!(bytes.len() <= MAX_PARCEL_LEN || !is_good);
            }
        }
        assert_eq!(Parcel::read(&[]), Err(Malformed));
    }

    #[test]
    fn an_address_has_one_form() {
        for (text, is_good) in [
            ("192.0.2.1:7", true),
            ("[2001:db8::1]:65535", true),
            ("192.0.2.1:0", false),
            ("[::ffff:192.0.2.1]:7", true),
        ] {
            let at: SocketAddr = text.parse().expect("an address");
            let read = Parcel::read(&Parcel::seen(at).write());
            assert_eq!(read.is_ok(), is_good, "{text}");
            if let Ok(Parcel::Seen { at: bytes }) = read {
                let canonical = SocketAddr::new(at.ip().to_canonical(), at.port());
                assert_eq!(Parcel::seen_at(&bytes), Some(canonical));
            }
        }
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 1, 0, 7]].concat();
        assert_eq!(Parcel::read(&Parcel::Seen { at: mapped.into() }.write()), Err(Malformed));
        assert_eq!(Parcel::read(&Parcel::Seen { at: vec![1; 7].into() }.write()), Err(Malformed));
    }
}
