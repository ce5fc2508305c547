//! The state that `up` creates on the host. It exists before it is needed, and is restored if another program removes
//! it. While a /0 is in force, two independent locks keep everything inside the tunnel, so losing either lets nothing
//! out in clear.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "packets are counted on real wires, in real time"
)]

mod lab;

#[path = "host_state/capture.rs"]
mod capture;
#[path = "host_state/flood.rs"]
mod flood;
#[path = "host_state/leaks.rs"]
mod leaks;
#[path = "host_state/locks.rs"]
mod locks;
#[path = "host_state/own_bridges.rs"]
mod own_bridges;
#[path = "host_state/restored.rs"]
mod restored;
#[path = "host_state/start.rs"]
mod start;
#[path = "host_state/world.rs"]
mod world;
