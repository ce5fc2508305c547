//! One file for each verb. Each has a function `run`, which prints a result or returns an [`overlay_daemon::Failure`].

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod down;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod man;
pub(crate) mod mtu;
pub(crate) mod ping;
pub(crate) mod reload;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod wg;
