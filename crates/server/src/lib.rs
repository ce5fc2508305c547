//! The public side's shell: the rendezvous on Linux. TLS, WebSocket, keys on disk, limits, metrics.
//!
//! [`serve`] opens the state folder, listens, and carries messages between connections and the registry of
//! `overlay_rendezvous`, which decides what is answered, and between the registry and its store ([`redb_store`]). It never holds an agent's keys, and it believes nothing that an agent has not signed.
//!
//! A connection goes through TLS, a WebSocket at [`PATH`] and the handshake of `overlay_rendezvous::channel`, all within one
//! deadline. From then on each binary message is one sealed message. Whatever goes wrong ends the connection under a name
//! that the metrics count ([`End`]).

// A program may read the clock and use sockets. The purity lints are for `core`, `wire`, `rendezvous` and `sim`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod access;
mod addresses;
pub mod alone;
pub mod backup;
mod clock;
mod connection;
mod desk;
mod end;
#[cfg(feature = "etcd")]
mod etcd;
mod failure;
mod family;
mod handover;
mod http;
mod kept;
mod limits;
mod listening;
mod metrics;
pub mod network;
pub mod operator;
mod outbox;
mod process;
pub mod redb_store;
pub mod relay;
mod serve;
mod snapshots;
mod state;
mod store_at;
mod store_health;
mod tls;

pub use access::Access;
pub use end::End;
pub use failure::{Kind, ServeError};
pub use family::Family;
pub use limits::Limits;
pub use metrics::{FAMILIES, Stats};
pub use serve::{Options, Relaying, Setup, serve};
pub use store_at::{Members, StoreAt};
pub use tls::CertificateFiles;

/// The path of the WebSocket for control messages.
pub const PATH: &str = "/v1/control";
