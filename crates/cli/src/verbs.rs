//! One file for each verb. Each has a function `run`, which prints a result or returns an [`overlay_daemon::Failure`].

pub(crate) mod agents;
pub(crate) mod approve;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod down;
pub(crate) mod find;
pub(crate) mod handshake;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod ip;
pub(crate) mod key;
pub(crate) mod man;
pub(crate) mod mtu;
pub(crate) mod pending;
pub(crate) mod ping;
pub(crate) mod reject;
pub(crate) mod reload;
pub(crate) mod rendezvous;
pub(crate) mod status;
pub(crate) mod untrust;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod wg;
pub(crate) mod whois;
