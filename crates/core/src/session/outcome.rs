//! The results of a session's methods: what to send, and what a message held.

/// What [`super::seam::Session::advance`] wants sent: the first `len` bytes of the buffer it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// The peer did not answer in time.
    Initiation {
        len: usize,
    },
    Keepalive(usize),
    /// The handshake was given up after 90 s, or no session was made for 540 s. The only keys left are those of a session
    /// that is still young enough to be used.
    Expired {
        /// Whether initiations went unanswered.
        unanswered: bool,
    },
}

/// An authentic data message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) content: Content,
    /// Whether it is the first of a session that we responded to. It proves that the initiator holds the keys.
    pub(crate) confirms: bool,
    /// The number of the preshared key that the session was made with.
    pub(crate) key_number: Option<u32>,
}

/// What a data message held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The message holds what claims to be an IP packet: this many bytes at the start of the output.
    Packet(usize),
    /// The message holds what claims to be a control frame: this many bytes at the start of the output.
    Frame(usize),
    Keepalive,
    /// The message does not hold a whole IP packet.
    Malformed,
}
