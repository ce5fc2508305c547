//! The lab's routers and its Internet, with plain UDP sockets: every kind of NAT does what the simulator's table says, pairs
//! of them meet exactly where `traversable` says so, mappings end in all the ways that tests need, and delays are exact.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real sockets, programs and time are what this is about"
)]

mod lab;

mod nats {
    mod delays;
    mod kinds;
    mod mappings;
    mod pairs;
}
