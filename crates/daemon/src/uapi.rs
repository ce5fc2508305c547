//! WireGuard's cross-platform userspace API, through which the stock `wg` shows and configures our device.
//!
//! It is text over `/var/run/wireguard/IFACE.sock`, mode 0600. An operation consists of `key=value` lines and ends with
//! an empty line. The answer has lines of the same form and `errno=N`. Keys are hexadecimal. `get=1` returns
//! everything, including private and preshared keys, because `wg showconf` needs them. `set=1` is read to its end,
//! within limits, and is then applied by the owner of the device as one [`Setting`], so that nothing else changes the
//! device in between. As in wireguard-go, the lines before a mistake still take effect.

mod get;
mod set;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use self::get::get;
use self::set::Settings;
use crate::device::{Change, ChangeError};
use crate::serving::access::Caller;
use crate::serving::{connection, socket, uapi_socket};
use crate::view::View;

/// Longest line read: a key in hexadecimal or an IPv6 prefix needs less than 100 bytes.
const MAX_LINE: usize = 512;

/// The largest number of lines in one operation: 10,000 peers with forty prefixes each. A line takes at most 150 bytes
/// of memory, for a new peer, so an operation takes less than 80 MB.
const MAX_LINES: usize = 500_000;

/// How many callers are served at once.
const MAX_CONNECTIONS: usize = 8;

/// How long an operation may take, and how long a caller may be silent before one.
const PATIENCE: Duration = Duration::from_secs(60);

const EPERM: i32 = 1;
const EIO: i32 = 5;
const E2BIG: i32 = 7;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EPROTO: i32 = 71;
const EADDRINUSE: i32 = 98;

/// What a `set=1` changes in the device. A dropped `reply` means that the device is shutting down.
pub struct Setting {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// Receives the result.
    pub reply: oneshot::Sender<Result<(), ChangeError>>,
}

/// Binds the socket of this interface, mode 0600.
///
/// # Errors
///
/// Those of the file system.
pub fn bind(interface: &str) -> io::Result<UnixListener> {
    socket::bind(&uapi_socket(interface), 0o600, None)
}

/// Returns the socket for this interface if the service manager created it, because the service may not write to the
/// folder. A socket with a different name is not used. Must be called on a tokio runtime.
pub fn handed_over(interface: &str) -> Option<UnixListener> {
    let listener = overlay_os::handed_over::take_listener("uapi")?;
    let address = listener.local_addr().ok()?;
    let found = address.as_pathname()?;
    if found.file_name() != uapi_socket(interface).file_name() {
        tracing::warn!(
            "{} is not the socket of `{interface}`: does the interface have the name of the unit?",
            found.display()
        );
        return None;
    }
    UnixListener::from_std(listener).ok()
}

/// Serves the API until the future is dropped. Changes are sent to `settings`.
///
/// # Errors
///
/// None at present: a failing connection affects only itself, and accepting is retried.
pub async fn serve(listener: UnixListener, view: Arc<View>, settings: mpsc::Sender<Setting>) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await?;
        let stream = connection::accept(&listener).await;
        let (view, settings) = (view.clone(), settings.clone());
        tokio::spawn(async move {
            let _slot = slot;
            // A caller that hangs up or stalls affects nobody else.
            let _ = converse(stream, &view, &settings).await;
        });
    }
}

/// Serves one caller's operations in sequence, until it hangs up, stalls, or sends something that is not an operation.
async fn converse(stream: UnixStream, view: &View, settings: &mpsc::Sender<Setting>) -> io::Result<()> {
    let is_owner = Caller::of(&stream).is_owner();
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut operation = async || {
        let Some(operation) = read_operation(&mut read).await? else { return Ok(false) };
        let (answer, goes_on) = match operation {
            Operation::Get if is_owner => (get(view), true),
            Operation::Get => (errno(EPERM), false),
            // `wg` expects a negative error number after a `set`, as wireguard-go sends it, and a positive one after a
            // `get`. With the wrong sign it cannot name the error.
            Operation::Set(wanted) if is_owner => (errno(-set(wanted, settings).await), true),
            Operation::SetBeyondBounds if is_owner => (errno(-E2BIG), false),
            Operation::Set(_) | Operation::SetBeyondBounds => (errno(-EPERM), false),
            Operation::Unknown => (errno(if is_owner { EPROTO } else { EPERM }), false),
        };
        write.write_all(answer.as_bytes()).await?;
        io::Result::Ok(goes_on)
    };
    while tokio::time::timeout(PATIENCE, operation()).await?? {}
    Ok(())
}

