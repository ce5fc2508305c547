//! What the daemon writes to its TUN, packet by packet. Beyond this point none of our code can refuse a packet.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::lab::{Host, SHORTLY};

/// How many bytes of each packet are kept.
const KEPT: usize = 4096;
/// How many bytes tcpdump is asked for. This is more, since it may deliver a little less.
const TAKEN: usize = 2 * KEPT;

/// A capture of packets that enter through a host's tunnel interface. Dropping it stops it.
pub(crate) struct Capture {
    tcpdump: Child,
    packets: Receiver<Vec<u8>>,
}

impl Capture {
    /// Starts a capture. It shows everything written from now on.
    pub(crate) fn start(host: &Host) -> Capture {
        let interface = host.interface();
        // Each packet is delivered at once, and there is space for a thousand.
        let line = format!("tcpdump -n --immediate-mode -U -B 16384 -s {TAKEN} -Q in -i {interface} -w -");
        let mut command = host.command(line);
        let mut tcpdump = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("tcpdump does not start: {error}"));
        let mut said = String::new();
        let mut stderr = BufReader::new(tcpdump.stderr.take().expect("it was piped"));
        while !said.contains("listening on") {
            let read = stderr.read_line(&mut said).expect("tcpdump's standard error");
            assert!(read > 0, "tcpdump ended: {said}");
        }
        let mut stdout = BufReader::new(tcpdump.stdout.take().expect("it was piped"));
        let (sender, packets) = mpsc::channel();
        thread::spawn(move || {
            while let Some(packet) = next_packet(&mut stdout) {
                if sender.send(packet).is_err() {
                    return;
                }
            }
        });
        Capture { tcpdump, packets }
    }

    /// All packets before `last`.
    ///
    /// # Panics
    /// Panics if `last` does not come.
    #[track_caller]
    pub(crate) fn before(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut before = Vec::new();
        loop {
            match self.packets.recv_timeout(SHORTLY) {
                Ok(packet) if packet == last => return before,
                Ok(packet) => before.push(packet),
                Err(error) => panic!("{last:02x?} was not delivered ({error}), but {before:02x?}"),
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// The part of a packet that a capture shows.
pub(crate) fn kept(packet: &[u8]) -> &[u8] {
    &packet[..packet.len().min(KEPT)]
}

/// The next packet of a capture file in this machine's byte order. The file's header is skipped.
fn next_packet(file: &mut BufReader<ChildStdout>) -> Option<Vec<u8>> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    let mut head = [0; 16];
    file.read_exact(&mut head).ok()?;
    let word = |head: &[u8; 16], at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(&head, 0) == MAGIC {
        file.read_exact(&mut [0; 8]).ok()?;
        file.read_exact(&mut head).ok()?;
    }
    // The record header: seconds, microseconds, captured length, original length.
    let mut packet = vec![0; word(&head, 8) as usize];
    file.read_exact(&mut packet).ok()?;
    packet.truncate(KEPT);
    Some(packet)
}
