//! What a relay sends to an agent.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{Channel, ECHO_LEN, channel_of, control_head, open_control, take};
use crate::Malformed;
use crate::signed::PublicKey;

const CHALLENGE: u8 = 2;
const BOUND: u8 = 4;
const OPENED: u8 = 6;
const UNBOUND: u8 = 8;
const REFUSED: u8 = 9;

/// A message of a relay. Each has one length. Nothing in it is signed: the agent compares what it repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A proof that the agent receives what is sent to its address.
    ///
    /// ```text
    /// 4 nonce (16) | 20 cookie (16)
    /// ```
    Challenge {
        /// The number of the hello.
        nonce: [u8; 16],
        /// What the bind has to repeat.
        cookie: [u8; 16],
    },
    /// The agent is bound.
    Bound(Bound),
    /// There is a channel. The end that asked for it is answered, and the other end is told.
    ///
    /// ```text
    /// 4 request (8) | 12 zero (1), channel (3) | 16 peer (32) | 48 seconds (4)
    /// ```
    Opened {
        /// The number of the `open`. For the end that did not ask it is its token, which nobody else knows.
        request: [u8; 8],
        /// The channel.
        channel: Channel,
        /// The agent at the other end.
        peer: PublicKey,
        /// How long the permit is still valid.
        valid_for: Duration,
    },
    /// The relay has no such channel for the sender of this datagram. It is a hint, since anybody can send it.
    ///
    /// ```text
    /// 4 the first bytes of the datagram (8)
    /// ```
    Unbound {
        /// The first bytes of the datagram.
        echo: [u8; ECHO_LEN],
    },
    /// A bind or an open is refused.
    ///
    /// ```text
    /// 4 what it answers (16) | 20 reason (1) | 21 zero (1) | 22 seconds (2)
    /// ```
    Refused {
        /// The nonce of a bind, or eight zeros and the number of an open.
        answers: [u8; 16],
        /// Why.
        reason: Reason,
        /// After this time it is worth a new try. 0: not before something changes.
        wait: Duration,
    },
}

/// What a relay grants an agent.
///
/// ```text
/// 4 nonce (16) | 20 token (8) | 28 address (16) | 44 port (2) | 46 seconds (2) | 48 rate (8) | 56 daily (8) | 64 left (8)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The number of the hello.
    pub nonce: [u8; 16],
    /// A secret that `open` and `close` repeat.
    pub token: [u8; 8],
    /// Where the relay sees the agent. An IPv4 address is written as an IPv4-mapped IPv6 address.
    pub observed: SocketAddr,
    /// How long the agent is bound, in whole seconds.
    pub lifetime: Duration,
    /// How many bytes per second the agent may send. 0: no limit.
    pub rate: u64,
    /// How many bytes the agent may send in a day, which ends at midnight UTC. 0: no limit.
    pub daily: u64,
    /// How many of those are left today.
    pub daily_left: u64,
}

/// Why a bind or an open is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The object is malformed, badly signed, or does not say what is around it.
    BadObject,
    /// The object names a different relay.
    WrongRelay,
    /// No membership, or not one that counts here.
    NotAMember,
    /// The membership or the permit is over, or not valid yet.
    Expired,
    /// There was a bind with a higher epoch: a copy of the agent, or an old datagram.
    OldEpoch,
    /// The relay has no room.
    Full,
    /// Too many in a short time.
    TooOften,
    /// The permit is for a different agent or network.
    NotYours,
    /// The issuer has closed the channel or taken back the permit. A newer one is needed.
    TakenBack,
    /// The issuer is not bound here.
    NotHere,
    /// A reason that this program does not know.
    Unknown,
}

impl Reason {
    /// Every reason that has a code.
    pub const ALL: [Self; 10] = [
        Self::BadObject,
        Self::WrongRelay,
        Self::NotAMember,
        Self::Expired,
        Self::OldEpoch,
        Self::Full,
        Self::TooOften,
        Self::NotYours,
        Self::TakenBack,
        Self::NotHere,
    ];

