//! WireGuard's cross-platform userspace API, so that the stock `wg show` lists our peers.
//!
//! Text over `/var/run/wireguard/IFACE.sock`, mode 0600: an operation of `key=value` lines that an empty line ends,
//! answered by such lines and `errno=N`. Keys are hexadecimal. `get=1` is answered in full, private and preshared keys
//! included, as `wg showconf` needs them. `set=1` is read to its end and refused with EOPNOTSUPP: here the config file
//! is what configures.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::api::access::Caller;
use crate::api::{connection, socket};
use crate::view::{InterfaceView, PeerView, View};

/// Where `wg` looks for sockets.
pub const FOLDER: &str = "/var/run/wireguard";

/// Longest line read: a key in hexadecimal or an IPv6 prefix needs less than 100 bytes.
const MAX_LINE: usize = 512;

/// Most lines of one operation: enough to set 10,000 peers with a dozen prefixes each.
const MAX_LINES: usize = 200_000;

/// Callers served at once.
const MAX_CONNECTIONS: usize = 8;

/// How long a caller may stay.
const PATIENCE: Duration = Duration::from_secs(60);

const EPERM: i32 = 1;
const EPROTO: i32 = 71;
const EOPNOTSUPP: i32 = 95;

/// Where the socket of this interface stands.
pub fn socket_path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.sock"))
}

/// Binds the socket of this interface, mode 0600.
///
/// # Errors
///
/// Those of the file system.
pub fn bind(interface: &str) -> io::Result<UnixListener> {
    socket::bind(&socket_path(interface), 0o600, None)
}

/// Serves the API until the future is dropped.
///
/// # Errors
///
/// None at present: a connection that fails concerns only itself, and accepting is tried again.
pub async fn serve(listener: UnixListener, view: Arc<View>) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await?;
        let stream = connection::accept(&listener).await;
        let view = view.clone();
        tokio::spawn(async move {
            let _slot = slot;
            // A caller that hangs up or stalls concerns nobody else.
            let _ = tokio::time::timeout(PATIENCE, converse(stream, &view)).await;
        });
    }
}

/// One caller's operations, one after the other, until it hangs up or says something that is none.
async fn converse(stream: UnixStream, view: &View) -> io::Result<()> {
    let is_owner = Caller::of(&stream).is_owner();
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Some(operation) = read_operation(&mut read).await? else { return Ok(()) };
        let (answer, goes_on) = match operation {
            _ if !is_owner => (refusal(operation, EPERM), false),
            Operation::Get => (get(view), true),
            Operation::Set => (refusal(operation, EOPNOTSUPP), true),
            Operation::Unknown => (refusal(operation, EPROTO), false),
        };
        write.write_all(answer.as_bytes()).await?;
        if !goes_on {
            return Ok(());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    Set,
    /// Another first line, or one beyond the bounds.
    Unknown,
}

/// Reads an operation up to and including its empty line; `None` when the caller hung up before one began.
async fn read_operation(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Operation>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    let mut operation = None;
    for _ in 0..MAX_LINES {
        line.clear();
        (&mut *read).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
        let Some(text) = line.strip_suffix(b"\n") else {
            // Too long, or cut off by the end of the stream.
            return Ok(if line.is_empty() && operation.is_none() { None } else { Some(Operation::Unknown) });
        };
        match (text, operation) {
            (b"", None) => return Ok(Some(Operation::Unknown)),
            (b"", Some(operation)) => return Ok(Some(operation)),
            (b"get=1", None) => operation = Some(Operation::Get),
            (b"set=1", None) => operation = Some(Operation::Set),
            (_, None) => operation = Some(Operation::Unknown),
            (_, Some(Operation::Set)) => {}
            // `get=1` takes no further lines.
            (_, Some(_)) => operation = Some(Operation::Unknown),
        }
    }
    Ok(Some(Operation::Unknown))
}

/// The answer to `get=1`.
fn get(view: &View) -> Zeroizing<String> {
    let state = view.read();
    let peers = state.peers();
    // Room for everything at once: a string that grows would leave copies of keys behind.
    let room = 256 + peers.iter().map(|peer| 512 + 64 * peer.allowed_ips.len()).sum::<usize>();
    let mut out = Zeroizing::new(String::with_capacity(room));
    print_interface(&mut out, &state.interface);
    for peer in peers {
        let stats = &peer.stats;
        print_peer(&mut out, peer, stats.received_wire_bytes.value(), stats.sent_wire_bytes.value());
    }
    out.push_str("errno=0\n\n");
    out
}

fn print_interface(out: &mut String, interface: &InterfaceView) {
    line_hex(out, "private_key", &interface.private_key);
    line(out, "listen_port", interface.listen_port);
    if let Some(mark) = interface.fwmark {
        line(out, "fwmark", mark);
    }
}

fn print_peer(out: &mut String, peer: &PeerView, received: u64, sent: u64) {
    line_hex(out, "public_key", &peer.public_key.0);
    let none = [0; 32];
    line_hex(out, "preshared_key", peer.preshared_key.as_deref().unwrap_or(&none));
    line(out, "protocol_version", 1);
    if let Some(endpoint) = peer.endpoint {
        line(out, "endpoint", endpoint);
    }
    let handshake = peer.handshake.and_then(|handshake| handshake.wall.duration_since(UNIX_EPOCH).ok());
    let handshake = handshake.unwrap_or_default();
    line(out, "last_handshake_time_sec", handshake.as_secs());
    line(out, "last_handshake_time_nsec", handshake.subsec_nanos());
    line(out, "tx_bytes", sent);
    line(out, "rx_bytes", received);
    line(out, "persistent_keepalive_interval", peer.persistent_keepalive.unwrap_or(0));
    for prefix in &peer.allowed_ips {
        line(out, "allowed_ip", prefix);
    }
}

fn line(out: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{key}={value}");
}

fn line_hex(out: &mut String, key: &str, value: &[u8; 32]) {
    let _ = write!(out, "{key}=");
    for byte in value {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('\n');
}

/// `wg` expects the number of an error to be negative after a `set`, as wireguard-go has it, and positive after a `get`:
/// with the other sign it cannot name the error.
fn refusal(operation: Operation, number: i32) -> Zeroizing<String> {
    let number = if operation == Operation::Set { -number } else { number };
    Zeroizing::new(format!("errno={number}\n\n"))
}

#[cfg(test)]
mod tests;
