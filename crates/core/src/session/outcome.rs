//! What a session answers: what is to be sent, and what a message held.

/// What [`super::seam::Session::advance`] wants sent, `len` bytes of the buffer it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// The peer has not answered when it should have.
    Initiation {
        len: usize,
    },
    Keepalive(usize),
    /// The handshake was given up after 90 s, or no session was made for 540 s. No key is left but that of a session
    /// that is not too old to be used.
    Expired {
        /// Whether initiations went unanswered.
        unanswered: bool,
    },
}

/// A data message that was authentic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) content: Content,
    /// Whether it is the first of a session that we responded to: the initiator has proven that it holds the keys.
    pub(crate) confirms: bool,
}

/// What a data message held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// What claims to be an IP packet: this many bytes at the start of the output.
    Packet(usize),
    Keepalive,
    /// No whole IP packet.
    Malformed,
}
