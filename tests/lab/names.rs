//! A name server for a test, on a host's loopback. It controls what programs on that host resolve, and records when
//! they ask.
//!
//! It answers questions for A and AAAA from a table that the test changes, with a lifetime of an hour. So a program
//! that asks again earlier has a reason of its own. All other names do not exist.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{Host, inside};

/// The lifetime of an answer, in seconds.
const LIFETIME: u32 = 3_600;
const HEADER_LEN: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// A running name server. Dropping it stops it.
#[derive(Debug)]
pub struct NameServer {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    addresses: HashMap<String, Vec<IpAddr>>,
    /// The name in each question, and when it was asked.
    asked: Vec<(String, Instant)>,
    has_ended: bool,
}

impl NameServer {
    /// Starts the server. Programs on `host` that start from now on use it.
    #[track_caller]
    pub fn start(host: &Host) -> NameServer {
        host.write_etc("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n");
        let socket = inside(host, || UdpSocket::bind("127.0.0.1:53")).expect("port 53 of our own namespace");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        let shared = Arc::<Mutex<Shared>>::default();
        let server = NameServer { shared: Arc::clone(&shared) };
        thread::spawn(move || serve(&socket, &shared));
        server
    }

    /// Replaces the addresses of a name.
    #[track_caller]
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.shared().addresses.insert(name.to_owned(), addresses);
    }

    /// When a name was asked for. A look-up may consist of several questions, and each one counts.
    pub fn asked(&self, name: &str) -> Vec<Instant> {
        self.shared().asked.iter().filter(|(asked, _)| asked == name).map(|(_, at)| *at).collect()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("the server does not panic")
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        if let Ok(mut shared) = self.shared.lock() {
            shared.has_ended = true;
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Mutex<Shared>) {
    let mut question = [0; 512];
    loop {
        let received = socket.recv_from(&mut question);
        let Ok(mut shared) = shared.lock() else { return };
        if shared.has_ended {
            return;
        }
        if let Ok((len, from)) = received
            && let Some(answer) = answer(&question[..len], &mut shared)
        {
            // The program that asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The answer to a message with one question (RFC 1035 section 4).
fn answer(message: &[u8], shared: &mut Shared) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = HEADER_LEN;
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + len)?).to_lowercase());
        at += len;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    let question = message.get(HEADER_LEN..at + 4)?;
    shared.asked.push((name.clone(), Instant::now()));
    let known = shared.addresses.get(&name);
    let answers: Vec<Vec<u8>> = known
        .into_iter()
        .flatten()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(v4), TYPE_A) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), TYPE_AAAA) => Some(v6.octets().to_vec()),
            _ => None,
        })
        .collect();
    let code: u8 = if known.is_some() { 0 } else { 3 };
    let mut out = message[..2].to_vec();
    out.extend([0x85, 0x80 | code, 0, 1, 0, u8::try_from(answers.len()).ok()?, 0, 0, 0, 0]);
    out.extend(question);
    for data in answers {
        out.extend([0xc0, HEADER_LEN as u8]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(LIFETIME.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    Some(out)
}
