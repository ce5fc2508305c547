//! What a peer may send: its inner prefixes, and its allowlist.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::data::allowlist::Allowlist;

/// The rights of one peer.
#[derive(Default)]
pub(crate) struct Rights {
    /// What this peer owns in the table of all peers.
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    /// Boxed: most peers of a large network have none, and it is a third of what a peer weighs.
    pub(crate) allowlist: Option<Box<Allowlist>>,
    /// Made by [`crate::Command::SetPeer`], from a file, and not in WireGuard's way: link-local sources are not covered by
    /// a shorter prefix.
    pub(crate) is_declared: bool,
}
