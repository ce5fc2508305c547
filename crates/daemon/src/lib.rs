//! The daemon as a library: config, the engine thread, the control thread, local API, stores.
// The daemon is where the machine's clock and sockets are used; the purity lints guard `core`, `wire` and `sim`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod agent;
pub mod api;
pub mod client;
pub mod config;
mod confine;
mod control;
pub use overlay_os::dates;
pub mod detach;
pub mod device;
pub mod doctor;
pub mod engine;
pub mod failure;
pub mod files;
pub mod host;
mod hosts_file;
pub mod import;
pub mod keys;
pub mod names;
pub mod netcheck;
pub mod notify;
mod path_kind;
pub mod permission;
pub mod ping;
pub mod resolve;
mod serving;
pub mod uapi;
pub mod up;
pub mod view;
mod warnings;
pub mod wg;

pub use failure::Failure;
