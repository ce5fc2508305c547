//! Relays in the simulator: agents reach each other through them, as long as they live, and lose nothing but availability to
//! one that lies.

mod candidates;
mod hostile;
mod lives;
mod through;
