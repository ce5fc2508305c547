//! How agents reach each other, with the real binary behind real routers: through a relay at once, directly where that can be,
//! and not over a path that has died.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs and seconds are what this is about"
)]

mod lab;

mod paths {
    mod bulk;
    mod failover;
    mod pairs;
    mod shown;
    mod together;
    mod uplinks;
}
