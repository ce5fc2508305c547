//! The queue between the network stack and the reader of a TUN device, and the packets that the kernel drops when it is
//! full.

use std::io;

/// The file with the kernel's counters for every interface of the calling thread's network namespace. `/sys` would show
/// the namespace that it was mounted in.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// The column of `tx_dropped`. It follows the eight receive columns and transmitted bytes, packets and errors.
const TX_DROPPED: usize = 11;

/// How many packets the kernel dropped instead of handing them to the reader of the interface `name`, mostly because
/// earlier packets had not been read yet. `None` if the interface does not exist.
///
/// # Errors
/// Fails if `/proc` is not mounted.
pub fn dropped_packets(name: &str) -> io::Result<Option<u64>> {
    Ok(tx_dropped(&std::fs::read_to_string(COUNTERS)?, name))
}

fn tx_dropped(counters: &str, name: &str) -> Option<u64> {
    let of_name = |line: &'_ str| {
        let (first, rest) = line.rsplit_once(':')?;
        (first.trim() == name).then(|| rest.split_whitespace().nth(TX_DROPPED)?.parse().ok())?
    };
    counters.lines().find_map(of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  108420    1245    0    0    0     0          0         0   108420    1245    0    0    0     0       0          0
  tun0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
 tun00:       0       0    0    0    0     0          0         0        0       0    0  999    0     0       0          0
";

    #[test]
    fn the_counter_is_the_fourth_of_what_is_transmitted() {
        assert_eq!(tx_dropped(TEXT, "tun0"), Some(12));
        assert_eq!(tx_dropped(TEXT, "lo"), Some(0));
    }

    #[test]
    fn an_interface_that_is_not_there_has_none() {
        for name in ["tun", "un0", "tun0:", "", "face |bytes"] {
            assert_eq!(tx_dropped(TEXT, name), None, "{name}");
        }
        assert_eq!(dropped_packets("nobody-has-this").unwrap(), None);
        assert_eq!(dropped_packets("lo").unwrap(), Some(0));
    }
}
