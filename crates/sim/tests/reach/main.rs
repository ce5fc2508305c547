//! Whether a peer answers, and where it is called if it does not: servers that move, dead address families, names that
//! lie.

#[path = "../path_mtu/stock.rs"]
#[allow(dead_code, reason = "the stock peer can do more than is asked of it here")]
mod stock;

mod families;
mod idle;
mod moves;
mod name_service;
mod silence;
