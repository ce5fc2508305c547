//! `NAME.flows`: what a daemon knows about running flows when it ends in order, for its successor.
//!
//! Without it, a restart would cut the connections that we opened to peers with an allow list, because nothing on the
//! wire proves who opened them. The file is readable by root alone, and is read once and removed. It is valid only on
//! the boot it was written in, and its times are those of the boot clock. A daemon that was killed hands over nothing.
//!
//! The file has one line for the boot, then one line for each peer, followed by one line for each prefix of that
//! peer, for each prefix of a different peer inside those, and for each flow.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use overlay_core::{Instant, KnownFlow, PeerFlows, TcpStage};

use crate::engine::Former;
use crate::keys::{decode_public, encode_public};

/// How many flows and prefixes are handed over, about 6 MB. A peer whose own no longer fit is skipped.
const MAX_FLOWS: usize = 65_536;
/// The longest file that is read, in bytes.
const MAX_LEN: u64 = 16 << 20;
/// A machine that has run for less than this and has no such file has just started. No flow can then be older than this
/// daemon.
const JUST_BOOTED: Duration = Duration::from_secs(10 * 60);
const NAME: &str = "overlay-flows";
/// The present format. In format 2, a flow has no stage other than "established", and no time of our last packet. Format 1
/// has no prefixes either. What it says is complete may not be: nobody knows of which addresses.
const FORMAT: u8 = 3;

/// Writes the flows for the successor. Writes nothing if no peer has an allow list.
///
/// # Errors
/// If the file cannot be written. It does not exist then.
pub fn write(path: &Path, peers: &[PeerFlows]) -> io::Result<()> {
    remove(path)?;
    if peers.is_empty() {
        return Ok(());
    }
    // A symbolic link in its place is not followed, because the file must be new.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|file| print(file, &boot()?, peers));
    written.inspect_err(|_| _ = remove(path))
}

