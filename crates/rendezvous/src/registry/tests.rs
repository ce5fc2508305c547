//! The registry, called directly.

mod finding;
mod hostile;
mod ledger;
mod letters;
mod membership;
mod operator;
mod presence;
mod registering;
mod restarts;
mod shared;