    /// The name in counters and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::BadObject => "bad_object",
            Self::WrongRelay => "wrong_relay",
            Self::NotAMember => "not_a_member",
            Self::Expired => "expired",
            Self::OldEpoch => "old_epoch",
            Self::Full => "full",
            Self::TooOften => "too_often",
            Self::NotYours => "not_yours",
            Self::TakenBack => "taken_back",
            Self::NotHere => "not_here",
            Self::Unknown => "unknown",
        }
    }

    /// 1 to 10 in the order of [`Reason::ALL`].
    pub fn code(self) -> u8 {
        Self::ALL.iter().position(|reason| *reason == self).map_or(0, |at| at as u8 + 1)
    }

    fn of_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code).wrapping_sub(1)).copied().unwrap_or(Self::Unknown)
    }
}

impl Reply {
    /// Reads a message of a relay.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one, or does not have its length.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        Self::read(datagram).ok_or(Malformed)
    }

    fn read(datagram: &[u8]) -> Option<Self> {
        let (message, mut rest) = open_control(datagram)?;
        let rest = &mut rest;
        let reply = match message {
            CHALLENGE => Self::Challenge { nonce: take(rest)?, cookie: take(rest)? },
            BOUND => Self::Bound(Bound {
                nonce: take(rest)?,
                token: take(rest)?,
                observed: {
                    let address = Ipv6Addr::from_octets(take(rest)?);
                    SocketAddr::new(IpAddr::V6(address).to_canonical(), u16::from_be_bytes(take(rest)?))
                },
                lifetime: Duration::from_secs(u16::from_be_bytes(take(rest)?).into()),
                rate: u64::from_be_bytes(take(rest)?),
                daily: u64::from_be_bytes(take(rest)?),
                daily_left: u64::from_be_bytes(take(rest)?),
            }),
            OPENED => Self::Opened {
                request: take(rest)?,
                channel: channel_of(take(rest)?)?,
                peer: PublicKey(take(rest)?),
                valid_for: Duration::from_secs(u32::from_be_bytes(take(rest)?).into()),
            },
            UNBOUND => Self::Unbound { echo: take(rest)? },
            REFUSED => {
                let (answers, [code, _]) = (take(rest)?, take(rest)?);
                let wait = Duration::from_secs(u16::from_be_bytes(take(rest)?).into());
                Self::Refused { answers, reason: Reason::of_code(code), wait }
            }
            _ => return None,
        };
        rest.is_empty().then_some(reply)
    }

    /// The datagram.
    pub fn datagram(&self) -> Vec<u8> {
        let with = |message, parts: &[&[u8]]| [&control_head(message)[..], &parts.concat()].concat();
        match self {
            Self::Challenge { nonce, cookie } => with(CHALLENGE, &[nonce, cookie]),
            Self::Bound(bound) => {
                let address = match bound.observed.ip() {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                let parts: [&[u8]; 8] = [
                    &bound.nonce,
                    &bound.token,
                    &address.octets(),
                    &bound.observed.port().to_be_bytes(),
                    &(bound.lifetime.as_secs().min(u16::MAX.into()) as u16).to_be_bytes(),
                    &bound.rate.to_be_bytes(),
                    &bound.daily.to_be_bytes(),
                    &bound.daily_left.to_be_bytes(),
                ];
                with(BOUND, &parts)
            }
            Self::Opened { request, channel, peer, valid_for } => {
                let seconds = (valid_for.as_secs().min(u32::MAX.into()) as u32).to_be_bytes();
                with(OPENED, &[request, &channel.number().to_be_bytes(), &peer.0, &seconds])
            }
            Self::Unbound { echo } => with(UNBOUND, &[echo]),
            Self::Refused { answers, reason, wait } => {
                let seconds = (wait.as_secs().min(u16::MAX.into()) as u16).to_be_bytes();
                with(REFUSED, &[answers, &[reason.code(), 0], &seconds])
            }
        }
    }
}