/// Reads the handed-over flows and removes the file. `was_killed` says that the previous daemon left other things
/// behind.
pub fn take(path: &Path, was_killed: bool) -> Former {
    let read = read(path);
    let removed = remove(path);
    match read.and_then(|flows| removed.map(|()| flows)) {
        Ok(Some(flows)) => Former { is_first: false, flows },
        Ok(None) => {
            let is_first = !was_killed && overlay_os::clock::boottime() < JUST_BOOTED;
            Former { is_first, flows: Vec::new() }
        }
        Err(error) => {
            tracing::warn!(%error, "the flows in {} are not taken over", path.display());
            Former::default()
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn print(file: File, boot: &str, peers: &[PeerFlows]) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    writeln!(file, "{NAME} {FORMAT} {boot}")?;
    let mut room = MAX_FLOWS;
    for PeerFlows { peer, flows, is_complete, prefixes, holes } in peers {
        let len = flows.len() + prefixes.len() + holes.len();
        if len > room {
            continue;
        }
        room -= len;
        writeln!(file, "peer {} {}", encode_public(peer), if *is_complete { "complete" } else { "partial" })?;
        for (word, nets) in [("prefix", prefixes), ("hole", holes)] {
            for net in nets {
                writeln!(file, "{word} {net}")?;
            }
        }
        for flow in flows {
            let KnownFlow { protocol, ours, theirs, is_ours, tcp, last, last_ours } = flow;
            let port = |port: Option<u16>| port.map_or_else(|| "-".to_owned(), |port| port.to_string());
            writeln!(
                file,
                "flow {protocol} {} {} {} {} {} {} {} {}",
                ours.0,
                port(ours.1),
                theirs.0,
                port(theirs.1),
                if *is_ours { "ours" } else { "theirs" },
                word(*tcp),
                last.since_start().as_nanos(),
                last_ours.since_start().as_nanos()
            )?;
        }
    }
    file.flush()
}

/// Reads the file. Returns `None` if there is no file or if it was written in an earlier boot.
fn read(path: &Path) -> io::Result<Option<Vec<PeerFlows>>> {
    let file = match overlay_os::private::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = BufReader::new(file.take(MAX_LEN)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let boot = boot()?;
    let Some(format) = format_of(&first, &boot) else { return Ok(None) };
    let has_prefixes = format >= 2;
    if !(1..=FORMAT).contains(&format) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its format is {format}")));
    }
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a line is malformed");
    let mut peers: Vec<PeerFlows> = Vec::new();
    for line in lines {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        match (&words[..], peers.last_mut()) {
            (["peer", key, extent @ ("complete" | "partial")], _) => peers.push(PeerFlows {
                peer: decode_public(key).map_err(|_| malformed())?,
                flows: Vec::new(),
                is_complete: has_prefixes && *extent == "complete",
                prefixes: Vec::new(),
                holes: Vec::new(),
            }),
            (["prefix", net], Some(peer)) => peer.prefixes.push(net.parse().map_err(|_| malformed())?),
            (["hole", net], Some(peer)) => peer.holes.push(net.parse().map_err(|_| malformed())?),
            (["flow", words @ ..], Some(peer)) => peer.flows.push(parse(words).ok_or_else(malformed)?),
            _ => return Err(malformed()),
        }
    }
    Ok(Some(peers))
}

/// Returns the format that the first line names, if it names this boot.
fn format_of(line: &str, boot: &str) -> Option<u8> {
    let (format, of) = line.strip_prefix(NAME)?.strip_prefix(' ')?.split_once(' ')?;
    format.parse().ok().filter(|_| of == boot)
}

fn word(tcp: Option<TcpStage>) -> &'static str {
    match tcp {
        None => "-",
        Some(TcpStage::Opening) => "opening",
        Some(TcpStage::Established) => "established",
        Some(TcpStage::Closing) => "closing",
    }
}

fn parse(words: &[&str]) -> Option<KnownFlow> {
    let &[protocol, ours, our_port, theirs, their_port, opener, stage, last, ref rest @ ..] = words else {
        return None;
    };
    let last_ours = match rest {
        [] => last,
        [last_ours] => last_ours,
        _ => return None,
    };
    let stages = [None, Some(TcpStage::Opening), Some(TcpStage::Established), Some(TcpStage::Closing)];
    let time = |text: &str| Some(Instant::from_start(Duration::from_nanos(text.parse().ok()?)));
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let port = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
    Some(KnownFlow {
        protocol: protocol.parse().ok()?,
        ours: (address(ours)?, port(our_port)?),
        theirs: (address(theirs)?, port(their_port)?),
        is_ours: matches!(opener, "ours"),
        tcp: stages.into_iter().find(|tcp| word(*tcp) == stage)?,
        last: time(last)?,
        last_ours: time(last_ours)?,
    })
}

/// Returns the id of this boot of the machine.
fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use overlay_core::PeerKey;

    use super::*;

    fn flow(port: u16) -> KnownFlow {
        KnownFlow {
            protocol: 6,
            ours: ([10, 77, 0, 1].into(), Some(port)),
            theirs: ("fd00::2".parse().expect("an address"), None),
            is_ours: port.is_multiple_of(2),
            tcp: [None, Some(TcpStage::Established), Some(TcpStage::Closing)][usize::from(port % 3)],
            last: Instant::from_start(Duration::from_nanos(1_234_567_890_123)),
            last_ours: Instant::from_start(Duration::from_nanos(1_234_567_890_120)),
        }
    }

    fn bare(n: u8) -> PeerFlows {
        let peer = PeerKey([n; 32]);
        PeerFlows { peer, flows: Vec::new(), is_complete: true, prefixes: Vec::new(), holes: Vec::new() }
    }

    fn some() -> Vec<PeerFlows> {
        vec![
            PeerFlows {
                peer: PeerKey([7; 32]),
                flows: vec![flow(1), flow(2)],
                is_complete: true,
                prefixes: vec!["fd00::/64".parse().expect("a prefix")],
                holes: vec!["fd00::7/128".parse().expect("a prefix")],
            },
            PeerFlows { flows: Vec::new(), is_complete: false, ..bare(9) },
        ]
    }

    #[test]
    fn what_is_written_for_this_user_alone_is_read_once() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("ov0.flows");
        write(&path, &some()).expect("writable");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let taken = take(&path, false);
        assert_eq!((taken.is_first, taken.flows), (false, some()));
        assert!(!path.exists());
        assert!(take(&path, true).flows.is_empty() && !take(&path, true).is_first);
        write(&path, &[]).expect("nothing to do");
        assert!(!path.exists());
    }

    #[test]
    fn the_lines_of_the_file() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("ov0.flows");
        write(&path, &some()).expect("writable");
        let text = fs::read_to_string(&path).expect("there");
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "peer BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc= complete",
                "prefix fd00::/64",
                "hole fd00::7/128",
                "flow 6 10.77.0.1 1 fd00::2 - theirs established 1234567890123 1234567890120",
                "flow 6 10.77.0.1 2 fd00::2 - ours closing 1234567890123 1234567890120",
                "peer CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk= partial",
            ]
        );
    }

    #[test]
    fn a_file_of_another_boot_of_others_or_of_nonsense_is_not_believed() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("ov0.flows");
        let text = |path: &Path| {
            write(path, &some()).expect("writable");
            fs::read_to_string(path).expect("there")
        };
        let good = text(&path);
        let boot = boot().expect("/proc is mounted");
        for bad in [
            good.replace(&boot, "another"),
            good.replace("flow 6", "flow 600"),
            good.replace("peer", "who"),
            "x".into(),
        ] {
            fs::write(&path, bad).expect("writable");
            assert!(take(&path, true).flows.is_empty());
            assert!(!path.exists());
        }
        text(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("our own");
        assert!(take(&path, true).flows.is_empty());
        let elsewhere = directory.path().join("elsewhere");
        text(&elsewhere);
        symlink(&elsewhere, &path).expect("a folder of ours");
        assert!(take(&path, true).flows.is_empty());
        assert!(elsewhere.exists() && !path.exists(), "the link went, not what it names");
    }

    #[test]
    fn files_of_earlier_daemons_are_read_and_those_of_later_ones_are_not() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("ov0.flows");
        write(&path, &some()).expect("writable");
        let text = fs::read_to_string(&path).expect("there");
        let in_format = |format: u8, text: &str| {
            let text = text.replace("overlay-flows 3", &format!("overlay-flows {format}"));
            write(&path, &some()).expect("writable");
            fs::write(&path, text).expect("writable");
            let taken = take(&path, false);
            assert!(!taken.is_first, "another daemon ran in this boot");
            taken.flows
        };
        // Format 2 had one time for each flow.
        let earlier = text.replace(" 1234567890120", "").replace("closing", "-");
        let mut expected = some();
        for flow in &mut expected[0].flows {
            flow.last_ours = flow.last;
            flow.tcp = flow.tcp.filter(|tcp| *tcp != TcpStage::Closing);
        }
        assert_eq!(in_format(2, &earlier), expected);
        // Format 1 is complete for no peer.
        expected[0].is_complete = false;
        assert_eq!(in_format(1, &earlier), expected);
        assert_eq!(in_format(4, &text), []);
    }

    #[test]
    fn at_most_65536_flows_are_handed_over() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("ov0.flows");
        let peer = |n| PeerFlows { flows: vec![flow(1); 4_096], ..bare(n + 64u8) };
        write(&path, &(0..20).map(peer).collect::<Vec<_>>()).expect("writable");
        let taken = take(&path, true).flows;
        assert_eq!((taken.len(), taken.iter().map(|peer| peer.flows.len()).sum::<usize>()), (16, MAX_FLOWS));
    }
}
