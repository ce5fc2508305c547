//! Which flows may have begun before the flow table knew about them.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_wire::ip;

use super::flows::FlowKey;
use crate::Instant;

/// The UDP ports that were in use on this host at one moment, and its virtual IPs. They say nothing about other hosts
/// that we forward for.
#[derive(Clone, Debug)]
pub(crate) struct HostPorts {
    addresses: Arc<[IpAddr]>,
    /// Sorted in ascending order.
    ports: Arc<[u16]>,
}

impl HostPorts {
    pub(crate) fn new(addresses: &[IpAddr], mut ports: Vec<u16>) -> Self {
        ports.sort_unstable();
        Self { addresses: addresses.into(), ports: ports.into() }
    }

    /// Whether no local program could have had this flow at that moment.
    fn rule_out(&self, key: &FlowKey) -> bool {
        let is_free = |port| self.ports.binary_search(&port).is_err();
        key.protocol == ip::UDP && self.addresses.contains(&key.ours.address) && key.ours.port.is_some_and(is_free)
    }
}

/// A period in which an unknown flow may be an older one.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) until: Instant,
    /// The ports that were in use when the period began. `None` if that is unknown.
    pub(super) ports: Option<HostPorts>,
}

impl Doubt {
    /// Whether a flow that is not in the table may be an older one.
    pub(super) fn covers(&self, key: &FlowKey, now: Instant) -> bool {
        now < self.until && !self.ports.as_ref().is_some_and(|ports| ports.rule_out(key))
    }
}
