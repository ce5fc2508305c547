//! See `overlay_sim::fuzz::node_stranger`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| overlay_sim::fuzz::node_stranger(data));
