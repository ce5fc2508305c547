//! Counters of the shell around the node: what the engine thread does to TUN and sockets, where the node cannot see it.
//!
//! The engine thread alone writes them, everything else reads them whenever it likes. What the node itself counts
//! stands in [`overlay_core::NodeStats`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::offload::Offloads;

macro_rules! shell_counters {
    ($($field:ident = $help:literal,)+) => {
        /// What the engine thread counts.
        #[derive(Debug, Default)]
        pub struct ShellStats {
            $(#[doc = $help] pub $field: AtomicU64,)+
            /// Which offloads it uses.
            pub offloads: Offloads,
        }

        impl ShellStats {
            /// Every counter as (name, help, value). The names are stable: they stand in metrics and in
            /// `overlay status --json`.
            pub fn list(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $help.trim_ascii(), self.$field.load(Relaxed)),)+].into_iter()
            }
        }
    };
}

shell_counters! {
    tun_reads = "Reads from TUN, each one packet or super-packet.",
    tun_read_bytes = "Bytes read from TUN, virtio headers included.",
    tun_writes = "Writes to TUN, each one packet or super-packet.",
    tun_write_errors = "Writes to TUN that the kernel refused; the packet is lost.",
    tun_super_packets_refused = "Super-packets that TUN refused and that were written packet by packet.",
    udp_receives = "Receive calls on UDP sockets that brought something.",
    udp_received_trains = "Datagram trains received, of one or more datagrams.",
    udp_truncated = "Datagram trains that did not fit the receive buffer and were dropped.",
    udp_sends = "Send calls on UDP sockets, each for one train or several.",
    udp_sent_trains = "Datagram trains sent, of one or more datagrams.",
    udp_send_would_block = "Trains that waited or were dropped because the send buffer was full.",
    udp_send_errors = "Trains that the kernel refused to send; they are lost.",
    udp_too_long = "Trains that the kernel refused to send as too long for the outer path.",
    udp_send_no_socket = "Trains for an address family that this host has no socket for.",
    commands = "Commands that control gave to the node.",
    events_merged = "Events about a peer that replaced an older one control had not read yet.",
    timeouts = "Deadlines of the node that were served.",
}

/// Adds to a counter. A load and a store: only the one thread that owns the counter may call this.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_under_its_name_with_its_value() {
        let stats = ShellStats::default();
        add(&stats.tun_reads, 2);
        add(&stats.tun_reads, 3);
        add(&stats.timeouts, 1);
        let listed: Vec<_> = stats.list().collect();
        assert_eq!(listed.first().map(|c| (c.0, c.2)), Some(("tun_reads", 5)));
        assert_eq!(
            listed.last().map(|c| (c.0, c.1, c.2)),
            Some(("timeouts", "Deadlines of the node that were served.", 1))
        );
        assert_eq!(listed.iter().map(|c| c.2).sum::<u64>(), 6);
    }
}
