//! The real binary under attack: a daemon in a namespace, and a peer in another one that was written by hand from the
//! WireGuard paper, shares no code with the daemon's sessions, and sends what no honest peer would.
//!
//! Each attack is judged by three things: what the daemon wrote into its TUN (nothing), which drop counter moved (the one
//! with its name, by exactly as much, and no other), and whether an honest packet over the same session is answered
//! afterwards. Beside every attack stands an honest packet of the same shape that does arrive.
//!
//! Left out: what only time brings about, such as keys that expire. The simulator has tests of that.
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
