//! See `overlay_sim::fuzz::ip_packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| overlay_sim::fuzz::ip_packet(data));
