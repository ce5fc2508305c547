//! Randomness from the kernel.
//!
//! All keys and seeds come from here.

use std::io;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `buffer` from the kernel's generator. At early boot it waits until the generator is seeded.
///
/// # Errors
/// Fails only if the system call is forbidden, for example by a seccomp filter.
pub fn fill(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match getrandom(&mut *buffer, GetRandomFlags::empty()) {
            Ok(filled) => buffer = &mut buffer[filled..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_long_buffer_is_filled() {
        // 4 MiB is far more than one call returns without a chance of being interrupted.
        let mut buffer = vec![0; 4 << 20];
        fill(&mut buffer).unwrap();
        for chunk in buffer.chunks(32) {
            assert_ne!(chunk, [0; 32], "32 zero bytes in a row have a probability of 2^-256");
        }
    }

    #[test]
    fn two_fills_differ() {
        let (mut one, mut other) = ([0; 32], [0; 32]);
        fill(&mut one).unwrap();
        fill(&mut other).unwrap();
        assert_ne!(one, other);
    }
}
