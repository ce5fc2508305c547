//! The sizes that links really have.
//!
//! A search that tries these first ends sooner than one that halves blindly. Nearly every path carries one of them, and one
//! failure a little above a size that carries then shows that it is exact.

/// Inner sizes, ascending: the MTU of jumbo Ethernet (9000), FDDI (4352), 802.11 (2304), Ethernet (1500), PPPoE (1492), GRE
/// and IP in IP (1480), L2TP (1460, 1454), a WireGuard tunnel (1420), mobile and cloud networks (1400, 1380), IPsec (1368,
/// 1300, 1296) and the minimum of IPv6 (1280). Each is listed less 80 and less 60 bytes for the headers around a
/// packet.
const PLATEAUS: [usize; 25] = [
    1200, 1216, 1220, 1236, 1240, 1288, 1300, 1308, 1320, 1340, 1360, 1374, 1380, 1394, 1400, 1412, 1420, 1432, 1440,
    2224, 2244, 4272, 4292, 8920, 8940,
];

/// Whether this inner size matches a link's MTU exactly.
pub(super) fn is_one(size: usize) -> bool {
    PLATEAUS.binary_search(&size).is_ok()
}

/// The middle one of the sizes between `low` and `high`, excluding both.
pub(super) fn between(low: usize, high: usize) -> Option<usize> {
    let from = PLATEAUS.partition_point(|size| *size <= low);
    let to = PLATEAUS.partition_point(|size| *size < high);
    PLATEAUS.get(from..to).and_then(|sizes| sizes.get(sizes.len() / 2)).copied()
}
