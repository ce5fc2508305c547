//! What other programs change on this host, as the kernel tells it: links, addresses, routes, policy rules, and one nft table.
//!
//! A notice is a reason to look, nothing more: what is true is asked of the kernel afterwards. So it is enough to know what a
//! notice is about, which its first bytes tell, and notices that were lost because too many came (ENOBUFS) count as notices
//! about everything. What our own netlink connection has caused bears its port, and is passed over.

use std::future::pending;
use std::io;
use std::ops::BitOrAssign;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, bind, socket_with};
use tokio::io::unix::AsyncFd;

use super::notice::{self, Message};
use super::{MAIN_TABLE, Netlink};
use crate::readable::wait_readable;
use crate::socket::{ControlBuffer, RawAddress, receive, set_option};

/// RTNLGRP_*: links; addresses, routes and rules of both families.
const ROUTE_GROUPS: [i32; 7] = [1, 5, 9, 7, 11, 8, 19];
/// NFNLGRP_NFTABLES.
const NFT_GROUPS: [i32; 1] = [7];
/// Socket option of level SOL_NETLINK.
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
/// One datagram of notices; what is cut off is behind what is looked at.
const BUFFER_LEN: usize = 32 * 1024;
/// NFNL_SUBSYS_NFTABLES << 8; the high byte of a message about nft.
const NFT: u16 = 10 << 8;
/// NFT_MSG_NEWGEN: a transaction is over. It names no table.
const NFT_NEW_GENERATION: u16 = NFT | 15;
/// NFPROTO_INET, in the first byte of a message about nft.
const FAMILY_INET: u8 = 1;
/// Behind `nfgenmsg`, the name of the table is attribute 1 of every message.
const GENERIC_LEN: usize = 4;
const NFT_TABLE: u16 = 1;
/// `ifinfomsg` and `ifaddrmsg` both have the index of the link as their second word.
const INDEX: usize = 4;
/// `rtmsg`: its length, and where the number of a small table stands.
const ROUTE_LEN: usize = 12;
const ROUTE_TABLE: usize = 4;
/// RTA_OIF and RTA_TABLE.
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_TABLE_LONG: u16 = 15;
/// The table of the kernel's own routes to local addresses.
const LOCAL_TABLE: u32 = 255;

/// What to listen for.
#[derive(Clone, Debug)]
pub struct Interest {
    /// Index of our interface.
    pub index: u32,
    /// Name of our nft table, of family `inet`.
    pub nft_table: String,
    /// The table of our default routes, while there are any.
    pub marked_table: Option<u32>,
}

/// What may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Our interface, its addresses, routes through it, policy rules.
    pub ours: bool,
    /// Other links, and routes that do not lead through our interface.
    pub surroundings: bool,
    /// Our nft table.
    pub nft: bool,
}

/// Two sockets that hear what is changed in the network namespace they were made in.
#[derive(Debug)]
pub struct Notices {
    routes: AsyncFd<OwnedFd>,
    /// `None` where the kernel has no nf_tables.
    nft: Option<AsyncFd<OwnedFd>>,
    /// The port of our own connection.
    own_port: u32,
    buffer: Box<[u8]>,
}

impl Notices {
    /// Listens from now on, and passes over what `netlink` causes. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// The process has no file descriptors left.
    pub fn listen(netlink: &Netlink) -> io::Result<Self> {
        let routes = wait_readable(listen(None, &ROUTE_GROUPS)?)?;
        let nft = match listen(Some(NETFILTER), &NFT_GROUPS) {
            Ok(socket) => Some(wait_readable(socket)?),
            Err(error) => {
                tracing::debug!(%error, "no notices about nft");
                None
            }
        };
        Ok(Self { routes, nft, own_port: netlink.port(), buffer: vec![0; BUFFER_LEN].into() })
    }

