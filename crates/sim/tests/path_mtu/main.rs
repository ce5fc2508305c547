//! The MTU of a path in every situation that a path gets into, in virtual time: it falls, rises, loses packets, carries
//! less than IPv6 asks for, has a stock WireGuard at its end, or somebody who lies.
//!
//! `tests/mtu.rs` beside this folder is the matrix of paths that stay as they are.

mod changes;
mod falls;
mod flow;
mod hostile;
mod neighbours;
mod rises;
mod scene;
mod small_ipv6;
mod stock;
mod stock_peer;
