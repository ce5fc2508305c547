//! Names of agents on this host: `ssh alice`.
//!
//! A DNS server answers on port 53 of our virtual IPs, in a process of its own that has no key ([`process`]). The host's
//! programs learn of it in one of two ways, of which `dns = "auto"` takes the first that works here:
//!
//! 1. systemd-resolved is told, for our interface, who answers our domain (`resolved`).
//! 2. A block in `/etc/hosts`, kept by a second process (`keeper`).
//!
//! resolv.conf is never written. What is added goes when the daemon does, however that ends: resolved forgets what belongs to
//! an interface that is gone, and the second process removes the block.

mod answering;
mod bound;
pub(crate) mod child;
mod concern;
mod inherited;
pub mod keeper;
mod message;
pub mod process;
mod reply;
mod resolved;
mod reverse;
mod shadow;
pub(crate) mod zone;

pub(crate) use self::child::Child as Keeper;
pub(crate) use self::concern::{AMBIGUOUS, HOSTS_WARNING, Names, News, PORT, RESOLVED_WARNING, Shown};
pub use self::message::Counts;

use std::net::IpAddr;

use crate::hosts_file::SUFFIX;

/// The addresses on which names are answered.
type Servers = Vec<IpAddr>;

/// The domain of a network.
pub(crate) fn domain_of(network: &str) -> String {
    format!("{network}{SUFFIX}")
}
