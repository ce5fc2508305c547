//! Counters that the node writes and anyone may read at any time.
//!
//! One thread writes, so an addition is a load and a store. Readers see each counter whole, but two counters may differ by
//! a packet.
//!
//! A counter is declared in one place, by one line and its doc comment in [`counters!`](crate::counters). The name in
//! `overlay status --json`, the name in the metrics and the help text come from there. Drop reasons have a similar
//! declaration of their own, [`DropReason`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{DropReason, Method, Nat, Via};

/// Declares a struct of [`Counter`](crate::Counter)s, and `COUNTERS`, the table that describes them.
///
/// The doc comment of a counter is also its help text, so it is one sentence. `as` gives it a different name in the table than
/// in the struct. Fields that are not counters follow after `beside`.
///
/// ```
/// overlay_core::counters! {
///     /// What a mill counts.
///     pub struct MillStats {
///         /// Sacks filled.
///         sacks,
///         /// Stones replaced.
///         stones as millstones_replaced,
///     }
/// }
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $stats:ident {
            $($(#[doc = $help:literal])+ $counter:ident $(as $name:ident)?,)+
        }
        $(beside { $($(#[$other_attribute:meta])* $other_visibility:vis $other:ident: $type:ty,)+ })?
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Default)]
        $visibility struct $stats {
            $($(#[doc = $help])+ $visibility $counter: $crate::Counter,)+
            $($($(#[$other_attribute])* $other_visibility $other: $type,)+)?
        }

        impl $stats {
            /// The counters, in the order in which they are shown.
            $visibility const COUNTERS: &'static [$crate::Figure<Self>] = &[
                $($crate::Figure::new(
                    $crate::counters!(@name $counter $($name)?),
                    concat!($($help),+).trim_ascii(),
                    |stats| stats.$counter.value(),
                ),)+
            ];
        }
    };
    (@name $counter:ident) => { stringify!($counter) };
    (@name $counter:ident $name:ident) => { stringify!($name) };
}

/// One number that is shown: its name, its meaning, and where it is read.
#[derive(Debug)]
pub struct Figure<S, V = u64> {
    /// The stable name in the metrics and in `overlay status --json`.
    pub name: &'static str,
    /// The help text, one sentence.
    pub help: &'static str,
    read: fn(&S) -> V,
}

impl<S, V> Figure<S, V> {
    /// Makes a figure of this name. `read` finds its value in the source.
    pub const fn new(name: &'static str, help: &'static str, read: fn(&S) -> V) -> Self {
        Self { name, help, read }
    }

    /// The present value.
    pub fn value(&self, source: &S) -> V {
        (self.read)(source)
    }
}

crate::counters! {
    /// Counters of the whole node.
    pub struct NodeStats {
        /// Handshake initiations sent.
        initiations_sent,
        /// Handshake initiations received and authenticated.
        initiations_received,
        /// Handshakes completed, whichever side began them.
        handshakes_completed,
        /// Cookie replies sent.
        cookies_sent,
        /// Times that a peer with a session stopped answering.
        peers_suspected,
        /// Questions that asked a silent peer whether it is still there.
        questions_sent,
        /// Probes sent for the MTU of a path.
        mtu_probes_sent,
        /// Times that the MTU of a path turned out to be smaller than before.
        mtu_falls,
        /// Packets that were sent to a peer in pieces, each piece in its own datagram.
        packets_cut,
        /// Packets that arrived from a peer in pieces and were put together.
        packets_joined,
        /// Messages of STUN and of relays from the addresses of our relays, which belong to no peer.
        foreign as foreign_datagrams,
        /// Datagrams sent with a small TTL, so that our own routers expect the peer.
        openers_sent,
        /// Probes of paths sent.
        path_probes_sent,
        /// Probes of paths that were answered.
        path_probes_answered,
        /// Openers, probes and initiations that were not sent, because an address, a peer or the node had used up its share.
        path_probes_withheld,
        /// Replies to probes that were not sent, because they would have come too late after a move.
        path_replies_withheld,
        /// Replies to probes that came over a different path than the probe went, and prove nothing.
        path_replies_astray,
        /// Times that packets to a peer moved to a different path.
        path_switches,
        /// Outer bytes that were sent a second time over a different path while the first one was in doubt.
        mirrored_bytes,
        /// Times that a direct path to a peer was searched for, because there was none.
        direct_searches,
        /// Searches that have found a direct path.
        direct_searches_succeeded,
        /// Milliseconds from the beginning of each successful search until a direct path was proven, all together.
        time_to_direct as time_to_direct_milliseconds,
        /// Outer bytes sent to peers through relays, the four bytes in front of each datagram included.
        relayed_sent_bytes,
        /// Outer bytes received from peers through relays and authenticated.
        relayed_received_bytes,
    }
    beside {
        drops: Drops,
        pub(crate) attempts: AllAttempts,
    }
}

crate::counters! {
    /// Counters of one peer. Bytes are those of inner packets, without the overhead of WireGuard, unless they are called outer.
    pub struct PeerStats {
        /// Bytes of inner packets received from the peer and delivered.
        received_bytes,
        /// Bytes of inner packets sent to the peer.
        sent_bytes,
        /// Inner packets received from the peer and delivered.
        received_packets,
        /// Inner packets sent to the peer.
        sent_packets,
        /// Outer bytes received from the peer and authenticated, WireGuard headers included, as `wg show` counts them.
        received_wire_bytes,
        /// Outer bytes sent to the peer, WireGuard headers included, as `wg show` counts them.
        sent_wire_bytes,
        /// Handshakes completed with the peer.
        handshakes,
        /// Packets to or from the peer that were dropped.
        drops as peer_dropped_packets,
    }
}

impl NodeStats {
    /// Packets dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize].value()
    }

    /// Attempts to reach peers by this method while this NAT was in front of the host.
    pub fn attempts(&self, method: Method, nat: Nat) -> &Attempts {
        self.attempts.of(method, nat)
    }

    /// Counts outer bytes that were sent to a peer.
    pub(crate) fn count_sent(&self, peer: &PeerStats, via: Via, bytes: usize) {
        peer.sent_wire_bytes.add(bytes as u64);
        if via.channel.is_some() {
            self.relayed_sent_bytes.add(bytes as u64);
        }
    }

    /// Counts outer bytes that came from a peer and are authentic.
    pub(crate) fn count_received(&self, peer: &PeerStats, via: Via, bytes: u64) {
        peer.received_wire_bytes.add(bytes);
        if via.channel.is_some() {
            self.relayed_received_bytes.add(bytes);
        }
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.count_drops(reason, 1);
    }

    pub(crate) fn count_drops(&self, reason: DropReason, packets: u64) {
        self.drops.0[reason as usize].add(packets);
    }
}

/// One counter for each drop reason.
#[derive(Debug)]
struct Drops(Box<[Counter]>);

impl Default for Drops {
    fn default() -> Self {
        Self(DropReason::ALL.iter().map(|_| Counter::default()).collect())
    }
}

/// How many attempts were made, and how many succeeded.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Attempts made.
    pub made: Counter,
    /// Attempts that succeeded.
    pub succeeded: Counter,
}

/// The attempts of the node, by method and NAT.
#[derive(Debug, Default)]
pub(crate) struct AllAttempts([[Attempts; Nat::ALL.len()]; Method::ALL.len()]);

impl AllAttempts {
    pub(crate) fn of(&self, method: Method, nat: Nat) -> &Attempts {
        &self.0[method as usize][nat as usize]
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The current value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds `n` by a load and a store. Only the one thread that owns the counter may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::counters! {
        /// What a mill counts.
        struct MillStats {
            /// Sacks filled,
            /// whatever is in them.
            sacks,
            /// Stones replaced.
            stones as millstones_replaced,
        }
        beside {
            /// What it is called.
            name: String,
        }
    }

    #[test]
    fn a_counter_is_shown_with_the_name_and_the_words_of_its_declaration() {
        let stats = MillStats::default();
        stats.stones.add(2);
        stats.stones.add(3);
        assert!(stats.name.is_empty());
        let shown: Vec<_> = MillStats::COUNTERS.iter().map(|f| (f.name, f.help, f.value(&stats))).collect();
        let expected =
            [("sacks", "Sacks filled, whatever is in them.", 0), ("millstones_replaced", "Stones replaced.", 5)];
        assert_eq!(shown, expected);
    }

    #[test]
    fn every_drop_reason_has_a_counter_of_its_own_and_a_sentence() {
        let stats = NodeStats::default();
        for (reason, packets) in DropReason::ALL.iter().zip(1..) {
            stats.count_drops(*reason, packets);
        }
        for (reason, packets) in DropReason::ALL.iter().zip(1..) {
            assert_eq!(stats.drops(*reason), packets);
            let help = reason.help();
            assert!(help.ends_with('.') && help.starts_with(char::is_uppercase), "{}: {help}", reason.name());
        }
    }
}
