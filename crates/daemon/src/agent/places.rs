//! Where this host can be reached from outside the tunnel, and where its peers can.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use overlay_os::netlink::Netlink;
use overlay_wire::signed::{Endpoints, MAX_ENDPOINTS, Place};

/// The outer addresses of this host, those that a rendezvous has seen first. `inner` are the virtual IPs and pools.
pub(super) async fn own(netlink: &Netlink, seen_from: Vec<IpAddr>, inner: &[IpNet], port: u16) -> Vec<SocketAddr> {
    let addresses = netlink.addresses().await.unwrap_or_default();
    let mut places = seen_from;
    for address in addresses.into_iter().map(|address| address.ip) {
        let is_inner = inner.iter().any(|prefix| prefix.contains(&address));
        if !is_inner && is_reachable(address) && !places.contains(&address) {
            places.push(address);
        }
    }
    places.truncate(MAX_ENDPOINTS);
    places.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Whether other hosts may be able to send to this address.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local() && !address.is_unspecified(),
    }
}

/// Where a peer may be called: what it has said, without addresses inside the tunnel.
pub(super) fn of_peer(endpoints: &Endpoints, inner: &[IpNet]) -> Vec<SocketAddr> {
    let outside = |address: &SocketAddr| !inner.iter().any(|prefix| prefix.contains(&address.ip()));
    let usable = |address: &SocketAddr| outside(address) && is_reachable(address.ip());
    endpoints.places.iter().filter_map(Place::address).filter(usable).collect()
}
