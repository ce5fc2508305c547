//! See `overlay_sim::fuzz::objects`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| overlay_sim::fuzz::objects(data));
