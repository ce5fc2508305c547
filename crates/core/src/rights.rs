//! The rights of a peer: its inner prefixes, and its allowlist.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::data::allowlist::Allowlist;
use crate::{Instant, Rule};

/// The rights of one peer.
#[derive(Default)]
pub(crate) struct Rights {
    /// The prefixes of this peer in the table of all peers.
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    /// Boxed, because most peers of a large network do not have one, and it takes a third of the memory of a peer.
    pub(crate) allowlist: Option<Box<Allowlist>>,
    /// What we may open at the peer. `None`: the peer decides.
    pub(crate) opens: Option<Box<[Rule]>>,
    /// Whether a file declared the peer, by [`crate::Command::SetPeer`]. For such a peer a shorter prefix does not cover
    /// link-local sources. WireGuard has no such rule.
    pub(crate) is_declared: bool,
}

impl Rights {
    /// When to call [`Rights::tidy`], if ever.
    pub(crate) fn tidy_at(&self) -> Option<Instant> {
        self.allowlist.as_ref().and_then(|allowlist| allowlist.tidy_at())
    }

    /// Frees what dead flows occupy, if that is due.
    pub(crate) fn tidy(&mut self, now: Instant) {
        if let Some(allowlist) = &mut self.allowlist {
            allowlist.tidy(now);
        }
    }
}
