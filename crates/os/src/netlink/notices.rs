//! Reports changes that other programs make on this host: links, addresses, routes, policy rules, and one nft table.
//!
//! A notice is only a reason to look: the caller then asks the kernel for the current state. So only the subject of a
//! notice matters, which its first bytes tell. If the kernel dropped notices because there were too many (ENOBUFS),
//! that counts as a notice about everything. Changes made through our own netlink connection carry its port and are
//! ignored.

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

/// RTNLGRP_* groups: links, and addresses, routes and rules of both families.
const ROUTE_GROUPS: [i32; 7] = [1, 5, 9, 7, 11, 8, 19];
/// NFNLGRP_NFTABLES.
const NFT_GROUPS: [i32; 1] = [7];
/// Socket option of level SOL_NETLINK.
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
/// The buffer for one datagram of notices. Only the first bytes matter, so the rest may be cut off.
const BUFFER_LEN: usize = 32 * 1024;
/// NFNL_SUBSYS_NFTABLES << 8, the high byte in the type of every nft message.
const NFT: u16 = 10 << 8;
/// NFT_MSG_NEWGEN, sent when a transaction has ended. It does not name a table.
const NFT_NEW_GENERATION: u16 = NFT | 15;
/// NFPROTO_INET, in the first byte of an nft message.
const FAMILY_INET: u8 = 1;
/// Behind the `nfgenmsg` header, attribute 1 of every message is the name of the table.
const GENERIC_LEN: usize = 4;
const NFT_TABLE: u16 = 1;
/// Offset of the link's index. It is the second word of both `ifinfomsg` and `ifaddrmsg`.
const INDEX: usize = 4;
/// Length of `rtmsg`, and the offset of the table number in it (for numbers below 256).
const ROUTE_LEN: usize = 12;
const ROUTE_TABLE: usize = 4;
/// RTA_OIF and RTA_TABLE.
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_TABLE_LONG: u16 = 15;
/// The table with the kernel's own routes to local addresses.
const LOCAL_TABLE: u32 = 255;

/// The objects whose changes are reported.
#[derive(Clone, Debug)]
pub struct Interest {
    /// The index of our interface.
    pub index: u32,
    /// The name of our nft table, in family `inet`.
    pub nft_table: String,
    /// The table of our default routes, if there are any.
    pub marked_table: Option<u32>,
}

/// The things that may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Our interface, its addresses, routes through it, or policy rules.
    pub ours: bool,
    /// Other links, or routes that do not lead through our interface.
    pub surroundings: bool,
    /// Our nft table.
    pub nft: bool,
}

/// Two sockets that receive notices about changes in the network namespace that they were created in.
#[derive(Debug)]
pub struct Notices {
    routes: AsyncFd<OwnedFd>,
    /// `None` if the kernel has no nf_tables.
    nft: Option<AsyncFd<OwnedFd>>,
    /// The port of our own netlink connection.
    own_port: u32,
    buffer: Box<[u8]>,
}

impl Notices {
    /// Starts listening, and ignores changes caused by `netlink`. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Fails if the process has no file descriptors left.
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

    /// Waits until something of interest has changed. Can be cancelled.
    ///
    /// # Errors
    /// Linux is not known to return any.
    pub async fn noticed(&mut self, interest: &Interest) -> io::Result<Noticed> {
        loop {
            tokio::select! {
                // Readiness is cleared before reading, so a notice that arrives in between sets it again.
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

    /// Whether anything may have changed.
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

/// Reads all waiting notices, and returns what they are about.
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

/// The outgoing link of a route, and its table.
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