/// Applies the changes to the device. Returns the number of the error, or 0 for success.
async fn set(wanted: Settings, settings: &mpsc::Sender<Setting>) -> i32 {
    let (changes, mistake) = wanted.finish();
    let (reply, made) = oneshot::channel();
    if settings.send(Setting { changes, reply }).await.is_err() {
        return EIO;
    }
    match made.await {
        Ok(Ok(())) => mistake.unwrap_or(0),
        Ok(Err(ChangeError::PortInUse)) => EADDRINUSE,
        Ok(Err(ChangeError::Refused(io::ErrorKind::PermissionDenied))) => EACCES,
        Ok(Err(ChangeError::TooManyPeers)) => EINVAL,
        Ok(Err(ChangeError::Refused(_))) | Err(_) => EIO,
    }
}

enum Operation {
    Get,
    Set(Settings),
    /// A `set` with a line that is too long, or with too many lines. None of it is applied.
    SetBeyondBounds,
    /// The first line is unknown, or the operation has no end.
    Unknown,
}

/// Reads an operation up to and including its empty line. Returns `None` if the caller hung up before an operation
/// began. An operation beyond the limits is also read to its end, and discarded, because `wg` reads no answer before it
/// has sent everything.
async fn read_operation(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Operation>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    let mut operation = None;
    for _ in 0..MAX_LINES {
        line.clear();
        (&mut *read).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
        let Some(text) = line.strip_suffix(b"\n") else {
            if line.len() == MAX_LINE {
                discard(read, false).await?;
                return Ok(Some(beyond_bounds(operation)));
            }
            // The stream ended in the middle of a line.
            return Ok(if line.is_empty() && operation.is_none() { None } else { Some(Operation::Unknown) });
        };
        match (text, &mut operation) {
            (b"", None) => return Ok(Some(Operation::Unknown)),
            (b"", Some(_)) => return Ok(operation),
            (b"get=1", None) => operation = Some(Operation::Get),
            (b"set=1", None) => operation = Some(Operation::Set(Settings::default())),
            (_, None) => operation = Some(Operation::Unknown),
            (text, Some(Operation::Set(settings))) => settings.line(text),
            // `get=1` has no further lines.
            (_, Some(_)) => operation = Some(Operation::Unknown),
        }
    }
    discard(read, true).await?;
    Ok(Some(beyond_bounds(operation)))
}

fn beyond_bounds(operation: Option<Operation>) -> Operation {
    match operation {
        Some(Operation::Set(_)) => Operation::SetBeyondBounds,
        _ => Operation::Unknown,
    }
}

/// Reads up to and including the next empty line, and discards it all.
async fn discard(read: &mut (impl AsyncBufRead + Unpin), mut is_line_start: bool) -> io::Result<()> {
    loop {
        let bytes = read.fill_buf().await?;
        let end = bytes.iter().position(|byte| {
            let was_line_start = std::mem::replace(&mut is_line_start, *byte == b'\n');
            was_line_start && is_line_start
        });
        let count = end.map_or(bytes.len(), |end| end + 1);
        let is_over = end.is_some() || bytes.is_empty();
        read.consume(count);
        if is_over {
            return Ok(());
        }
    }
}

fn errno(number: i32) -> Zeroizing<String> {
    Zeroizing::new(format!("errno={number}\n\n"))
}

#[cfg(test)]
mod tests;
