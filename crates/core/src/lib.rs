//! The node: a pure state machine that turns packets, datagrams, commands and time into datagrams, packets, events and
//! a next deadline.
//!
//! There is no socket, clock, thread or global random source here. Whoever runs a [`Node`] (the daemon on Linux, `sim`
//! in memory) lends it the time with every call and carries its [`Output`] away:
//!
//! ```text
//! loop {
//!     node.handle_tun(packet, now) | node.handle_udp(train, now) | node.handle_command(command, now)
//!         | node.handle_refused(peer, len, now) | node.handle_timeout(now)
//!     for output in node.poll_outputs() {
//!         match output {
//!             Output::Transmit(t) => send it,   Output::Packet(p) => write it to TUN,
//!             Output::Event(e)    => tell control,   Output::Timeout(at) => the last one: wait until then,
//!         }
//!     }
//! }
//! ```
//!
//! The folders are the architecture: `data` is touched by every packet and allocates nothing, `path` knows outer
//! addresses, and the files beside them hold what both read.

mod change;
mod config;
mod context;
mod data;
mod indices;
mod instant;
mod news;
mod node;
mod output;
mod path;
mod peer;
mod peer_key;
mod peers;
mod stats;
mod timer;
mod wall_clock;

pub use config::{AllowedIpChange, Command, CommandError, Joins, NodeConfig, PeerChange, PeerConfig, Protocol, Rule};
pub use data::allowlist::{KnownFlow, PeerFlows};
pub use data::drop_reason::DropReason;
pub use instant::Instant;
pub use node::Node;
pub use output::{Event, Output, Outputs, PacketOut, PeerTag, Transmit, UdpTrain, Via};
pub use path::path_mtu::{MtuLimit, PathMtu, PathMtuState, ProbedBy};
pub use peer_key::PeerKey;
pub use stats::{Counter, Figure, NodeStats, PeerStats};
pub use wall_clock::WallStep;
