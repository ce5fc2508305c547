//! `NAME.flows`: what a daemon leaves to the next one of its name on the same boot.
//!
//! The file exists from the start of the first daemon on. While a daemon runs it is a bare *mark*, which says that a
//! daemon ran on this boot. So the next one knows that flows may be older than it is, also if this one is killed. A
//! daemon that ends in order replaces the mark by what it knows. The next one reads that once, and puts a mark in its
//! place.
//!
//! Without the flows, a restart would cut the connections that we opened to peers with an allow list, because nothing on
//! the wire proves who opened them. Without the initiations, somebody who recorded one could send it again after a
//! restart, and the peer's endpoint would move. Without the timestamp, peers would take our handshakes for replays after
//! our clock was set back.
//!
//! The file is readable by root alone. It is valid only on the boot it was written in, and the times of flows are those
//! of the boot clock.
//!
//! The file has one line for the boot, and one for our latest handshake timestamp in nanoseconds since 1970. Then comes
//! one line for each peer with an allow list, followed by one line for each prefix of that peer, for each prefix of a
//! different peer inside those, and for each flow. The end is one line for each initiation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_core::{Instant, KnownFlow, PeerFlows, PeerInitiations, TcpStage};
use overlay_wire::wireguard::INITIATION_LEN;

use crate::engine::{Former, Legacy};
use crate::keys::{decode_public, encode_public};

/// How many flows and prefixes are handed over, about 6 MB. A peer whose own no longer fit is skipped.
const MAX_FLOWS: usize = 65_536;
/// How many initiations are handed over, about 4 MB. A node keeps no more than this for peers that it does not have yet.
const MAX_INITIATIONS: usize = 16_384;
/// The longest file that is read, in bytes.
const MAX_LEN: u64 = 16 << 20;
/// A machine that has run for less than this and has no such file has just started. No flow can then be older than this
/// daemon.
const JUST_BOOTED: Duration = Duration::from_secs(10 * 60);
const NAME: &str = "overlay-flows";
/// The present format. Format 2 has no timestamp and no initiations. In it, a flow has no stage other than "established",
/// and no time of our last packet. Format 1 has no prefixes either. What it says is complete may not be: nobody knows of
/// which addresses.
const FORMAT: u8 = 3;

/// Writes what the next daemon needs.
///
/// # Errors
/// If the file cannot be written. It stays as it was, which is a bare mark at the end of a daemon.
pub fn write(path: &Path, legacy: &Legacy) -> io::Result<()> {
    let new = beside(path);
    remove(&new)?;
    // A symbolic link in its place is not followed, because the file must be new. Neither does renaming follow one.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let written = file.and_then(|file| print(file, &boot()?, legacy)).and_then(|()| fs::rename(&new, path));
    written.inspect_err(|_| _ = remove(&new))
}

/// Reads what was handed over, and leaves a bare mark. `was_killed` says that the previous daemon left other things
/// behind.
pub fn take(path: &Path, was_killed: bool) -> Former {
    let read = read(path);
    // What stays readable would be taken over a second time.
    let marked = write(path, &Legacy::default()).inspect_err(|_| _ = remove(path));
    match read.and_then(|legacy| marked.map(|()| legacy)) {
        Ok(Some(legacy)) => Former { is_first: false, legacy },
        Ok(None) => {
            let is_first = !was_killed && overlay_os::clock::boottime() < JUST_BOOTED;
            Former { is_first, legacy: Legacy::default() }
        }
        Err(error) => {
            tracing::warn!(%error, "what the last daemon left in {} is not taken over", path.display());
            Former::default()
        }
    }
}

/// Undoes [`take`], because the daemon did not start.
///
/// # Errors
/// As [`write()`].
pub fn put_back(path: &Path, is_first: bool, legacy: &Legacy) -> io::Result<()> {
    if is_first { remove(path) } else { write(path, legacy) }
}

/// The file that replaces `path` when it is complete.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn print(file: File, boot: &str, legacy: &Legacy) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    writeln!(file, "{NAME} {FORMAT} {boot}")?;
    if !legacy.latest_timestamp.is_zero() {
        writeln!(file, "timestamp {}", legacy.latest_timestamp.as_nanos())?;
    }
    let mut room = MAX_FLOWS;
    for PeerFlows { peer, flows, is_complete, prefixes, holes } in &legacy.flows {
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
    let initiations =
        legacy.initiations.iter().flat_map(|known| known.initiations.iter().map(|initiation| (known.peer, initiation)));
    for (peer, initiation) in initiations.take(MAX_INITIATIONS) {
        writeln!(file, "initiation {} {}", encode_public(&peer), STANDARD.encode(initiation))?;
    }
    file.flush()
}

/// Reads the file. Returns `None` if there is no file or if it was written in an earlier boot.
fn read(path: &Path) -> io::Result<Option<Legacy>> {
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
    let mut legacy = Legacy::default();
    for line in lines {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        match (&words[..], legacy.flows.last_mut()) {
            (["timestamp", nanos], _) => {
                legacy.latest_timestamp = Duration::from_nanos(nanos.parse().map_err(|_| malformed())?);
            }
            (["initiation", key, initiation], _) => {
                let peer = decode_public(key).map_err(|_| malformed())?;
                let initiation = parse_initiation(initiation).ok_or_else(malformed)?;
                match legacy.initiations.last_mut().filter(|last| last.peer == peer) {
                    Some(last) => last.initiations.push(initiation),
                    None => legacy.initiations.push(PeerInitiations { peer, initiations: vec![initiation] }),
                }
            }
            (["peer", key, extent @ ("complete" | "partial")], _) => legacy.flows.push(PeerFlows {
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
    Ok(Some(legacy))
}

fn parse_initiation(text: &str) -> Option<[u8; INITIATION_LEN]> {
    STANDARD.decode(text).ok()?.try_into().ok()
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
mod tests;
