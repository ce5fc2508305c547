//! A network in memory with virtual time: many nodes, without socket, clock or thread. Never shipped.
//!
//! ```
//! use overlay_sim::{World, minutes};
//!
//! let mut world = World::new(7);
//! let (alice, bob) = world.pair();
//! assert!(world.ping(alice, bob).is_some());
//! world.run_for(minutes(10));
//! assert!(world.ping(bob, alice).is_some());
//! ```
//!
//! A [`World`] owns the hosts, the links between them and the time. It moves from one event to the next (a delivery, or
//! a deadline that a node asked for), so the cost of ten simulated minutes depends only on the events in them. Every
//! fault on a link is drawn from the world's seed: the same seed produces the same run, datagram by datagram.
//!
//! [`initiator`] is the other half: WireGuard's handshake and data messages written by hand from the paper, to send a
//! node what no honest peer would send. It does not depend on worlds.
//!
//! [`fuzz`] has the entry points for fuzzers.
//!
//! A `World` belongs to one thread, because the session engine gets its clock through the thread. Several worlds in one
//! thread do not disturb each other.
//!
//! Hosts may live behind NATs and firewalls of every kind in RFC 4787's words ([`nat`]). [`nat::TABLE`] says what each kind
//! does, and the namespace lab is held to the same table. [`nat::traversable`] says between which of them a direct path can
//! exist.
//!
//! Relays have addresses of the Internet, and answer STUN there ([`World::relay`]). An agent around a node uses them, and tells
//! its peers where it can be reached ([`World::agent`]). [`Agents`] begins most tests of paths.
//!
//! Left out: IP fragmentation outside the tunnel: a datagram larger than a link's MTU is lost.

mod agent;
mod agents;
mod clocks;
pub mod fuzz;
mod host;
pub mod initiator;
mod link;
pub mod nat;
mod noise;
mod outsider;
pub mod packet;
mod place;
mod record;
pub mod recorded;
mod relay;
mod scene;
mod world;

use std::time::Duration;

pub use agents::{Agents, Ping, Pings};
pub use host::{HostId, HostOptions};
pub use link::Link;
pub use outsider::{Outsider, key_pair};
pub use place::{Letter, Party, Realm, RelayId, RouterId, Socket};
pub use record::{Dropped, Kind, Received, Sent};
pub use relay::Passing;
pub use scene::Scene;
pub use world::{Route, World};

/// A duration in milliseconds.
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A duration in seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A duration in minutes.
pub const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}
