//! Links: the interfaces of this network namespace.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::{Netlink, NetlinkError, collect};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, never reused while the namespace lives.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it, for a virtual one: `tun`, `veth`, `wireguard`, `bridge`.
    pub kind: Option<String>,
    /// The longest packet in bytes.
    pub mtu: u32,
    /// How many packets wait to be sent at most.
    pub tx_queue_len: u32,
    /// Whether it was brought up.
    pub up: bool,
    /// The bridge, bond or VRF that it is a port of, by number.
    pub controller: Option<u32>,
    /// Whether its packets have Ethernet headers: those of a TUN device have none, those of a TAP device have.
    pub is_ethernet: bool,
}

impl Netlink {
    /// All links.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages = collect(self.handle.link().get().execute()).await?;
        Ok(messages.iter().filter_map(decode).collect())
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        if !crate::interface::is_valid_name(name) {
            return Ok(None); // The kernel answers with "invalid argument".
        }
        found(collect(self.handle.link().get().match_name(name).execute()).await)
    }

    /// The link of that number, if there is one.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub async fn link_at(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        found(collect(self.handle.link().get().match_index(index).execute()).await)
    }

    /// The link of that name in another network namespace, which has this number here; `None`: in this one.
    ///
    /// # Errors
    /// See [`NetlinkError`]; `Permission` without CAP_NET_ADMIN there.
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

    /// Sets the longest packet in bytes. Below 1,280 the kernel takes the link's IPv6 addresses away.
    ///
    /// # Errors
    /// See [`NetlinkError`]; `Io` with EINVAL for a size that the link cannot have.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = of(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }

    /// Sets how many packets wait to be sent at most; on a TUN device, how many wait to be read.
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
    /// See [`NetlinkError`]; `Unsupported` for a physical one.
    pub async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::DelLink(of(index)), 0).await
    }

    /// Keeps the kernel from giving a link an IPv6 link-local address of its own, which would announce itself into the
    /// tunnel. To be called before the link comes up.
    ///
    /// # Errors
    /// See [`NetlinkError`]; `Unsupported` where IPv6 is switched off.
    pub async fn set_addr_gen_mode_none(&self, index: u32) -> Result<(), NetlinkError> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let mut message = of(index);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        self.request(RouteNetlinkMessage::NewLink(message), 0).await
    }
}

/// That there is none is no error.
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
