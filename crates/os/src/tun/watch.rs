//! Watches what others do to the interface of a TUN device: up, down, a new MTU, name or namespace, deletion.
//!
//! A TUN device may be moved into a different network namespace while the process and its UDP sockets stay where they
//! are. The watch stays too. Its one socket receives link notices from every namespace that has a number here
//! (NETLINK_LISTEN_ALL_NSID), and the kernel answers questions about links in a namespace by that number. So we never
//! need to enter the other namespace or keep it in existence. If the namespace is deleted, the device is deleted with
//! it, and the watch ends.
//!
//! A notice is only a reason to look. The current state comes from the device's descriptor (namespace and name) and
//! from netlink (the rest), so a notice that is lost or concerns a different link does no harm. There is one exception:
//! that the interface was down for a moment, and is up again when we look, is known only from a notice. That notice
//! must come from the namespace in which the interface was last seen, since other namespaces may have an interface with
//! the same index and name. Notices arrive in the order of the events, but later than an answer to a question. So a
//! look also reads all waiting notices, so that they are not taken for news afterwards.
//!
//! Receiving notices from other namespaces takes CAP_NET_BROADCAST in addition to CAP_NET_ADMIN. Without it, nothing that
//! happens there is noticed except deletion, which the device's descriptor reports.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::io::unix::AsyncFd;

use super::Tun;
use super::whereabouts::{Namespace, name_of, namespace_of};
use crate::netlink::{Link, Netlink, NetlinkError, decode};
use crate::readable::wait_readable;
use crate::socket::{ControlBuffer, ControlMessage, RawAddress, control_messages, receive, set_option};

/// The notice groups for links, and for the numbers of namespaces.
const GROUPS: [i32; 2] = [1, 28];
/// Socket options of level SOL_NETLINK.
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
/// Length of `nlmsghdr`, the offset of the type in it, and the offset of the index in the `ifinfomsg` behind it.
const HEADER_LEN: usize = 16;
const TYPE: usize = 4;
const INDEX: usize = HEADER_LEN + 4;
/// The type of a notice that a namespace lost its number. The namespace is going away, without any notice about its
/// links.
const RTM_DELNSID: u16 = 89;
/// The buffer for one datagram of notices. The part that may be cut off is not needed.
const BUFFER_LEN: usize = 32 * 1024;
/// How often the interface may be renamed, moved or changed between two questions before we give up.
const MAX_LOOKS: usize = 16;

/// The interface of a TUN device in its current state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunLink {
    /// Index, name, MTU, and whether it is up.
    pub link: Link,
    /// The inode of its network namespace.
    pub namespace: u64,
    /// Whether it is known to have been down at any moment since the last look.
    pub was_down: bool,
}

/// Reports when others change the interface of a [`Tun`]. The device exists until the watch is dropped too.
pub struct LinkWatch {
    tun: OwnedFd,
    netlink: Netlink,
    home: u64,
    notices: AsyncFd<OwnedFd>,
    hears_everywhere: bool,
    buffer: Box<[u8]>,
    known: Known,
    /// Whether the interface was down at any moment since the last look.
    was_down: bool,
}

/// How notices identify the link.
struct Known {
    index: u32,
    name: String,
    /// The number of the namespace that the link is in. `None` in our own namespace.
    namespace: Option<i32>,
}

impl LinkWatch {
    /// Starts watching. The device must be in the network namespace of the calling thread, and `netlink` must be
    /// connected there. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Fails if the process has no file descriptors left, or if the kernel is older than 5.2 (`Unsupported`).
    pub fn new(tun: &Tun, netlink: Netlink) -> io::Result<Self> {
        let (notices, hears_everywhere) = listen()?;
        let home = namespace_of(tun.as_fd())?.ok_or(io::ErrorKind::NotFound)?.inode;
        Ok(Self {
            tun: tun.as_fd().try_clone_to_owned()?,
            netlink,
            home,
            notices: wait_readable(notices)?,
            hears_everywhere,
            buffer: vec![0; BUFFER_LEN].into(),
            known: Known { index: tun.index(), name: tun.name().to_owned(), namespace: None },
            was_down: false,
        })
    }

    /// Whether changes are still noticed after the interface was moved into a different namespace.
    pub fn hears_everywhere(&self) -> bool {
        self.hears_everywhere
    }

