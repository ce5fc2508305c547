//! A device for `wg`, `wg-quick` and `ip`. The scenarios are the steps of WireGuard's own `netns.sh`, rewritten, and
//! more behaviour that WireGuard users rely on without knowing it.
//!
//! The program under test is our binary under the name `overlay-wg`, started like wg-quick starts it. With
//! `OVERLAY_WG_REFERENCE=wireguard-go` in the environment it is that program instead. In this way each scenario was
//! shown to be correct before ours had to pass it. If the reference cannot pass, the scenario says what it does
//! instead.
//!
//! Left out: hostile datagrams (`hostile`), and the socket that `wg` uses (`uapi`).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real sockets, programs and time are what this is about"
)]

mod lab;

mod wireguard {
    mod capture;
    mod device;
    mod worlds;

    mod bulk;
    mod configuration;
    mod cryptokey_routing;
    mod keys;
    mod lifecycle;
    mod marks;
    mod nat;
    mod nested;
    mod one_way;
    mod outages;
    mod quick;
    mod roaming;
    mod sticky;
    mod traffic;
}
