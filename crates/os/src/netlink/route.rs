//! Routes, and where the kernel would send a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteScope, RouteType, RouteVia,
};

use super::{Family, Netlink, NetlinkError, address_family, collect};

/// The number of the routing table `main`.
pub const MAIN_TABLE: u32 = 254;

/// The number of the routing table `local`, which the kernel fills with its own addresses.
pub const LOCAL_TABLE: u32 = 255;

/// RTPROT_STATIC: a route set by an administrator, not by the kernel or a routing daemon.
const PROTOCOL_STATIC: u8 = 4;

/// RTPROT_KERNEL: a route that the kernel derived from an address.
const PROTOCOL_KERNEL: u8 = 2;

/// A route. Without interface and gateway it is a route that refuses packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination prefix.
    pub destination: IpNet,
    /// The index of the outgoing link. `None` in a route to be added lets the gateway decide.
    pub interface: Option<u32>,
    /// The next router. `None` for an on-link destination.
    pub gateway: Option<IpAddr>,
    /// The routing table. 254 is `main`.
    pub table: u32,
    /// The route's MTU in bytes, if it sets one.
    pub mtu: Option<u32>,
    /// The priority among routes to the same destination: the lowest wins. `None` means 0 for IPv4 and 1,024 for IPv6.
    pub metric: Option<u32>,
    /// The preferred source address, if the route sets one. IPv6 routes usually leave the choice to the kernel.
    pub source: Option<IpAddr>,
    /// The origin of the route (`/etc/iproute2/rt_protos`): 2 is the kernel, 3 is boot, 4 is an administrator.
    pub protocol: u8,
}

impl Route {
    /// A route in table `main` to a destination behind a link.
    pub fn to_interface(destination: IpNet, interface: u32) -> Self {
        Self {
            destination,
            interface: Some(interface),
            gateway: None,
            table: MAIN_TABLE,
            mtu: None,
            metric: None,
            source: None,
            protocol: PROTOCOL_STATIC,
        }
    }

    /// Whether this is a connected route, which the kernel derived from an address.
    pub fn is_connected(&self) -> bool {
        self.protocol == PROTOCOL_KERNEL && self.gateway.is_none()
    }
}

/// The kernel's answer to where it would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// The index of the outgoing link.
    pub interface: u32,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// The MTU in bytes that the route itself sets. The link's MTU may be smaller. Unknown if routers have reported a
    /// smaller one.
    pub mtu: Option<u32>,
    /// The path MTU in bytes that routers have reported to the kernel by ICMP in the last ten minutes. It is not
    /// trustworthy: any sender that can guess a port can cause such a report.
    pub told_mtu: Option<u32>,
    /// The source address that the kernel would choose.
    pub source: Option<IpAddr>,
    /// The table that decided. As long as a namespace has no rules of its own, the kernel reports IPv4's `local` (255)
    /// as part of `main`.
    pub table: u32,
}

impl Netlink {
    /// Lists the routes of all tables, one entry for each next hop. The routes that the kernel keeps for its own
    /// addresses (local, broadcast, multicast) are left out.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut all = RouteMessage::default();
            all.header.address_family = address_family(family);
            match collect(self.handle.route().get(all).execute()).await {
                Ok(messages) => messages.iter().for_each(|message| decode(message, &mut routes)),
                Err(NetlinkError::Unsupported) => {} // a kernel without this family has no routes for it
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// Adds a route.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `Exists` if there is a route with the same destination, table and metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::NewRoute(encode(route)), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Adds a route, or replaces the one with the same destination, table and metric.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::NewRoute(encode(route)), NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Deletes the route with the same destination, table, link and gateway, and the same metric if one is given.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `NotFound` if it does not exist.
    pub async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.delete_route_as_set(&Route { protocol: 0, ..route.clone() }).await
    }

    /// Like [`Netlink::delete_route`], but only if the route's origin is the same too: [`Route::protocol`].
    ///
    /// # Errors
    /// See [`NetlinkError`]. `NotFound` if it does not exist, also if another program has put its own route in its
    /// place.
    pub async fn delete_route_as_set(&self, route: &Route) -> Result<(), NetlinkError> {
        let mut message = encode(&Route { mtu: None, ..route.clone() });
        // To the kernel these two values mean "any".
        message.header.scope = RouteScope::NoWhere;
        message.header.kind = RouteType::Unspec;
        self.request(RouteNetlinkMessage::DelRoute(message), 0).await
    }