    /// The interface in its current state. `None` if it was deleted. This covers everything noticed so far, so earlier
    /// notices are no longer a reason to look.
    ///
    /// # Errors
    /// Fails if the kernel does not answer.
    pub async fn look(&mut self) -> Result<Option<TunLink>, NetlinkError> {
        let mut last = None;
        for _ in 0..MAX_LOOKS {
            last = match self.find().await? {
                Some(found) => found,
                None => return Ok(None),
            };
            if let Some((found, namespace)) = &last {
                // Moving the interface to a different namespace takes it down.
                self.was_down |= self.known.namespace != *namespace;
                self.known = Known { index: found.link.index, name: found.link.name.clone(), namespace: *namespace };
            }
            // A waiting notice is either older than the answer or contradicts it. In the second case we must ask again.
            if !self.hear()? && last.is_some() {
                break;
            }
        }
        let (found, _) = last.ok_or(NetlinkError::NotFound)?;
        Ok(Some(TunLink { was_down: std::mem::take(&mut self.was_down), ..found }))
    }

    /// Waits until something may have changed. Then call [`LinkWatch::look`]. Can be cancelled.
    ///
    /// # Errors
    /// Linux is not known to return any.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            // Readiness is cleared before reading, so a notice that arrives in between sets it again.
            self.notices.readable().await?.clear_ready();
            if self.hear()? {
                return Ok(());
            }
        }
    }

    /// Reads all waiting notices. Returns whether any of them is a reason to look.
    fn hear(&mut self) -> io::Result<bool> {
        let mut is_ours = false;
        loop {
            let (mut source, mut control) = (RawAddress::default(), ControlBuffer::default());
            let received = match receive(self.notices.as_fd(), &mut self.buffer, &mut source, &mut control) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(is_ours),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    is_ours = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let namespace = control_messages(&control).find_map(|message| match message {
                ControlMessage::Namespace(number) => Some(number),
                _ => None,
            });
            let known = &self.known;
            for notice in notices(&self.buffer[..received.len]).filter(|notice| may_concern(notice, known.index)) {
                is_ours = true;
                self.was_down |= namespace == known.namespace && says_down(notice, &known.name);
            }
        }
    }

    /// Looks once. Also returns the number of the namespace. `Some(None)` if the interface was renamed or moved in the
    /// meantime.
    async fn find(&self) -> Result<Option<Option<(TunLink, Option<i32>)>>, NetlinkError> {
        let Some((name, namespace)) = self.whereabouts()? else { return Ok(None) };
        let inode = namespace.inode;
        let number = if inode == self.home {
            None
        } else {
            match self.netlink.number_namespace(namespace.file.as_fd()).await {
                Ok(number) => Some(number),
                Err(NetlinkError::NotFound) => return Ok(Some(None)),
                Err(error) => return Err(error),
            }
        };
        drop(namespace);
        let link = self.netlink.link_in(number, &name).await?;
        let Some((name_now, namespace_now)) = self.whereabouts()? else { return Ok(None) };
        let is_still = name_now == name && namespace_now.inode == inode;
        Ok(Some(link.filter(|_| is_still).map(|link| (TunLink { link, namespace: inode, was_down: false }, number))))
    }

    /// The interface's name and namespace. `None` if it was deleted.
    fn whereabouts(&self) -> io::Result<Option<(String, Namespace)>> {
        let tun = self.tun.as_fd();
        let namespace = match namespace_of(tun) {
            // The kernel answered this question before, so the namespace is now going away and takes the device with
            // it.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
            namespace => namespace?,
        };
        let name = name_of(tun)?;
        Ok(name.zip(namespace))
    }
}

/// A socket for notices about links of this namespace. Also returns whether it covers all namespaces that have a number
/// here.
fn listen() -> io::Result<(OwnedFd, bool)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let hears_everywhere = match set_option(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID, 1) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
        Err(error) => return Err(error),
    };
    for group in GROUPS {
        set_option(socket.as_fd(), libc::SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)?;
    }
    Ok((socket, hears_everywhere))
}

/// The notices in one datagram.
fn notices(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = datagram.first_chunk().map(|len| u32::from_ne_bytes(*len) as usize)?;
        let notice = datagram.get(..len).filter(|notice| notice.len() >= HEADER_LEN)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(notice)
    })
}

/// Whether a notice concerns a link with this index, in any namespace, or a namespace that is going away.
fn may_concern(notice: &[u8], index: u32) -> bool {
    let kind = notice[TYPE..].first_chunk().map(|kind| u16::from_ne_bytes(*kind));
    let told = notice.get(INDEX..).and_then(|rest| rest.first_chunk()).map(|index| u32::from_ne_bytes(*index));
    kind == Some(RTM_DELNSID) || told == Some(index)
}

/// Whether a notice says that the link with this name is down.
fn says_down(notice: &[u8], name: &str) -> bool {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(notice).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))) => {
            decode(&message).is_some_and(|link| link.name == name && !link.up)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
