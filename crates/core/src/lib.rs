//! The node: a pure state machine that turns packets, datagrams, commands and time into datagrams, packets, events and
//! a next deadline.
//!
//! The crate contains no socket, clock, thread or global random source. The program that runs a [`Node`] (the daemon on
//! Linux, `sim` in memory) passes the time with every call and carries the node's [`Output`] away:
//!
//! ```text
//! loop {
//!     node.handle_tun(packet, now) | node.handle_udp(train, now) | node.handle_command(command, now)
//!         | node.handle_refused(path, len, now) | node.handle_timeout(now)
//!     for output in node.poll_outputs() {
//!         match output {
//!             Output::Transmit(t) => send it,   Output::Packet(p) => write it to TUN,
//!             Output::Event(e)    => tell control,   Output::Timeout(at) => the last one: wait until then,
//!         }
//!     }
//! }
//! ```
//!
//! The folders are planes. Every packet passes through `data`, which allocates nothing. `session` speaks WireGuard, and
//! `path` knows outer addresses. The files beside them hold what all planes read.

mod bucket;
mod change;
mod config;
mod context;
mod data;
mod deadlines;
mod event;
mod hand_over;
mod instant;
mod local;
mod news;
mod node;
mod origin;
mod outbox;
mod output;
mod parked;
mod path;
mod peer;
mod peer_key;
mod peer_tag;
mod peers;
mod rights;
mod rule;
mod session;
mod stats;
mod wall_clock;

pub use config::{AllowedIpChange, Command, CommandError, Joins, NodeConfig, PeerChange, PeerConfig};
pub use data::allowlist::{KnownFlow, PeerFlows, TcpStage};
pub use data::drop_reason::DropReason;
pub use event::Event;
pub use hand_over::HandOver;
pub use instant::Instant;
pub use node::Node;
pub use outbox::Outputs;
pub use output::{Foreign, Output, PacketOut, Transmit, UdpTrain, Via};
pub use path::candidate::{Base, Candidate, CandidateKind, CandidateScope, Remote};
pub use path::method::{Method, Nat};
pub use path::path_mtu::{MtuLimit, PathMtu, PathMtuState, ProbedBy};
pub use path::report::{PairReport, PairState, PathKind, PathsReport};
pub use peer_key::PeerKey;
pub use peer_tag::{PathTag, PeerTag, PeerTags};
pub use rule::{Protocol, Rule};
pub use session::replays::PeerInitiations;
pub use stats::{Attempts, Counter, Figure, NodeStats, PeerStats};
pub use wall_clock::WallStep;
