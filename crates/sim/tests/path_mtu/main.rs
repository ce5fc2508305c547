//! The path MTU in every situation, in virtual time: the path stays the same, falls, rises, loses packets, carries less
//! than IPv6 requires, or ends at a stock WireGuard or at a peer that lies.

mod changes;
mod control_peer;
mod falls;
mod finds;
mod flow;
mod hostile;
mod neighbours;
mod pace;
mod rises;
mod scene;
mod small_ipv6;
mod stock;
mod stock_peer;
