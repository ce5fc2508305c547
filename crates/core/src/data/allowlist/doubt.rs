//! Which flows may have begun before the flow table knew about them.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use overlay_wire::ip;

use super::flows::FlowKey;
use crate::Instant;

/// The UDP ports of this host at one moment, and its virtual IPs. They say nothing about other hosts that we forward for.
#[derive(Clone, Debug)]
pub(crate) struct HostPorts {
    addresses: Arc<[IpAddr]>,
    /// In ascending order. See [`crate::Command::HostPorts`].
    taken: Arc<[u16]>,
    /// The ports that the kernel gives to programs that ask for any port.
    ephemeral: RangeInclusive<u16>,
}

impl HostPorts {
    pub(crate) fn new(addresses: &[IpAddr], mut taken: Vec<u16>, ephemeral: RangeInclusive<u16>) -> Self {
        taken.sort_unstable();
        Self { addresses: addresses.into(), taken: taken.into(), ephemeral }
    }

    /// Whether no local program could have had this flow at that moment. A port outside the ephemeral range proves
    /// nothing: services listen there, and behind REDIRECT, DNAT or TPROXY no socket has the port that the peer sees.
    fn rule_out(&self, key: &FlowKey) -> bool {
        let is_free = |port| self.ephemeral.contains(&port) && self.taken.binary_search(&port).is_err();
        key.protocol == ip::UDP && self.addresses.contains(&key.ours.address) && key.ours.port.is_some_and(is_free)
    }
}

/// A period in which an unknown flow may be an older one.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) until: Instant,
    /// The ports when the period began. `None` if they are unknown.
    pub(super) ports: Option<HostPorts>,
}

impl Doubt {
    /// Whether a flow that is not in the table may be an older one.
    pub(super) fn covers(&self, key: &FlowKey, now: Instant) -> bool {
        now < self.until && !self.ports.as_ref().is_some_and(|ports| ports.rule_out(key))
    }
}
