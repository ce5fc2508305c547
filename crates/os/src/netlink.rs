//! Links, addresses, routes and policy rules, read and set over netlink.
//!
//! Only this module knows `rtnetlink` and its messages. It returns plain types of its own. A kernel that is newer than
//! those crates sends attributes that they do not know, and these are skipped. All calls work in the network namespace
//! of the thread that called [`Netlink::connect`].

mod address;
mod link;
mod namespace;
pub(crate) mod notice;
mod notices;
mod route;
mod rule;

pub use address::Address;
pub use link::Link;
pub(crate) use link::decode;
pub use notices::{Interest, Noticed, Notices};
pub use route::{LOCAL_TABLE, MAIN_TABLE, Route, RouteTo};
pub use rule::{NOWHERE, Rule};

pub use crate::udp::Family;

use std::io;

use futures_util::{Stream, StreamExt};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;

/// The `log` targets under which the netlink crates report unknown attributes. A subscriber must filter them out, or
/// every look-up on a new kernel logs warnings that nobody can act on.
pub const NOISY_LOG_TARGETS: [&str; 3] = ["netlink_packet_route", "netlink_packet_core", "netlink_proto"];

/// The reason why the kernel did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// CAP_NET_ADMIN is missing.
    #[error("not permitted")]
    Permission,
    /// The object already exists.
    #[error("it exists")]
    Exists,
    /// The link, address, route or rule does not exist.
    #[error("not found")]
    NotFound,
    /// The kernel lacks the address family or the feature.
    #[error("the kernel does not support it")]
    Unsupported,
    /// Any other error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection to the kernel's routing tables.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    /// The kernel's number for our socket. Notices about changes that we caused carry it.
    port: u32,
}

impl Netlink {
    /// Connects, and spawns the task that carries the messages on the current tokio runtime. The task ends when the
    /// last clone is dropped.
    ///
    /// # Errors
    /// Fails if the kernel has no netlink, or if a seccomp filter forbids it.
    pub async fn connect() -> io::Result<Self> {
        let (mut connection, handle, _) = rtnetlink::new_connection()?;
        let port = connection.socket_mut().socket_mut().bind_auto()?.port_number();
        tokio::spawn(connection);
        Ok(Self { handle, port })
    }

    /// The port of the connection's socket.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends a request that the kernel answers with an acknowledgement or an error. `flags` are added to the flags for
    /// that.
    async fn request(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(classify(error.to_io()));
            }
        }
        Ok(())
    }
}

/// Collects all answers to a dump request.
async fn collect<T>(answers: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>, NetlinkError> {
    let mut answers = std::pin::pin!(answers);
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await {
        all.push(answer?);
    }
    Ok(all)
}

impl From<rtnetlink::Error> for NetlinkError {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => classify(message.to_io()),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

/// Translates an errno of the kernel.
fn classify(error: io::Error) -> NetlinkError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NetlinkError::Permission,
        Some(libc::EEXIST) => NetlinkError::Exists,
        // ESRCH: the route does not exist. EADDRNOTAVAIL: the address does not exist. ENOENT: the rule does not exist.
        Some(libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENOENT) => NetlinkError::NotFound,
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EPFNOSUPPORT) => NetlinkError::Unsupported,
        _ => NetlinkError::Io(error),
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests;
