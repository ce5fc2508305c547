//! Links: the network interfaces of a namespace.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::{Netlink, NetlinkError, collect};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The link's index. Not reused while the namespace exists.
    pub index: u32,
    /// The link's name.
    pub name: String,
    /// The type of a virtual link: `tun`, `veth`, `wireguard` or `bridge`, for example.
    pub kind: Option<String>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// The length of the transmit queue, in packets.
    pub tx_queue_len: u32,
    /// Whether the link was brought up.
    pub up: bool,
    /// The index of the bridge, bond or VRF that this link is a port of.
    pub controller: Option<u32>,
    /// Whether packets have Ethernet headers. They do on a TAP device, and do not on a TUN device.
    pub is_ethernet: bool,
}

impl Netlink {
    /// Lists all links.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages = collect(self.handle.link().get().execute()).await?;
        Ok(messages.iter().filter_map(decode).collect())
    }

    /// The link with this name, if it exists.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        if !crate::interface::is_valid_name(name) {
            return Ok(None); // The kernel would answer "invalid argument".
        }
        found(collect(self.handle.link().get().match_name(name).execute()).await)
    }

    /// The link with this index, if it exists.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn link_at(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        found(collect(self.handle.link().get().match_index(index).execute()).await)
    }

    /// The link with this name in a different network namespace, which is given by its number here. `None` means this
    /// namespace.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `Permission` without CAP_NET_ADMIN in that namespace.
    pub async fn link_in(&self, namespace: Option<i32>, name: &str) -> Result<Option<Link>, NetlinkError> {
        let Some(number) = namespace else { return self.link(name).await };
        let mut request = self.handle.link().get().match_name(name.to_owned());
        request.message_mut().attributes.push(LinkAttribute::IfNetnsId(number));
        found(collect(request.execute()).await)
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let mut message = of(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }

    /// Takes a link down.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn set_down(&self, index: u32) -> Result<(), NetlinkError> {
        let mut message = of(index);
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }

    /// Sets the MTU in bytes. Below 1,280 the kernel removes the link's IPv6 addresses.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `Io` with EINVAL if the link cannot have this MTU.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = of(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }

    /// Sets the length of the transmit queue in packets. On a TUN device this queue holds the packets not yet read.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn set_tx_queue_len(&self, index: u32, packets: u32) -> Result<(), NetlinkError> {
        let mut message = of(index);
        message.attributes.push(LinkAttribute::TxQueueLen(packets));
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }

    /// Deletes a link.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `Unsupported` for a physical link.
    pub async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::DelLink(of(index)), 0).await
    }

    /// Keeps the kernel from giving a link an IPv6 link-local address of its own, which the kernel would announce into
    /// the tunnel. This must be called before the link is brought up.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `Unsupported` if IPv6 is switched off.
    pub async fn set_addr_gen_mode_none(&self, index: u32) -> Result<(), NetlinkError> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let mut message = of(index);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }
}

/// Turns `NotFound` into `None`.
fn found(answers: Result<Vec<LinkMessage>, NetlinkError>) -> Result<Option<Link>, NetlinkError> {
    match answers {
        Ok(messages) => Ok(messages.iter().find_map(decode)),
        Err(NetlinkError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

pub(crate) fn decode(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        mtu: 0,
        tx_queue_len: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::TxQueueLen(len) => link.tx_queue_len = *len,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}
