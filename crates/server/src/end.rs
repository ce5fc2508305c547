//! Why a connection ended. Each reason is counted.

use overlay_rendezvous::channel::{Broken, Refusal};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The agent has closed it, or the network has.
    Closed,
    /// TLS, WebSocket and handshake were not done within their deadline.
    HandshakeDeadline,
    /// What came was not TLS.
    Tls,
    /// What came inside TLS was not a WebSocket at our path, or it broke the rules of one.
    WebSocket,
    /// The handshake failed, or a message could not be opened.
    Channel(Broken),
    /// A message was opened, but is not a call.
    MalformedCall,
    /// Nothing came for longer than the idle deadline.
    Idle,
    /// The agent reads more slowly than we have to tell it.
    OutQueueFull,
    /// The registry has ended it.
    Registry,
    /// The rendezvous ends.
    Shutdown,
}

impl End {
    /// All reasons. A server is never denied.
    pub const ALL: [Self; 19] = [
        Self::Closed,
        Self::HandshakeDeadline,
        Self::Tls,
        Self::WebSocket,
        Self::Channel(Broken::TooLong),
        Self::Channel(Broken::Malformed),
        Self::Channel(Broken::NotAuthentic),
        Self::Channel(Broken::Over),
        Self::Channel(Broken::Auth(Refusal::BadObject)),
        Self::Channel(Broken::Auth(Refusal::WrongRole)),
        Self::Channel(Broken::Auth(Refusal::Relayed)),
        Self::Channel(Broken::Auth(Refusal::WrongRendezvous)),
        Self::Channel(Broken::Auth(Refusal::WrongNetwork)),
        Self::Channel(Broken::Auth(Refusal::UnknownVersion)),
        Self::MalformedCall,
        Self::Idle,
        Self::OutQueueFull,
        Self::Registry,
        Self::Shutdown,
    ];

    /// The reason as one word, as in the metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HandshakeDeadline => "handshake_deadline",
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
            Self::Channel(broken) => broken.code(),
            Self::MalformedCall => "malformed_call",
            Self::Idle => "idle",
            Self::OutQueueFull => "out_queue_full",
            Self::Registry => "registry",
            Self::Shutdown => "shutdown",
        }
    }
}

impl End {
    /// What the reason means, in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Closed => "The agent closed it, or the network did.",
            Self::HandshakeDeadline => "TLS, WebSocket and handshake took too long.",
            Self::Tls => "What came was not TLS.",
            Self::WebSocket => "What came inside TLS was not a WebSocket at our path, or broke its rules.",
            Self::Channel(Broken::TooLong) => "A message was too long.",
            Self::Channel(Broken::Malformed) => "A message of the handshake did not have its form.",
            Self::Channel(Broken::NotAuthentic) => "A message was changed, injected, repeated or lost on its way.",
            Self::Channel(Broken::Over) => "The channel had ended before.",
            Self::Channel(Broken::Denied(_)) => "The other end refused our auth.",
            Self::Channel(Broken::Auth(Refusal::BadObject)) => "The auth of the agent was not a valid signed object.",
            Self::Channel(Broken::Auth(Refusal::WrongRole)) => "The auth was that of a rendezvous.",
            Self::Channel(Broken::Auth(Refusal::Relayed)) => "The auth was signed for a different connection.",
            Self::Channel(Broken::Auth(Refusal::WrongRendezvous)) => "The auth named a different rendezvous.",
            Self::Channel(Broken::Auth(Refusal::WrongNetwork)) => "The auth named a different network.",
            Self::Channel(Broken::Auth(Refusal::UnknownVersion)) => "The agent spoke no version that we speak.",
            Self::MalformedCall => "A message was not a call.",
            Self::Idle => "Nothing came for 120 s, or the agent did not read for as long.",
            Self::OutQueueFull => "1 MiB waited to be sent to the agent.",
            Self::Registry => "The registry ended it.",
            Self::Shutdown => "The rendezvous ended.",
        }
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        Self::Channel(broken)
    }
}
