//! TCP streams, with every pause recorded.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::services::{self, bracketed};
use crate::lab::{Host, inside, within};

/// A transfer without any progress for this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The data received over one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    pub(super) took: Duration,
    /// The longest time from the request to the first byte, or between two reads.
    pub(super) longest_pause: Duration,
    pub(super) bytes: usize,
}

impl Fetched {
    /// The application's rate in Mbit/s.
    pub(super) fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.took.as_secs_f64()
    }
}

/// GETs a file that [`services::http_server`] serves on the other host, and requires every byte of it.
#[track_caller]
pub(super) fn fetch(from: &Host, address: &str, served: &Path) -> Fetched {
    let expected = std::fs::read(served).expect("the file that is served");
    let name = served.file_name().and_then(|name| name.to_str()).expect("a name");
    let to = SocketAddr::new(address.parse().expect("an address"), services::HTTP);
    let began = Instant::now();
    let mut stream = inside(from, || TcpStream::connect_timeout(&to, PATIENCE)).expect("the server is there");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let request = format!("GET /{name} HTTP/1.0\r\nHost: {}\r\n\r\n", bracketed(address));
    stream.write_all(request.as_bytes()).expect("a request is short");
    let (mut answer, mut buffer) = (Vec::with_capacity(expected.len() + 1024), vec![0; 256 << 10]);
    let (mut last, mut longest_pause) = (began, Duration::ZERO);
    loop {
        let read = stream.read(&mut buffer);
        let now = Instant::now();
        longest_pause = longest_pause.max(now - last);
        last = now;
        match read {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&buffer[..len]),
            Err(error) => panic!("after {} of {} bytes from {address}: {error}", answer.len(), expected.len()),
        }
    }
    let took = began.elapsed();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP head");
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{:?}", String::from_utf8_lossy(&answer[..head]));
    // `assert_eq!` would print all the bytes.
    assert!(answer[head + 4..] == expected, "{} bytes from {address} are not those of the file", answer.len());
    Fetched { took, longest_pause, bytes: expected.len() }
}

/// Sends from one host to another as fast as possible, until this is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    progress: Arc<Mutex<Progress>>,
    /// The receiver's end. Shutting it down ends both threads.
    received: TcpStream,
}

#[derive(Debug)]
struct Progress {
    bytes: u64,
    /// When the last bytes arrived.
    last: Instant,
    longest_pause: Duration,
}

impl Stream {
    /// Starts sending from `from` to this address of `to`.
    #[track_caller]
    pub(super) fn start(from: &Host, to: &Host, address: &str) -> Stream {
        let listener = inside(to, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let target = SocketAddr::new(address.parse().expect("an address"), port);
        let mut sent = inside(from, || TcpStream::connect_timeout(&target, PATIENCE)).expect("it listens");
        let (received, _) = listener.accept().expect("a connection");
        let progress = Arc::new(Mutex::new(Progress { bytes: 0, last: Instant::now(), longest_pause: Duration::ZERO }));
        let (mut reader, told) = (received.try_clone().expect("a descriptor"), Arc::clone(&progress));
        // Both threads end with the connection.
        thread::spawn(move || while sent.write_all(&[7; 64 << 10]).is_ok() {});
        thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                let (now, mut progress) = (Instant::now(), told.lock().expect("nobody panics with it"));
                progress.bytes += len as u64;
                progress.longest_pause = progress.longest_pause.max(now - progress.last);
                progress.last = now;
            }
        });
        Stream { progress, received }
    }

    /// The longest time without any bytes since the last call.
    pub(super) fn take_longest_pause(&self) -> Duration {
        let mut progress = self.progress.lock().expect("nobody panics with it");
        let lasting = progress.last.elapsed();
        std::mem::take(&mut progress.longest_pause).max(lasting)
    }

    /// How many bytes have arrived so far.
    pub(super) fn bytes(&self) -> u64 {
        self.progress.lock().expect("nobody panics with it").bytes
    }

    /// Waits until this many more bytes have arrived.
    #[track_caller]
    pub(super) fn progresses_by(&self, bytes: u64) {
        let before = self.bytes();
        within(PATIENCE, "a stream to go on", || (self.bytes() >= before + bytes).then_some(()));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The connection may already have failed.
        let _ = self.received.shutdown(Shutdown::Both);
    }
}
