//! Every reason for which a packet or datagram is dropped: its name in the counters, and a sentence that explains it.
//!
//! One entry is all that a new reason needs: status, metrics and `docs/metrics.md` show what stands here.

macro_rules! drop_reasons {
    ($($(#[doc = $help:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet or datagram went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $($(#[doc = $help])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name, as it stands in metrics and in `overlay status --json`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence that says what happened.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($help),+).trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    // Both directions.
    /// The interface was down, or it went down while the packet was waiting.
    InterfaceDown = "interface_down",
    /// The packet would configure a host: neighbour discovery, a redirect, MLD, IGMP, DHCP, or a link-local source that
    /// does not belong to its sender.
    HostConfiguration = "host_configuration",
    /// Inbound: the allow list has no entry for the packet, and the packet does not answer anything that we sent. Outbound:
    /// the peer's grant does not list what the packet would open there.
    NotAllowed = "not_allowed",

    // Outbound: TUN to network, in the order a packet meets them.
    /// The packet from TUN was not a whole IP packet, or its virtio header contradicted it.
    OutboundMalformed = "outbound_malformed",
    /// The inner source was not one of our addresses, or it was that of control frames, which only the node sends.
    OutboundSource = "outbound_source",
    /// No peer has the destination in its allowed_ips.
    OutboundNoPeer = "outbound_no_peer",
    /// No handshake was possible: we have no private key, or the peer's public key is of low order.
    OutboundNoKey = "outbound_no_key",
    /// The packet was one of our own outer datagrams: the route to the peer's endpoint leads into the tunnel.
    OutboundLoop = "outbound_loop",
    /// The packet was larger than the path MTU and must not be fragmented; it was answered with ICMP "too big".
    OutboundTooBig = "outbound_too_big",
    /// The peer has no endpoint yet.
    OutboundNoEndpoint = "outbound_no_endpoint",
    /// Too many packets were waiting for the handshake, so the source with the most of them lost one.
    StagedOverflow = "staged_overflow",
    /// Too many bytes were waiting for handshakes with all peers together, and the sender of the packet had its share.
    StagedBudget = "staged_budget",
    /// The packet waited for a handshake that was never completed.
    StagedExpired = "staged_expired",

    // Inbound: network to TUN, in the order a datagram meets them.
    /// The datagram was not of a protocol that our port takes.
    InboundUnknown = "inbound_unknown",
    /// The length of the WireGuard message did not fit its type.
    InboundLength = "inbound_length",
    /// A handshake message arrived while we had no private key.
    HandshakeNoKey = "handshake_no_key",
    /// The mac1 of the handshake message was not made for our key.
    HandshakeMac = "handshake_mac",
    /// We were under load and the message did not prove its source address; it was answered with a cookie.
    HandshakeCookie = "handshake_cookie",
    /// We were under load and the source sent too many handshake messages.
    HandshakeRate = "handshake_rate",
    /// The handshake message did not decrypt, or it did not answer anything that we had sent.
    HandshakeForged = "handshake_forged",
    /// The timestamp of the initiation was not newer than the last one of the same peer.
    HandshakeReplay = "handshake_replay",
    /// The initiation came from a key that does not belong to a peer.
    HandshakeUnknownPeer = "handshake_unknown_peer",
    /// The initiation came from a peer whose public key is of low order: anyone could have made it.
    HandshakeLowOrder = "handshake_low_order",
    /// The peer sent more than 50 initiations a second.
    HandshakeFlood = "handshake_flood",
    /// The receiver index did not name a session.
    UnknownReceiver = "unknown_receiver",
    /// The counter of the message was at the end of its range, where WireGuard rejects messages.
    CounterExhausted = "counter_exhausted",
    /// The counter of the message had been seen before, or it was older than the replay window.
    Replay = "replay",
    /// The authentication tag did not match.
    Forged = "forged",
    /// The decrypted data was not a whole IP packet.
    InboundMalformed = "inbound_malformed",
    /// A control frame could not be read.
    ControlMalformed = "control_malformed",
    /// A control frame required something that we do not understand.
    ControlUnknown = "control_unknown",
    /// The peer's control said more than a few words a second.
    ControlFlood = "control_flood",
    /// A piece of a packet was too long, or it contradicted the other pieces.
    FragmentFrame = "fragment_frame",
    /// A packet arrived in pieces, and some of the pieces are missing.
    FragmentFrameLost = "fragment_frame_lost",
    /// The inner source does not belong to the peer that sent it, or it is an ICMP error about a packet that did not go to
    /// this peer.
    SpoofedSource = "spoofed_source",
    /// The inner source was one of our own addresses, loopback, multicast, broadcast or unspecified.
    MartianSource = "martian_source",
    /// The inner destination was not one of our addresses, and forwarding is off.
    InboundDestination = "inbound_destination",
    /// The chain of IPv6 extension headers was too long, or it held an unknown one.
    ExtensionHeaders = "extension_headers",
    /// A first fragment was too short for its ports, TCP began at offset 1, or a fragment overlapped an admitted first one.
    FragmentEvasion = "fragment_evasion",
    /// A later fragment arrived without a verdict on its first fragment.
    FragmentOrphan = "fragment_orphan",
}
