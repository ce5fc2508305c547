//! What was decided about first fragments, for the later ones, which carry no ports.
//!
//! Verdicts lie in the order they came, and are searched from the newest: later fragments follow their first closely,
//! and a verdict is void after two seconds, where the search ends. At most 256 lie there, so that the longest search
//! costs less than the decryption before it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use overlay_wire::ip::{Fragment, Packet, Upper, Version};

use crate::data::shares;
use crate::{DropReason, Instant};

/// Verdicts kept for a peer; the oldest gives way, of the source that has most.
pub(super) const MAX_VERDICTS: usize = 256;

/// How long later fragments follow a verdict.
pub(super) const VERDICT_LIFETIME: Duration = Duration::from_secs(2);

/// Verdicts on first fragments.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    verdicts: VecDeque<Verdict>,
}

/// One packet in the eyes of the host that puts it together again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    /// `None` for IPv6, where it is no part of the name and later fragments may say anything (RFC 8200 section 4.5).
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
    /// Remembers what became of a first fragment. A later verdict on the same packet replaces an earlier one.
    ///
    /// In IPv6 the ports may lie further behind in another first fragment of the same packet that was admitted before:
    /// what reaches back into either is evasion.
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

    /// What becomes of a later fragment; `None` without a verdict on its first.
    ///
    /// One that reaches back into an admitted first fragment is evasion: it could replace the header that was judged.
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

    /// The last verdict on a packet, while it is valid.
    fn find(&self, name: Name, now: Instant) -> Option<&Verdict> {
        let mut valid = self.verdicts.iter().rev().take_while(|verdict| verdict.is_valid(now));
        valid.find(|verdict| verdict.name == name)
    }

    /// Many hosts may be behind one peer: the one that has most verdicts loses its oldest.
    fn make_room(&mut self) {
        let group = |verdict: &Verdict| shares::group_of(verdict.name.source);
        let heaviest = shares::heaviest(self.verdicts.iter().map(|verdict| (group(verdict), 1)));
        if let Some(at) = self.verdicts.iter().position(|verdict| Some(group(verdict)) == heaviest) {
            self.verdicts.remove(at);
        }
    }

    /// Forgets every verdict: the rules behind them changed.
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