    /// Where a packet to `destination` with the mark `fwmark` would go. `None` if there is no route.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn route_to(&self, destination: IpAddr, fwmark: Option<u32>) -> Result<Option<RouteTo>, NetlinkError> {
        self.ask(destination, fwmark, RouteFlags::LookupTable, decode_answer).await
    }

    /// The route that an unmarked packet to `destination` would take, with its prefix. `None` if there is no route.
    /// Routes that the kernel keeps for its own addresses have table 255, `local`.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn matching_route(&self, destination: IpAddr) -> Result<Option<(IpNet, RouteTo)>, NetlinkError> {
        self.ask(destination, None, RouteFlags::LookupTable | RouteFlags::FibMatch, decode_match).await
    }

    async fn ask<T>(
        &self,
        destination: IpAddr,
        fwmark: Option<u32>,
        flags: RouteFlags,
        decode: impl Fn(&RouteMessage) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        let mut question = RouteMessage::default();
        let header = &mut question.header;
        (header.address_family, header.destination_prefix_length) = match destination {
            IpAddr::V4(_) => (address_family(Family::V4), 32),
            IpAddr::V6(_) => (address_family(Family::V6), 128),
        };
        header.flags = flags;
        question.attributes.push(RouteAttribute::Destination(destination.into()));
        question.attributes.extend(fwmark.map(RouteAttribute::Mark));
        match collect(self.handle.route().get(question).execute()).await {
            Ok(answers) => Ok(answers.first().and_then(decode)),
            Err(error) if leads_nowhere(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the error means that there is no route. The kernel has as many errors for that as there are routes that
/// refuse: unreachable, prohibit, blackhole, missing table.
fn leads_nowhere(error: &NetlinkError) -> bool {
    match error {
        NetlinkError::Permission | NetlinkError::NotFound | NetlinkError::Unsupported => true,
        NetlinkError::Exists => false,
        NetlinkError::Io(error) => {
            matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::ENETDOWN))
        }
    }
}

fn encode(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    let destination = route.destination.trunc();
    header.address_family = address_family(if destination.addr().is_ipv4() { Family::V4 } else { Family::V6 });
    header.destination_prefix_length = destination.prefix_len();
    header.protocol = route.protocol.into();
    header.kind = match (route.interface, route.gateway) {
        (None, None) => RouteType::Unreachable,
        _ => RouteType::Unicast,
    };
    header.scope = match (route.interface, route.gateway) {
        (Some(_), None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(destination.addr().into()));
    attributes.push(RouteAttribute::Table(route.table));
    attributes.extend(route.interface.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

fn decode(message: &RouteMessage, routes: &mut Vec<Route>) {
    if matches!(
        message.header.kind,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast
    ) {
        return;
    }
    let hop = Hop::of(&message.attributes);
    let address = hop.destination.unwrap_or(match message.header.address_family {
        family if family == address_family(Family::V4) => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    });
    let Ok(destination) = IpNet::new(address, message.header.destination_prefix_length) else {
        return;
    };
    let route = Route {
        destination,
        interface: hop.interface,
        gateway: hop.gateway,
        table: hop.table.unwrap_or(message.header.table.into()),
        mtu: hop.mtu,
        metric: hop.metric,
        source: hop.source,
        protocol: message.header.protocol.into(),
    };
    if hop.next_hops.is_empty() {
        routes.push(route);
        return;
    }
    for next in hop.next_hops {
        let gateway = Hop::of(&next.attributes).gateway;
        routes.push(Route { interface: Some(next.interface_index), gateway, ..route.clone() });
    }
}

fn decode_answer(message: &RouteMessage) -> Option<RouteTo> {
    let hop = Hop::of(&message.attributes);
    if matches!(message.header.kind, RouteType::Unreachable | RouteType::Prohibit | RouteType::BlackHole) {
        return None;
    }
    // Every IPv4 answer is flagged as cloned, and an IPv6 answer may expire because a router advertised the route.
    let is_v6 = message.header.address_family == address_family(Family::V6);
    let is_told = if is_v6 { message.header.flags.contains(RouteFlags::Cloned) } else { hop.expires };
    let (mtu, told_mtu) = if is_told { (None, hop.mtu) } else { (hop.mtu, None) };
    Some(RouteTo {
        interface: hop.interface?,
        gateway: hop.gateway,
        mtu,
        told_mtu,
        source: hop.source,
        table: hop.table.unwrap_or(message.header.table.into()),
    })
}

fn decode_match(message: &RouteMessage) -> Option<(IpNet, RouteTo)> {
    let mut way = decode_answer(message)?;
    if matches!(message.header.kind, RouteType::Local | RouteType::Broadcast | RouteType::Multicast) {
        way.table = LOCAL_TABLE;
    }
    let is_v4 = message.header.address_family == address_family(Family::V4);
    let default = if is_v4 { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let destination = Hop::of(&message.attributes).destination.unwrap_or(default);
    Some((IpNet::new(destination, message.header.destination_prefix_length).ok()?, way))
}

/// The attributes of a route that we use.
#[derive(Default)]
struct Hop<'a> {
    destination: Option<IpAddr>,
    interface: Option<u32>,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    table: Option<u32>,
    metric: Option<u32>,
    mtu: Option<u32>,
    /// Whether the route has an expiry time.
    expires: bool,
    next_hops: &'a [RouteNextHop],
}

impl<'a> Hop<'a> {
    fn of(attributes: &'a [RouteAttribute]) -> Self {
        let mut hop = Self::default();
        for attribute in attributes {
            match attribute {
                RouteAttribute::Destination(address) => hop.destination = ip_of(address),
                RouteAttribute::Oif(index) => hop.interface = Some(*index),
                RouteAttribute::Gateway(address) => hop.gateway = ip_of(address),
                // An IPv4 route through an IPv6 router.
                RouteAttribute::Via(RouteVia::Inet(ip)) => hop.gateway = Some((*ip).into()),
                RouteAttribute::Via(RouteVia::Inet6(ip)) => hop.gateway = Some((*ip).into()),
                RouteAttribute::PrefSource(address) => hop.source = ip_of(address),
                RouteAttribute::Table(table) => hop.table = Some(*table),
                RouteAttribute::Priority(metric) => hop.metric = Some(*metric),
                RouteAttribute::CacheInfo(cache) => hop.expires = cache.expires > 0,
                RouteAttribute::MultiPath(next_hops) => hop.next_hops = next_hops,
                RouteAttribute::Metrics(metrics) => {
                    hop.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        hop
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
