//! The AEAD alone: the cost of a tunnel if everything around encryption were free.
//!
//! One full packet is sealed and opened again, in place and with a hot cache, by the library and in the mode that
//! sessions use. AES-256-GCM is measured for comparison only, because WireGuard has no choice of ciphers.

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::series::median;

/// Length of a full inner packet in bytes. It is not padded, since padding never exceeds the MTU.
const PACKET_LEN: usize = 1420;
/// How many packets one measurement takes: about 20 to 100 ms.
const PACKETS: u32 = 50_000;
/// How many times each cipher is measured, in turn. The median counts.
const REPETITIONS: usize = 7;
const BYTES_PER_GB: f64 = 1e9;

/// CPU time for encryption alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AeadFigures {
    /// Length in bytes of the packet that is sealed and opened, without the tag.
    pub(crate) packet_bytes: usize,
    /// The cipher that WireGuard uses.
    pub(crate) chacha20_poly1305: AeadCost,
    /// For comparison.
    pub(crate) aes_256_gcm: AeadCost,
}

/// The cost of one cipher.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct AeadCost {
    /// Encrypting and authenticating one packet.
    pub(crate) seal_nanoseconds_per_packet: f64,
    /// Verifying and decrypting one packet.
    pub(crate) open_nanoseconds_per_packet: f64,
    /// Sealing and opening 10^9 bytes of inner packets.
    pub(crate) cpu_seconds_per_gb: f64,
}

/// Measures on this thread. Takes about two seconds.
pub(crate) fn measure() -> AeadFigures {
    let ciphers = [&CHACHA20_POLY1305, &AES_256_GCM];
    let mut runs = [Vec::new(), Vec::new()];
    for cipher in ciphers {
        Run::of(cipher); // warms up
    }
    for _ in 0..REPETITIONS {
        for (cipher, runs) in ciphers.iter().zip(&mut runs) {
            runs.push(Run::of(cipher));
        }
    }
    let [chacha20_poly1305, aes_256_gcm] = runs.map(|runs| AeadCost::of(&runs));
    AeadFigures { packet_bytes: PACKET_LEN, chacha20_poly1305, aes_256_gcm }
}

impl AeadCost {
    fn of(runs: &[Run]) -> Self {
        let middle = |figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect()).unwrap_or_default();
        Self {
            seal_nanoseconds_per_packet: middle(|run| run.sealed) * 1e9,
            open_nanoseconds_per_packet: middle(|run| run.sealed_and_opened - run.sealed) * 1e9,
            cpu_seconds_per_gb: middle(|run| run.sealed_and_opened) * BYTES_PER_GB / PACKET_LEN as f64,
        }
    }
}

/// CPU seconds for each packet.
struct Run {
    sealed: f64,
    sealed_and_opened: f64,
}

impl Run {
    fn of(cipher: &'static Algorithm) -> Self {
        let key = LessSafeKey::new(UnboundKey::new(cipher, &[7; 32]).expect("both take 32 bytes"));
        let mut packet = [0x5a; PACKET_LEN + 16];
        let sealed = each(|counter| seal(&key, counter, &mut packet));
        let sealed_and_opened = each(|counter| {
            seal(&key, counter, &mut packet);
            let opened = key.open_in_place(nonce(counter), Aad::empty(), &mut packet).expect("what was just sealed");
            assert_eq!(opened.len(), PACKET_LEN);
        });
        Self { sealed, sealed_and_opened }
    }
}

fn seal(key: &LessSafeKey, counter: u64, packet: &mut [u8; PACKET_LEN + 16]) {
    let (plain, tag) = packet.split_at_mut(PACKET_LEN);
    let made = key.seal_in_place_separate_tag(nonce(counter), Aad::empty(), plain).expect("a packet is short");
    tag.copy_from_slice(made.as_ref());
}

/// WireGuard's nonce: four zero bytes, then the counter.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// The mean CPU time of this thread for one call, in seconds.
fn each(mut act: impl FnMut(u64)) -> f64 {
    let began = cpu_seconds();
    for counter in 0..u64::from(PACKETS) {
        act(counter);
    }
    (cpu_seconds() - began) / f64::from(PACKETS)
}

fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
