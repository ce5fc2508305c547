//! The sizes that links really have.
//!
//! A search that tries these first ends sooner than one that halves blindly: nearly every path carries one of them, and
//! a size that carries is then proven exact by one failure a little above it.

/// Inner sizes, ascending: the MTU of jumbo Ethernet (9000), FDDI (4352), 802.11 (2304), Ethernet (1500), PPPoE (1492),
/// GRE and IP in IP (1480), L2TP (1460, 1454), a WireGuard tunnel (1420), mobile and cloud networks (1400, 1380), IPsec
/// (1368, 1300, 1296) and the least of IPv6 (1280), each less 80 and less 60 for what is around a packet.
const PLATEAUS: [usize; 25] = [
    1200, 1216, 1220, 1236, 1240, 1288, 1300, 1308, 1320, 1340, 1360, 1374, 1380, 1394, 1400, 1412, 1420, 1432, 1440,
    2224, 2244, 4272, 4292, 8920, 8940,
];

/// Whether a link's MTU is exactly this much inside.
pub(super) fn is_one(size: usize) -> bool {
    PLATEAUS.binary_search(&size).is_ok()
}

/// The middle one of those that lie between, `low` and `high` themselves excluded.
pub(super) fn between(low: usize, high: usize) -> Option<usize> {
    let from = PLATEAUS.partition_point(|size| *size <= low);
    let to = PLATEAUS.partition_point(|size| *size < high);
    PLATEAUS.get(from..to).and_then(|sizes| sizes.get(sizes.len() / 2)).copied()
}
