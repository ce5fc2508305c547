//! Returns memory that is no longer needed to the system.
//!
//! Reading a config of ten thousand peers takes tens of megabytes for a moment. The C library keeps freed memory that
//! was allocated in small pieces, and the engine thread allocates from an arena of its own, so it could never reuse
//! that memory.

/// Returns every free page to the system. This takes several milliseconds, so call it only when much memory has been
/// freed: after a start or a reload.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer, and it touches only pages that hold no allocation.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line that every kernel writes");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_lies_free_between_allocations_goes_back_to_the_system() {
        // 64 MiB in pieces of 1 KiB, of which one in a hundred stays allocated, so the end of the heap is not free.
        let mut pieces: Vec<Option<Vec<u8>>> = (0..64 << 10).map(|_| Some(vec![1; 1 << 10])).collect();
        for (number, piece) in pieces.iter_mut().enumerate() {
            if number % 100 != 0 {
                *piece = None;
            }
        }
        let before = resident_kib();
        give_back();
        let after = resident_kib();
        assert!(before.saturating_sub(after) > 32 << 10, "{before} KiB before, {after} KiB after");
        drop(pieces);
    }
}
