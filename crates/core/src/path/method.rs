//! What attempts to reach peers are counted by: the kind of the peer's address, and the NAT in front of this host.
//!
//! An attempt begins when a pair that is not proven is probed. It succeeds when the peer answers over the pair. Nobody knows
//! the peer's NAT; its kind of address says most of what matters.

/// What kind of address of the peer a pair leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A channel of a relay.
    Relay,
    /// An address that means something in one network only. The peer has named it.
    Private,
    /// Any other address that the peer has named.
    Public,
    /// An address that nobody has named, and that the peer was heard from (RFC 8445: peer-reflexive).
    PeerReflexive,
}

/// What the NAT in front of this host does, as far as relays can tell (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// One relay or none has said how it sees us.
    #[default]
    Unknown,
    /// Relays see an address of this host, so no NAT is there.
    None,
    /// Relays see the same address and port: the mapping is endpoint-independent.
    EndpointIndependent,
    /// Relays see different ones: the mapping depends on the destination.
    DestinationDependent,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Private, Self::Public, Self::PeerReflexive];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Private => "private",
            Self::Public => "public",
            Self::PeerReflexive => "peer_reflexive",
        }
    }
}

impl Nat {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::None, Self::EndpointIndependent, Self::DestinationDependent];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::EndpointIndependent => "endpoint_independent",
            Self::DestinationDependent => "destination_dependent",
        }
    }
}
