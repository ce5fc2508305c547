//! The session plane speaks WireGuard: handshakes and the gate before them, the session engine and the paper's timers, keys
//! and receiver indices.

pub(crate) mod answered;
pub(crate) mod calls;
mod clock;
mod engine;
pub(crate) mod gate;
mod generation;
pub(crate) mod handshake;
pub(crate) mod indices;
pub(crate) mod local_key;
pub(crate) mod outcome;
pub(crate) mod preshared;
pub(crate) mod replays;
mod ring;
pub(crate) mod seam;
mod source_limit;
pub(crate) mod timers;
pub(crate) mod tunnel;
