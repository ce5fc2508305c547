//! Linux, and nothing else: the TUN device, UDP sockets, netlink, the clock, privileges.
//!
//! This crate wraps everything that the workspace needs from the kernel in safe functions that know nothing about
//! nodes, peers or configuration. Two kinds of code call it. The engine thread reads and writes packets through
//! [`tun`], [`udp`] and [`poll`], without ever blocking or allocating. The slow control tasks use the rest.
//!
//! This is the only crate with `unsafe`: one block for each system call that no safe library offers, mostly in
//! `socket`. If [`rustix`] offers a safe call, that is used.

// This is the one crate that may use the machine's clock, sockets and randomness.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
pub mod confine;
pub mod copies;
pub mod dates;
pub mod descriptors;
pub mod folder;
pub mod handed_over;
pub mod host_name;
pub mod interface;
pub mod line_log;
pub mod memory;
pub mod multicast;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod ping;
pub mod poll;
pub mod ports;
pub mod private;
pub mod privileges;
pub mod process;
pub mod random;
pub mod removal;
pub mod schedule;
pub mod tun;
pub mod udp;
pub mod wall_clock;

mod readable;
#[cfg(test)]
mod refusal;
mod socket;
