//! Memory that was needed once and is free now, given back to the system.
//!
//! Reading a config of ten thousand peers takes tens of megabytes for a moment. The C library keeps what is freed in small
//! pieces, and the engine thread, which allocates from an arena of its own, never gets any of it.

/// Gives every free page back. Costs some milliseconds, so it is for moments after which much is free: a start, a reload.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and only pages that hold no allocation are touched.
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
        // 64 MiB in pieces of 1 KiB, of which one in a hundred stays: nothing at the end of the heap is free.
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
