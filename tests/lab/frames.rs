//! What crosses a wire: tcpdump writes a file, which is read while it grows.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Host, Process, SHORTLY, within};

/// A capture on one link. Dropping it stops it.
pub struct Frames {
    _tcpdump: Process,
    file: PathBuf,
}

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its source.
    pub source: SocketAddr,
    /// Its destination.
    pub target: SocketAddr,
    /// What it carries.
    pub contents: Vec<u8>,
}

impl Frames {
    /// Starts a capture on a link of a host. It shows everything from now on. `options` and `filter` are tcpdump's.
    #[track_caller]
    pub fn start(host: &Host, link: &str, options: &str, filter: &str) -> Frames {
        let file = host.dir().join(format!("{link}.pcap"));
        let _ = fs::remove_file(&file);
        // Each packet is written at once.
        let line =
            format!("tcpdump -n -p -U --immediate-mode -s 4096 {options} -i {link} -w {} {filter}", file.display());
        let tcpdump = host.spawn(&line);
        within(SHORTLY, "tcpdump to listen", || tcpdump.stderr().contains("listening on").then_some(()));
        Frames { _tcpdump: tcpdump, file }
    }

    /// The Ethernet frames so far.
    pub fn all(&self) -> Vec<Vec<u8>> {
        let file = fs::read(&self.file).unwrap_or_default();
        let mut rest = file.get(24..).unwrap_or_default();
        let mut found = Vec::new();
        // A record: seconds, microseconds, captured length and original length in this machine's byte order, then the
        // frame.
        while let Some((head, after)) = rest.split_at_checked(16) {
            let kept = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
            let Some((frame, after)) = after.split_at_checked(kept) else { break };
            found.push(frame.to_vec());
            rest = after;
        }
        found
    }

    /// The UDP datagrams so far, in both families.
    pub fn datagrams(&self) -> Vec<Datagram> {
        self.all().iter().filter_map(|frame| datagram(frame)).collect()
    }
}

/// The UDP datagram in an Ethernet frame, if there is one without IP options or extension headers.
pub fn datagram(frame: &[u8]) -> Option<Datagram> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let (protocol, ends, udp) = match [ethernet[12], ethernet[13]] {
        [0x08, 0x00] => (*packet.get(9)?, both::<4>(packet.get(12..20)?)?, packet.get(20..)?),
        [0x86, 0xdd] => (*packet.get(6)?, both::<16>(packet.get(8..40)?)?, packet.get(40..)?),
        _ => return None,
    };
    let field = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    if protocol != 17 {
        return None;
    }
    let [source, target] = ends;
    Some(Datagram {
        source: (source, field(0)?).into(),
        target: (target, field(2)?).into(),
        contents: udp.get(8..usize::from(field(4)?))?.to_vec(),
    })
}

/// Source and destination, which follow each other.
fn both<const N: usize>(bytes: &[u8]) -> Option<[IpAddr; 2]>
where
    IpAddr: From<[u8; N]>,
{
    let (source, target) = bytes.split_at_checked(N)?;
    let address = |bytes: &[u8]| <[u8; N]>::try_from(bytes).ok().map(IpAddr::from);
    Some([address(source)?, address(target)?])
}
