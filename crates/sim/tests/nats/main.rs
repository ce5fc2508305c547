//! NATs in the simulator: what each kind does, how mappings end, the conntrack trap, and between which kinds a direct path
//! can exist.

mod delays;
mod ground;
mod kinds;
mod mappings;
mod nodes;
mod trap;
mod traversal;
