//! What others do to the interface of a TUN device: up, down, another MTU, another name, another namespace, deletion.
//!
//! A TUN device may be moved into another network namespace while the process and its UDP sockets stay. The watch stays
//! too: its one socket hears the links of every namespace that has a number here (NETLINK_LISTEN_ALL_NSID), and the
//! kernel asked by that number answers about a link there. So nobody has to enter the other namespace, and nothing of
//! ours keeps it in existence: a namespace that is deleted takes the device along, and that ends the watch.
//!
//! A notice is a reason to look. What is true is asked of the device's descriptor (where, and under which name) and of
//! netlink (the rest), so that a notice that was lost, or tells of another link, does no harm. Only that the interface was
//! down for a moment, and is up again when we look, is taken from a notice; it has to come from the namespace that the
//! interface was last seen in, since another one may have an interface of that index and name. Notices come in the order of
//! what happened, but later than an answer that was asked for: a look hears all that waits, so that none of it is
//! taken for news afterwards.
//!
//! Hearing another namespace takes CAP_NET_BROADCAST beside CAP_NET_ADMIN. Without it what happens there goes unheard, but
//! for the deletion, which the device's descriptor tells.

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

/// The groups of notices about links, and about numbers of namespaces.
const GROUPS: [i32; 2] = [1, 28];
/// Socket options of level SOL_NETLINK.
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
/// Length of `nlmsghdr`, where the type stands in it, and the index in an `ifinfomsg` behind it.
const HEADER_LEN: usize = 16;
const TYPE: usize = 4;
const INDEX: usize = HEADER_LEN + 4;
/// The type of a notice that a namespace lost its number: it is going away, without a word about its links.
const RTM_DELNSID: u16 = 89;
/// One datagram of notices; what is cut off is not needed.
const BUFFER_LEN: usize = 32 * 1024;
/// How often the interface may be renamed, moved or changed between two questions before we give up.
const MAX_LOOKS: usize = 16;

/// The interface of a TUN device as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunLink {
    /// Index, name, MTU, and whether it is up.
    pub link: Link,
    /// The inode of the network namespace it is in.
    pub namespace: u64,
    /// It was down at some moment since the last look, as far as is known.
    pub was_down: bool,
}

/// Tells when somebody changes the interface of a [`Tun`]. The device exists until the watch is dropped too.
pub struct LinkWatch {
    tun: OwnedFd,
    netlink: Netlink,
    home: u64,
    notices: AsyncFd<OwnedFd>,
    hears_everywhere: bool,
    buffer: Box<[u8]>,
    known: Known,
    /// Since the last look.
    was_down: bool,
}

/// What the notices call the link.
struct Known {
    index: u32,
    name: String,
    /// Of the namespace that it is in; `None` at home.
    namespace: Option<i32>,
}

impl LinkWatch {
    /// Watches from now on. The device has to be in the network namespace of the calling thread, and `netlink` connected
    /// there. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The process has no file descriptors left, or the kernel is older than 5.2 (`Unsupported`).
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

    /// Whether it hears what others do to the interface after it was moved into another namespace.
    pub fn hears_everywhere(&self) -> bool {
        self.hears_everywhere
    }

    /// The interface as it is now; `None` when it was deleted. What was noticed until now is told by this, and is no reason
    /// to look again.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn look(&mut self) -> Result<Option<TunLink>, NetlinkError> {
        let mut last = None;
        for _ in 0..MAX_LOOKS {
            last = match self.find().await? {
                Some(found) => found,
                None => return Ok(None),
            };
            if let Some((found, namespace)) = &last {
                // A move takes it down.
                self.was_down |= self.known.namespace != *namespace;
                self.known = Known { index: found.link.index, name: found.link.name.clone(), namespace: *namespace };
            }
            // What waits is older than the answer, or contradicts it: then it has to be asked for again.
            if !self.hear()? && last.is_some() {
                break;
            }
        }
        let (found, _) = last.ok_or(NetlinkError::NotFound)?;
        Ok(Some(TunLink { was_down: std::mem::take(&mut self.was_down), ..found }))
    }

    /// Waits until something may have changed: then [`LinkWatch::look`]. Can be cancelled.
    ///
    /// # Errors
    /// None that Linux is known to give.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            // Cleared before it is read: what comes meanwhile makes it ready again.
            self.notices.readable().await?.clear_ready();
            if self.hear()? {
                return Ok(());
            }
        }
    }

    /// Takes note of everything that waits; whether any of it is a reason to look.
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

    /// One look, and the number of the namespace. `Some(None)`: it was renamed or moved while we were asking.
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

    /// Name and namespace; `None` when it was deleted.
    fn whereabouts(&self) -> io::Result<Option<(String, Namespace)>> {
        let tun = self.tun.as_fd();
        let namespace = match namespace_of(tun) {
            // The kernel knew the question once: the namespace is going away, and takes the device along.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
            namespace => namespace?,
        };
        let name = name_of(tun)?;
        Ok(name.zip(namespace))
    }
}

/// A socket that hears of the links of this namespace; and whether it hears of those that have a number here.
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

/// The notices of one datagram.
fn notices(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = datagram.first_chunk().map(|len| u32::from_ne_bytes(*len) as usize)?;
        let notice = datagram.get(..len).filter(|notice| notice.len() >= HEADER_LEN)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(notice)
    })
}

/// Whether a notice tells of a link of that index, in whatever namespace, or of a namespace that is going away.
fn may_concern(notice: &[u8], index: u32) -> bool {
    let kind = notice[TYPE..].first_chunk().map(|kind| u16::from_ne_bytes(*kind));
    let told = notice.get(INDEX..).and_then(|rest| rest.first_chunk()).map(|index| u32::from_ne_bytes(*index));
    kind == Some(RTM_DELNSID) || told == Some(index)
}

/// Whether a notice tells of a link of that name that is down.
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
