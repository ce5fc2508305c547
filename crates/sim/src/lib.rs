//! A network in memory with virtual time, for the scenarios of the node.
pub mod initiator;
mod noise;
