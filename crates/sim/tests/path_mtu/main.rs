//! The MTU of a path in every situation that a path gets into, in virtual time: it stays what it is, falls, rises, loses
//! packets, carries less than IPv6 asks for, has a stock WireGuard at its end, or somebody who lies.

mod changes;
mod falls;
mod finds;
mod flow;
mod hostile;
mod neighbours;
mod pace;
mod rises;
mod scene;
mod small_ipv6;
mod speaker;
mod stock;
mod stock_peer;
