//! The rendezvous, where agents find each other, and the client's side of it, as pure state machines.
//!
//! Bytes, calls and the time go in; bytes, answers, pushes and the next deadline come out. There is no socket, no clock,
//! no thread and no database driver here: `server` and `daemon` carry these between a state machine and the world, and
//! `sim` runs them in memory.
//!
//! A rendezvous is believed nothing. Every object that passes through it is signed by the agent that it speaks for, or
//! sealed to the agent that may read it (`overlay_wire::signed`). It can refuse service. It cannot redirect, read
//! endpoints, or change what is trusted.

pub mod channel;
pub mod client;
pub mod courier;
pub mod lan;
pub mod ledger;
pub mod letter;
mod mailbox;
pub mod netcheck;
pub mod now;
pub mod preshared;
pub mod protocol;
pub mod quota;
pub mod registry;
pub mod relay;
#[cfg(test)]
mod scene;
pub mod sealed;
pub mod store;
pub mod stun;
