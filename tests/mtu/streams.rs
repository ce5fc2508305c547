//! Bytes over TCP, with an eye on every moment in which none arrive.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::lab::services::{self, bracketed};
use crate::lab::{Host, inside};

/// A transfer in which nothing moves for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came over one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    pub(super) took: Duration,
    /// From the request to the first byte, and from one to the next.
    pub(super) longest_pause: Duration,
    pub(super) bytes: usize,
}

impl Fetched {
    /// Megabits of the application in a second.
    pub(super) fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.took.as_secs_f64()
    }
}

/// GETs a file that the other host serves by [`services::http_server`], and requires its every byte.
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
    // No assert_eq: nobody wants to see the bytes.
    assert!(answer[head + 4..] == expected, "{} bytes from {address} are not those of the file", answer.len());
    Fetched { took, longest_pause, bytes: expected.len() }
}
