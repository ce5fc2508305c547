//! Traffic without any answers, steady and in bursts, with every available WireGuard. Only timers keep such a session
//! alive, and an implementation that rekeys too late or waits for an answer loses datagrams.
//!
//! `interop` covers traffic that is always answered.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::device::{Device, Key};
use crate::lab::stock::StockConfig;
use crate::lab::{A, B, Host, Outside, Pair, Stock, inside, installed};

const LENGTH: Duration = Duration::from_secs(600);
/// A port of the receiver, inside the tunnel.
const PORT: u16 = 1111;

/// How a sender sends that gets no answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    /// Whether our device sends. Otherwise the other program does.
    is_ours: bool,
    /// Whether our device knows the other's endpoint, and so starts. Otherwise the other does.
    we_begin: bool,
    /// The interval between two bursts.
    every: Duration,
    /// The number of datagrams in a burst.
    fit: usize,
}

/// Twenty a second without a pause. Ten every 40 s, with silence on both sides in between. Ten every 200 s, each burst
/// in a session of its own.
const FITS: [(Duration, usize); 3] =
    [(Duration::from_millis(50), 1), (Duration::from_secs(40), 10), (Duration::from_secs(200), 10)];

#[test]
fn soak_ten_minutes_one_way_and_in_fits_against_each_of_them() {
    let name = "one way";
    if !installed(name, &Stock::ALL.map(Stock::program)) {
        return;
    }
    let flows = Stock::ALL.into_iter().flat_map(|stock| Flow::all().map(move |flow| (stock, flow)));
    let lost: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            flows.map(|(stock, flow)| (stock, flow, scope.spawn(move || flow.run(name, stock)))).collect();
        let finished =
            running.into_iter().map(|(stock, flow, thread)| (stock, flow, thread.join().expect("it comes up")));
        finished.collect()
    });
    for (stock, flow, outcome) in &lost {
        println!("{stock:?}, {flow:?}: {outcome:?}");
    }
    let lossy: Vec<_> =
        lost.iter().filter(|(_, _, outcome)| outcome.as_ref().is_some_and(|one| !one.lost.is_empty())).collect();
    assert!(lossy.is_empty(), "{lossy:#?}");
}

/// The result of a flow.
#[derive(Debug)]
struct Outcome {
    #[allow(dead_code, reason = "printed")]
    sent: usize,
    lost: Vec<usize>,
    /// If something was lost: our program's counters and its log.
    #[allow(dead_code, reason = "printed")]
    account: Option<String>,
}

impl Flow {
    fn all() -> impl Iterator<Item = Flow> {
        let whos = [(true, true), (true, false), (false, true), (false, false)];
        // A side whose endpoint is unknown must speak before it can be sent to, so it starts with a ping.
        whos.into_iter().flat_map(|(is_ours, we_begin)| FITS.map(|(every, fit)| Flow { is_ours, we_begin, every, fit }))
    }

    /// Sends for ten minutes. `None` if this machine cannot.
    fn run(self, name: &str, stock: Stock) -> Option<Outcome> {
        let pair = Pair::new(name)?;
        let (a, b) = (&pair.a, &pair.b);
        let ours = Device::start(a);
        for address in A.inner() {
            ours.address(&address);
        }
        let endpoint =
            if self.we_begin { format!("endpoint {}", B.endpoint(Outside::V4, 51820)) } else { String::new() };
        ours.set(&format!(
            "private-key {} listen-port 51820 peer {} allowed-ips {} {endpoint}",
            Key::of(a).file.display(),
            b.public_key(),
            B.allowed().join(",")
        ));
        ours.up();
        let (addresses, allowed) = (B.inner(), A.allowed());
        let endpoint = A.endpoint(Outside::V4, 51820);
        let _theirs = stock.up(
            b,
            &StockConfig {
                addresses: &[&addresses[0], &addresses[1]],
                peer: a,
                endpoint: (!self.we_begin).then_some(endpoint.as_str()),
                allowed_ips: &[&allowed[0], &allowed[1]],
                preshared_key_file: None,
            },
        );
        let (first, far) = if self.we_begin { (a, B.v4) } else { (b, A.v4) };
        first.reaches(far);
        let (from, to, address) = if self.is_ours { (a, b, B.v4) } else { (b, a, A.v4) };
        let (sent, lost) = self.send(from, to, address);
        let account = (!lost.is_empty()).then(|| ours.account());
        Some(Outcome { sent, lost, account })
    }

    /// Returns how many datagrams were sent, and the numbers of those that did not arrive.
    fn send(self, from: &Host, to: &Host, address: &str) -> (usize, Vec<usize>) {
        // There must not be any answers, not even ICMP errors for a closed port.
        let receiver = inside(to, || UdpSocket::bind(("0.0.0.0", PORT))).expect("a port of the receiver");
        receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("our own socket");
        let sender = inside(from, || UdpSocket::bind("0.0.0.0:0")).expect("a port of the sender");
        let is_over = AtomicBool::new(false);
        let mut sent: usize = 0;
        let received = thread::scope(|scope| {
            let receiving = scope.spawn(|| receive(&receiver, &is_over));
            let began = Instant::now();
            for fit in 0.. {
                let at = began + self.every * fit;
                if at > began + LENGTH {
                    break;
                }
                thread::sleep(at.saturating_duration_since(Instant::now()));
                for _ in 0..self.fit {
                    sender.send_to(&sent.to_be_bytes(), (address, PORT)).expect("a datagram into the tunnel");
                    sent += 1;
                }
            }
            // A handshake in progress may still deliver the last ones.
            thread::sleep(Duration::from_secs(10));
            is_over.store(true, Ordering::Relaxed);
            receiving.join().expect("it only receives")
        });
        (sent, (0..sent).filter(|number| !received.contains(number)).collect())
    }
}

/// The numbers of the datagrams that arrived.
fn receive(receiver: &UdpSocket, is_over: &AtomicBool) -> BTreeSet<usize> {
    let mut received = BTreeSet::new();
    let mut number = [0; size_of::<usize>()];
    while !is_over.load(Ordering::Relaxed) {
        match receiver.recv(&mut number) {
            Ok(_) => drop(received.insert(usize::from_be_bytes(number))),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("our own socket: {error}"),
        }
    }
    received
}