    /// Waits until something was changed that is of interest. Can be cancelled.
    ///
    /// # Errors
    /// None that Linux is known to give.
    pub async fn noticed(&mut self, interest: &Interest) -> io::Result<Noticed> {
        loop {
            tokio::select! {
                // Cleared before it is read: what comes meanwhile makes it ready again.
                ready = self.routes.readable() => ready?.clear_ready(),
                ready = readable(self.nft.as_ref()) => ready?,
            }
            let mut noticed =
                hear(&self.routes, &mut self.buffer, |message| route_message(message, interest, self.own_port))?;
            if let Some(nft) = &self.nft {
                noticed |= hear(nft, &mut self.buffer, |message| nft_message(message, interest))?;
            }
            if noticed.is_any() {
                return Ok(noticed);
            }
        }
    }
}

impl Noticed {
    /// Everything may have changed.
    pub const ALL: Self = Self { ours: true, surroundings: true, nft: true };

    /// Whether there is anything to look at.
    pub fn is_any(self) -> bool {
        self != Self::default()
    }
}

impl BitOrAssign for Noticed {
    fn bitor_assign(&mut self, other: Self) {
        self.ours |= other.ours;
        self.surroundings |= other.surroundings;
        self.nft |= other.nft;
    }
}

async fn readable(socket: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    match socket {
        Some(socket) => {
            socket.readable().await?.clear_ready();
            Ok(())
        }
        None => pending().await,
    }
}

fn listen(protocol: Option<Protocol>, groups: &[i32]) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    for group in groups {
        set_option(socket.as_fd(), libc::SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, *group)?;
    }
    Ok(socket)
}

/// Takes everything that waits, and says what it is about.
fn hear(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8], about: impl Fn(&Message<'_>) -> Noticed) -> io::Result<Noticed> {
    let mut noticed = Noticed::default();
    loop {
        let (mut source, mut control) = (RawAddress::default(), ControlBuffer::default());
        match receive(socket.as_fd(), buffer, &mut source, &mut control) {
            Ok(received) => {
                let datagram = buffer.get(..received.len).unwrap_or_default();
                notice::messages(datagram).for_each(|message| noticed |= about(&message));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(noticed),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => noticed = Noticed::ALL,
            Err(error) => return Err(error),
        }
    }
}

fn route_message(message: &Message<'_>, interest: &Interest, own_port: u32) -> Noticed {
    let nothing = Noticed::default();
    let (ours, surroundings) = (Noticed { ours: true, ..nothing }, Noticed { surroundings: true, ..nothing });
    if message.port == own_port {
        return nothing;
    }
    let is_our_link = notice::word(message.payload, INDEX) == Some(interest.index);
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK if is_our_link => ours,
        libc::RTM_NEWLINK | libc::RTM_DELLINK => surroundings,
        libc::RTM_NEWADDR | libc::RTM_DELADDR if is_our_link => ours,
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let (interface, table) = way(message.payload);
            if table == LOCAL_TABLE {
                nothing
            } else if interface == Some(interest.index) || Some(table) == interest.marked_table {
                ours
            } else {
                surroundings
            }
        }
        libc::RTM_NEWRULE | libc::RTM_DELRULE if interest.marked_table.is_some() => ours,
        _ => nothing,
    }
}

/// The link that a route leads out of, and its table.
fn way(payload: &[u8]) -> (Option<u32>, u32) {
    let attributes = payload.get(ROUTE_LEN..).unwrap_or_default();
    let number = |attribute| notice::attribute(attributes, attribute).and_then(|value| notice::word(value, 0));
    let small = payload.get(ROUTE_TABLE).map_or(MAIN_TABLE, |table| u32::from(*table));
    (number(ROUTE_INTERFACE), number(ROUTE_TABLE_LONG).unwrap_or(small))
}

fn nft_message(message: &Message<'_>, interest: &Interest) -> Noticed {
    let is_inet = message.payload.first() == Some(&FAMILY_INET);
    if !is_inet || message.kind & 0xff00 != NFT || message.kind == NFT_NEW_GENERATION {
        return Noticed::default();
    }
    let table = message.payload.get(GENERIC_LEN..).and_then(|rest| notice::attribute(rest, NFT_TABLE));
    let is_ours = table.and_then(|name| name.split_last()) == Some((&0, interest.nft_table.as_bytes()));
    Noticed { nft: is_ours, ..Noticed::default() }
}

#[cfg(test)]
mod tests;
