//! Addresses of links.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};

use super::{Family, Netlink, NetlinkError, address_family, collect};

/// An address assigned to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub index: u32,
    /// The IP address.
    pub ip: IpAddr,
    /// Prefix length in bits. The prefix is on-link.
    pub prefix: u8,
    /// Whether new connections may use it: it is neither tentative nor deprecated (RFC 4862), and no duplicate.
    pub is_preferred: bool,
}

impl Netlink {
    /// Lists all addresses of all links.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let messages = collect(self.handle.address().get().execute()).await?;
        Ok(messages.iter().filter_map(decode).collect())
    }

    /// Assigns an address to a link. Once the link is up, that also creates the route to the address's prefix. An IPv6
    /// address can be used at once: duplicate address detection is off, because a tunnel has no neighbour that could
    /// hold a duplicate.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `Exists` if the link already has the address, `Unsupported` for IPv6 if IPv6 is switched
    /// off.
    pub async fn add_address(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let mut message = encode(index, ip, prefix);
        if ip.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let result = self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).await;
        match result {
            // The sysctl disable_ipv6 is set.
            Err(NetlinkError::Permission) if ip.is_ipv6() && crate::privileges::has_net_admin() => {
                Err(NetlinkError::Unsupported)
            }
            result => result,
        }
    }

    /// Removes an address from a link.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `NotFound` if the link does not have the address.
    pub async fn delete_address(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::DelAddress(encode(index, ip, prefix)), 0).await
    }
}

fn encode(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(if ip.is_ipv4() { Family::V4 } else { Family::V6 });
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn decode(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point link, "address" is the remote end, and "local", if present, is ours.
    let mut ip = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => ip = Some(*local),
            AddressAttribute::Address(address) => ip = ip.or(Some(*address)),
            _ => {}
        }
    }
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Deprecated | AddressHeaderFlags::Dadfailed;
    Some(Address {
        index: message.header.index,
        ip: ip?,
        prefix: message.header.prefix_len,
        is_preferred: !message.header.flags.intersects(unusable),
    })
}
