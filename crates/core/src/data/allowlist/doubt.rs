//! Which flows may be older than the memory of them.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_wire::ip;

use super::flows::FlowKey;
use crate::Instant;

/// The UDP ports that were in use on this host at some moment, and its virtual IPs: they say nothing of other hosts that we
/// forward for.
#[derive(Clone, Debug)]
pub(crate) struct HostPorts {
    addresses: Arc<[IpAddr]>,
    /// In ascending order.
    ports: Arc<[u16]>,
}

impl HostPorts {
    pub(crate) fn new(addresses: &[IpAddr], mut ports: Vec<u16>) -> Self {
        ports.sort_unstable();
        Self { addresses: addresses.into(), ports: ports.into() }
    }

    /// Whether no program of ours could have had this flow then.
    fn rule_out(&self, key: &FlowKey) -> bool {
        let is_free = |port| self.ports.binary_search(&port).is_err();
        key.protocol == ip::UDP && self.addresses.contains(&key.ours.address) && key.ours.port.is_some_and(is_free)
    }
}

/// A time in which an unknown flow may be one from before.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) until: Instant,
    /// The ports in use when it began. `None`: nobody knows.
    pub(super) ports: Option<HostPorts>,
}

impl Doubt {
    /// Whether a flow that is not in the table may be one from before.
    pub(super) fn covers(&self, key: &FlowKey, now: Instant) -> bool {
        now < self.until && !self.ports.as_ref().is_some_and(|ports| ports.rule_out(key))
    }
}
