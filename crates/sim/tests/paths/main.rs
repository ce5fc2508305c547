//! Paths in the simulator: agents behind NATs find each other through a relay, then directly where that can be, and leave what
//! stops working.

mod bulk;
mod carrier;
mod counting;
mod failover;
mod ground;
mod many;
mod matrix;
mod neighbours;
mod reported;
mod rest;
mod returns;
mod simultaneous;
mod theorem;
mod victims;
