//! An MTU that cannot become a black hole: the real binary on paths that carry less, or more, than its host's own
//! links, with routers that report it and routers that do not.
//!
//! `make test` runs eight cells of the matrix, chosen so that every pair of router and family occurs twice.
//! `make matrix` runs all of them on a link of 100 Mbit/s and writes tests/MATRIX.md. `sim/tests/path_mtu` tests the search
//! itself.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real sockets, programs and time are what this is about"
)]

mod lab;

mod mtu {
    mod cell;
    mod road;
    mod streams;

    mod changes;
    mod forged;
    mod jumbo;
    mod loss;
    mod matrix;
    mod sizes;
    mod stock;
}
