//! Counters of the shell around the node: what the engine thread does to TUN and sockets, where the node cannot see it.
//!
//! Only the engine thread writes them, except what control counts before it reaches the engine. Any thread may read them at any time. The node's own counters are in
//! [`overlay_core::NodeStats`].

use overlay_core::Counter;

use super::offload::Offloads;

overlay_core::counters! {
    /// What the engine thread counts.
    pub struct ShellStats {
        /// Reads from TUN, each one packet or super-packet.
        tun_reads,
        /// Bytes read from TUN, virtio headers included.
        tun_read_bytes,
        /// Writes to TUN, each one packet or super-packet.
        tun_writes,
        /// Writes to TUN that the kernel refused; the packet is lost.
        tun_write_errors,
        /// Super-packets that TUN refused and that were written packet by packet instead.
        tun_super_packets_refused,
        /// Receive calls on UDP sockets that returned something.
        udp_receives,
        /// Datagram trains received, of one or more datagrams.
        udp_received_trains,
        /// Datagram trains that did not fit the receive buffer and were dropped.
        udp_truncated,
        /// Send calls on UDP sockets, each for one or more trains.
        udp_sends,
        /// Datagram trains sent, of one or more datagrams.
        udp_sent_trains,
        /// Trains that waited or were dropped because the send buffer was full.
        udp_send_would_block,
        /// Trains that the kernel refused to send; they are lost.
        udp_send_errors,
        /// Trains that the kernel refused to send as too long for the outer path.
        udp_too_long,
        /// Trains for an address family for which this host has no socket.
        udp_send_no_socket,
        /// Commands that control gave to the node.
        commands,
        /// Events about a peer that replaced an older event which control had not read yet.
        events_merged,
        /// Deadlines of the node that were served.
        timeouts,
        /// Datagrams of relays that were dropped because control was too slow to take them.
        foreign_datagrams_dropped,
        /// Datagrams that control sent to relays.
        control_datagrams,
        /// Datagrams of control that were dropped because the engine was too slow to take them.
        control_datagrams_dropped,
    }
    beside {
        /// Which offloads it uses.
        pub offloads: Offloads,
    }
}

/// See [`Counter::add`].
pub(super) fn add(counter: &Counter, n: u64) {
    counter.add(n);
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn every_counter_is_listed_under_its_name_with_its_value() {
        let stats = ShellStats::default();
        add(&stats.tun_reads, 2);
        add(&stats.tun_reads, 3);
        add(&stats.timeouts, 1);
        let listed: Vec<_> = ShellStats::COUNTERS.iter().map(|c| (c.name, c.help, c.value(&stats))).collect();
        assert_eq!(listed.first().map(|c| (c.0, c.2)), Some(("tun_reads", 5)));
        assert_eq!(listed.iter().find(|c| c.0 == "timeouts").map(|c| c.2), Some(1));
        let meanings: Vec<_> = listed.iter().map(|c| format!("{}: {}", c.0, c.1)).collect();
        golden("what each counts", meanings.join("\n"));
        assert_eq!(listed.iter().map(|c| c.2).sum::<u64>(), 6);
    }
}
