//! The verdicts on first fragments, kept for the later fragments, which carry no ports.
//!
//! Verdicts are stored in order of arrival and searched from the newest, because later fragments closely follow their
//! first. A verdict expires after two seconds, and the search ends at the first expired one. There are at most 256, so
//! that the longest search costs less than decrypting the packet did.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use overlay_wire::ip::{Fragment, Packet, Upper, Version};

use crate::data::shares;
use crate::{DropReason, Instant};

/// How many verdicts are kept for a peer. The source with the most verdicts loses its oldest.
pub(super) const MAX_VERDICTS: usize = 256;

/// How long a verdict applies to later fragments.
pub(super) const VERDICT_LIFETIME: Duration = Duration::from_secs(2);

/// The verdicts on first fragments from one peer.
#[derive(Debug)]
pub(super) struct Fragments {
    /// Keeps a host behind the peer from choosing an address that shares the limit of a different one.
    secret: u64,
    verdicts: VecDeque<Verdict>,
}

/// The identity of a fragmented packet, as the host that reassembles it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    /// `None` for IPv6, where the protocol is not part of the identity and later fragments may carry any (RFC 8200
    /// section 4.5).
    protocol: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    name: Name,
    result: Result<(), DropReason>,
    /// Where the first fragment ends, in units of 8 bytes.
    end: u16,
    made: Instant,
}

impl Fragments {
    /// Creates an empty list, which owns no memory.
    pub(super) fn new(secret: u64) -> Self {
        Self { secret, verdicts: VecDeque::new() }
    }

    /// Records the verdict on a first fragment. It replaces an earlier verdict on the same packet.
    ///
    /// In IPv6 an earlier first fragment of the same packet may have been admitted, with its ports further back. Later
    /// fragments must not reach back into either of the two.
    pub(super) fn on_first(
        &mut self,
        packet: &Packet<'_>,
        upper: &Upper,
        fragment: Fragment,
        result: Result<(), DropReason>,
        now: Instant,
    ) {
        while self.verdicts.front().is_some_and(|oldest| !oldest.is_valid(now)) {
            self.verdicts.pop_front();
        }
        if self.verdicts.len() >= MAX_VERDICTS {
            self.make_room();
        }
        let name = Name::of(packet, upper, fragment);
        let mut end = (packet.len().saturating_sub(fragment.start) / 8) as u16;
        if packet.version() == Version::V6
            && let Some(Verdict { result: Ok(()), end: before, .. }) = self.find(name, now)
        {
            end = end.max(*before);
        }
        self.verdicts.push_back(Verdict { name, result, end, made: now });
    }

    /// Returns the verdict on a later fragment, or `None` if there is no verdict on its first.
    ///
    /// A fragment that reaches back into an admitted first fragment is evasion: it could replace the header that was
    /// judged.
    pub(super) fn on_later(
        &self,
        packet: &Packet<'_>,
        upper: &Upper,
        fragment: Fragment,
        now: Instant,
    ) -> Option<Result<(), DropReason>> {
        self.find(Name::of(packet, upper, fragment), now).map(|verdict| {
            verdict.result?;
            if fragment.offset < verdict.end { Err(DropReason::FragmentEvasion) } else { Ok(()) }
        })
    }

    /// Returns the last verdict on a packet if it is still valid.
    fn find(&self, name: Name, now: Instant) -> Option<&Verdict> {
        let mut valid = self.verdicts.iter().rev().take_while(|verdict| verdict.is_valid(now));
        valid.find(|verdict| verdict.name == name)
    }

    /// Removes the oldest verdict of the source that has the most. There may be many hosts behind one peer.
    fn make_room(&mut self) {
        let secret = self.secret;
        let group = |verdict: &Verdict| shares::group_of(verdict.name.source, secret);
        let heaviest = shares::heaviest(self.verdicts.iter().map(|verdict| (group(verdict), 1)));
        if let Some(at) = self.verdicts.iter().position(|verdict| Some(group(verdict)) == heaviest) {
            self.verdicts.remove(at);
        }
    }

    /// Forgets all verdicts, because the rules behind them changed.
    pub(super) fn clear(&mut self) {
        self.verdicts.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.verdicts.len()
    }
}

impl Verdict {
    fn is_valid(&self, now: Instant) -> bool {
        now.since(self.made) < VERDICT_LIFETIME
    }
}

impl Name {
    fn of(packet: &Packet<'_>, upper: &Upper, fragment: Fragment) -> Self {
        let protocol = (packet.version() == Version::V4).then_some(upper.protocol);
        Self { source: packet.source(), destination: packet.destination(), id: fragment.id, protocol }
    }
}
