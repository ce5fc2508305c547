//! A rendezvous of several processes over one etcd cluster: the real binary, real etcd with three members.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs and seconds are what this is about"
)]

mod lab;

#[path = "cluster/compose.rs"]
mod compose;
#[path = "unit/machine.rs"]
mod machine;
#[path = "cluster/moving.rs"]
mod moving;
#[path = "cluster/outages.rs"]
mod outages;
#[path = "cluster/shared.rs"]
mod shared;
#[path = "cluster/under_systemd.rs"]
mod under_systemd;
#[path = "cluster/world.rs"]
mod world;
