//! Captures what crosses a wire outside the tunnel: tcpdump writes a file, which is read while it grows.

use std::fs;
use std::path::PathBuf;

use crate::lab::{Host, Process, SHORTLY, within};

/// A capture. Dropping it stops it.
pub(super) struct Capture {
    _tcpdump: Process,
    file: PathBuf,
}

/// A UDP datagram in a capture.
struct Datagram {
    source_port: u16,
    contents: Vec<u8>,
}

/// Starts a capture on a link of a host. It shows everything from now on that matches the filter.
#[track_caller]
pub(super) fn start(host: &Host, link: &str, filter: &str) -> Capture {
    let file = host.dir().join(format!("{link}.pcap"));
    let _ = fs::remove_file(&file);
    // Each packet is written at once. The filter also includes what a thief sends.
    let line = format!(
        "tcpdump -n -p -U --immediate-mode -Q in -s 4096 -i {link} -w {} {filter} or udp port 40000",
        file.display()
    );
    let tcpdump = host.spawn(&line);
    within(SHORTLY, "tcpdump to listen", || tcpdump.stderr().contains("listening on").then_some(()));
    Capture { _tcpdump: tcpdump, file }
}

impl Capture {
    /// The UDP datagrams from this source port so far, in both families.
    pub(super) fn datagrams_from(&self, port: u16) -> Vec<Vec<u8>> {
        let file = fs::read(&self.file).unwrap_or_default();
        let mut rest = file.get(24..).unwrap_or_default();
        let mut found = Vec::new();
        // A record: seconds, microseconds, captured length and original length in this machine's byte order, then the
        // frame.
        while let Some((head, after)) = rest.split_at_checked(16) {
            let kept = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
            let Some((frame, after)) = after.split_at_checked(kept) else { break };
            found.extend(datagram(frame));
            rest = after;
        }
        found.into_iter().filter(|datagram| datagram.source_port == port).map(|datagram| datagram.contents).collect()
    }
}

/// The UDP datagram in an Ethernet frame, if there is one without IP options or extension headers.
fn datagram(frame: &[u8]) -> Option<Datagram> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let (protocol, udp) = match [ethernet[12], ethernet[13]] {
        [0x08, 0x00] => (*packet.get(9)?, packet.get(20..)?),
        [0x86, 0xdd] => (*packet.get(6)?, packet.get(40..)?),
        _ => return None,
    };
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    let is_udp = protocol == 17;
    is_udp.then_some(())?;
    Some(Datagram { source_port: u16::from_be_bytes([udp[0], udp[1]]), contents: udp.get(8..length)?.to_vec() })
}
