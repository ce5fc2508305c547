//! The real binary under attack: a daemon in one namespace, and a peer in a second one. The peer was written by hand
//! from the WireGuard paper, shares no code with the daemon's sessions, and sends what no honest peer would.
//!
//! Each attack is judged by three things: what the daemon wrote to its TUN (nothing), which drop counter moved (exactly
//! the right one, by the right amount), and whether an honest packet over the same session is answered afterwards. Each
//! attack has an honest counterpart of the same shape that does arrive.
//!
//! Left out: effects that need time to pass, such as keys that expire. The simulator tests those.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real sockets and threads are what this is about"
)]

mod lab;

mod hostile {
    mod bytes;
    mod capture;
    mod flood;
    mod siege;
    mod wire;

    mod allowlist;
    mod extensions;
    mod fragments;
    mod handshakes;
    mod host_configuration;
    mod inner;
    mod messages;
    mod pace;
    mod trains;
}
