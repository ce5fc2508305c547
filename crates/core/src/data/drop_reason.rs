//! Every reason for which a packet or datagram is dropped, with the name it is counted under.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:expr])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet or datagram went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
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
        }
    };
}

drop_reasons! {
    // Both directions.
    /// The interface is down, or went down while the packet waited.
    InterfaceDown = "interface_down",
    /// It would configure a host: neighbour discovery, a redirect, MLD, IGMP, DHCP, or a link-local source that is not the sender's.
    HostConfiguration = "host_configuration",

    // Outbound: TUN to network, in the order a packet meets them.
    /// Not a whole IP packet, or a virtio header that contradicts it.
    OutboundMalformed = "outbound_malformed",
    /// The inner source is not one of our addresses, or it is that of control frames, which the node alone sends.
    OutboundSource = "outbound_source",
    /// No peer has the destination in its allowed_ips.
    OutboundNoPeer = "outbound_no_peer",
    /// No handshake is possible: we have no private key, or the peer's public key is of low order.
    OutboundNoKey = "outbound_no_key",
    /// A datagram of our own: the way to the peer's endpoint leads into the tunnel.
    OutboundLoop = "outbound_loop",
    /// Larger than the path's MTU and not to be fragmented: answered with ICMP "too big".
    OutboundTooBig = "outbound_too_big",
    /// The peer has no endpoint yet.
    OutboundNoEndpoint = "outbound_no_endpoint",
    /// More packets wait for the handshake than are kept; one of the source that has most went.
    StagedOverflow = "staged_overflow",
    /// Packets that waited for a handshake that never came.
    StagedExpired = "staged_expired",

    // Inbound: network to TUN, in the order a datagram meets them.
    /// None of the protocols of our port.
    InboundUnknown = "inbound_unknown",
    /// A WireGuard message of a length its type does not have.
    InboundLength = "inbound_length",
    /// A handshake message, and we have no private key.
    HandshakeNoKey = "handshake_no_key",
    /// A handshake message whose mac1 was not made for our key.
    HandshakeMac = "handshake_mac",
    /// Under load, and the message proved no address: answered with a cookie.
    HandshakeCookie = "handshake_cookie",
    /// Under load, and the source sent too many handshakes.
    HandshakeRate = "handshake_rate",
    /// A handshake message that does not decrypt, or answers nothing we asked.
    HandshakeForged = "handshake_forged",
    /// An initiation whose timestamp is not newer than the last one.
    HandshakeReplay = "handshake_replay",
    /// An initiation from a key that is no peer's.
    HandshakeUnknownPeer = "handshake_unknown_peer",
    /// An initiation from a peer whose public key is of low order: anyone could have made it.
    HandshakeLowOrder = "handshake_low_order",
    /// A peer's initiations came faster than 50 a second.
    HandshakeFlood = "handshake_flood",
    /// A receiver index that names no session.
    UnknownReceiver = "unknown_receiver",
    /// A counter at the end of its range, where WireGuard rejects.
    CounterExhausted = "counter_exhausted",
    /// A counter that was seen before or lies before the window.
    Replay = "replay",
    /// The authentication tag does not match.
    Forged = "forged",
    /// What was decrypted is not a whole IP packet.
    InboundMalformed = "inbound_malformed",
    /// A control frame that cannot be read.
    ControlMalformed = "control_malformed",
    /// A control frame that says something we must know and do not.
    ControlUnknown = "control_unknown",
    /// A piece of a packet that is too long, or contradicts the other pieces.
    FragmentFrame = "fragment_frame",
    /// A packet that came in pieces, of which some did not.
    FragmentFrameLost = "fragment_frame_lost",
    /// The inner source does not belong to the peer that sent it, or it is an ICMP error about a packet that did not go to
    /// this peer.
    SpoofedSource = "spoofed_source",
    /// The inner source is ours, loopback, multicast, broadcast or unspecified.
    MartianSource = "martian_source",
    /// The inner destination is not ours and forwarding is off.
    InboundDestination = "inbound_destination",
    /// The allowlist has no entry for it and it answers nothing.
    NotAllowed = "not_allowed",
    /// A chain of IPv6 extension headers that is too long or holds an unknown one.
    ExtensionHeaders = "extension_headers",
    /// A first fragment too short for its ports, TCP at fragment offset 1, or a fragment over an admitted first one.
    FragmentEvasion = "fragment_evasion",
    /// A later fragment without a verdict from its first.
    FragmentOrphan = "fragment_orphan",
}
