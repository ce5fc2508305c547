//! What a NAT can be told to do, in the words of RFC 4787.

use std::time::Duration;

use crate::{minutes, seconds};

/// How mappings or filters depend on the remote end (RFC 4787 sections 4.1 and 5). Later is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Not at all.
    EndpointIndependent,
    /// On its address.
    AddressDependent,
    /// On its address and port.
    AddressAndPortDependent,
}

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Nothing: a router or firewall.
    Nothing,
    /// The address. Each host inside has an outside address of its own.
    Address,
    /// The address and the port. All hosts inside share the outside addresses.
    AddressAndPort,
}

/// Which outside port a mapping gets (RFC 4787 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inside port, or a random one where that is taken.
    Preserving,
    /// A random one.
    Random,
    /// The one after the last.
    Sequential,
}

/// Which outside address a mapping gets where there are two (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// All mappings of a host get the same one.
    Paired,
    /// Mappings take turns, whichever host they are for.
    Arbitrary,
}

/// How long mappings and contacts live (RFC 4787 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How long it may be idle before the first answer. Own flows end after it too.
    pub unanswered: Duration,
    /// How long it may be idle after an answer.
    pub idle: Duration,
    /// Whether inbound datagrams count as use, beside outbound ones.
    pub inbound_refreshes: bool,
    /// The age at which a mapping ends whatever its traffic.
    pub age: Option<Duration>,
}

impl Lifetime {
    /// Conntrack's: 30 s, and 120 s once an answer came, refreshed by both directions.
    pub const CONNTRACK: Self =
        Self { unanswered: seconds(30), idle: seconds(120), inbound_refreshes: true, age: None };
    /// Five minutes, which RFC 4787 recommends, refreshed by outbound datagrams only.
    pub const RECOMMENDED: Self =
        Self { unanswered: minutes(5), idle: minutes(5), inbound_refreshes: false, age: None };
}

/// Everything that one NAT does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// What is translated.
    pub translation: Translation,
    /// Which datagrams of one inside socket share a mapping.
    pub mapping: Dependence,
    /// Which remote ends may write to a mapping. `None`: all may, and where the outside address is fixed they need no
    /// mapping.
    pub filtering: Option<Dependence>,
    /// Which outside port a mapping gets.
    pub ports: Ports,
    /// How many outside addresses the NAT has: one or two.
    pub addresses: u8,
    /// Which of them a mapping gets.
    pub pooling: Pooling,
    /// Whether hosts inside reach each other by their outside addresses. The source is translated too (RFC 4787 REQ-9).
    pub hairpins: bool,
    /// How long mappings live.
    pub lifetime: Lifetime,
    /// Whether a datagram from outside without a mapping is taken for one to the router, as Linux does with an open INPUT
    /// chain.
    pub takes_strangers: bool,
}

impl Behaviour {
    /// A NAT with one address that preserves ports, does not hairpin, and keeps mappings as conntrack does.
    pub const fn new(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            translation: Translation::AddressAndPort,
            mapping,
            filtering: Some(filtering),
            ports: Ports::Preserving,
            addresses: 1,
            pooling: Pooling::Paired,
            hairpins: false,
            lifetime: Lifetime::CONNTRACK,
            takes_strangers: false,
        }
    }

    /// A router that translates nothing and filters like this.
    pub const fn untranslated(filtering: Option<Dependence>) -> Self {
        let like = Self::new(Dependence::EndpointIndependent, Dependence::EndpointIndependent);
        Self { translation: Translation::Nothing, filtering, hairpins: true, ..like }
    }
}
