//! The client: alone with a hostile rendezvous, and in a world with a real one.

mod alone;
mod churn;
mod entries;
mod filters;
mod membership;
mod pair;
mod peers;
mod rogue;
