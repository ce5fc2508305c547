//! See `overlay_sim::fuzz::stun`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| overlay_sim::fuzz::stun(data));
