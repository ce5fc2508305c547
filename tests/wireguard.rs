//! A device for `wg`, `wg-quick` and `ip`: the steps by which WireGuard's own `netns.sh` judges an implementation, told anew, and
//! more of what a user of WireGuard relies on without knowing it.
//!
//! The program under test is our binary under the name `overlay-wg`, started as wg-quick starts it. With
//! `OVERLAY_WG_REFERENCE=wireguard-go` in the environment it is that program instead: so each scenario was shown to be right
//! before ours had to pass it. Where the reference cannot pass, the scenario says what it does instead.
//!
//! Left out: what bytes a stranger may send (`hostile`), the socket that `wg` talks to (`uapi`).
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
