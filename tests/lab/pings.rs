//! Echo requests at a steady pace. Each of them must be answered.
//!
//! `ping` cannot do this. After its last request it waits only for twice its longest round trip, however short that
//! was, and counts later answers as lost (`-W` applies only if nothing was answered at all). On a busy machine, a
//! program that stalls for a moment loses nothing, but `ping` would report a loss if that happened near the end. Here
//! every request has [`PATIENCE`], including the last one, and unanswered requests are reported by number.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use overlay_os::ping::Ping;

use super::{Host, inside};

/// How long an answer may take: less than the 5 s after which a lost handshake is retried.
const PATIENCE: Duration = Duration::from_secs(4);

/// The payload of `ping` by default, in bytes: packets of 84 bytes over IPv4 and 104 bytes over IPv6.
const PAYLOAD_LEN: usize = 56;

/// Requests to send.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    count: u16,
    interval: Duration,
    payload_len: usize,
}

/// Requests that are being sent.
#[derive(Debug)]
pub struct Underway {
    what: String,
    are_enough: Arc<AtomicBool>,
    are_sent: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

/// The results.
#[derive(Debug, Default)]
struct Answers {
    /// When each request was sent, counted from the first, and how long its answer took.
    requests: Vec<(Duration, Option<Duration>)>,
    /// Errors from the kernel, and errors that came back instead of answers.
    errors: Vec<String>,
}

impl Pings {
    /// Prepares this many requests at this interval.
    pub const fn new(count: u16, interval: Duration) -> Pings {
        Pings { count, interval, payload_len: PAYLOAD_LEN }
    }

    /// Sets the number of bytes behind the ICMP header of each request.
    pub const fn of(self, payload_len: usize) -> Pings {
        Pings { payload_len, ..self }
    }

    /// Starts sending from a host.
    #[track_caller]
    pub fn start(self, from: &Host, to: &str) -> Underway {
        let address: IpAddr = to.parse().expect("an address");
        let ping = inside(from, || Ping::connect(address, None)).expect("a socket for echo requests");
        let what = format!("{} pings of {} to {to}", self.count, from.name());
        let [are_enough, are_sent] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (enough, told) = (Arc::clone(&are_enough), Arc::clone(&are_sent));
        Underway { what, are_enough, are_sent, thread: thread::spawn(move || self.exchange(&ping, &enough, &told)) }
    }

    /// Sends all requests and waits for all answers.
    ///
    /// # Panics
    /// See [`Underway::are_answered`].
    #[track_caller]
    pub fn are_answered(self, from: &Host, to: &str) {
        self.start(from, to).are_answered();
    }

    fn exchange(self, ping: &Ping, are_enough: &AtomicBool, are_sent: &AtomicBool) -> Answers {
        let (began, payload) = (Instant::now(), vec![0; self.payload_len]);
        let mut answers = Answers::default();
        loop {
            let (now, last) = (began.elapsed(), answers.requests.last().map(|(at, _)| *at));
            let is_sending = answers.requests.len() < usize::from(self.count) && !are_enough.load(Relaxed);
            are_sent.store(!is_sending, Relaxed);
            let until = match last {
                None => now,
                Some(last) if is_sending => last + self.interval,
                Some(last) => last + PATIENCE,
            };
            if is_sending && now >= until {
                // A late request does not make the next ones faster, since a burst would be a different test.
                let sent = ping.send(answers.requests.len() as u16, &payload);
                answers.requests.push((now, None));
                answers.errors.extend(sent.err().map(|error| format!("number {}: {error}", answers.requests.len())));
                continue;
            }
            if now >= until || (!is_sending && answers.missing().next().is_none()) {
                return answers;
            }
            match ping.receive(until - now) {
                Ok(Some(reply)) => {
                    if let Some((at, took)) = answers.requests.get_mut(usize::from(reply.sequence)) {
                        let after = began.elapsed() - *at;
                        *took = took.or((after < PATIENCE).then_some(after));
                    }
                }
                Ok(None) => {}
                Err(error) => answers.errors.push(format!("after {:.2} s: {error}", began.elapsed().as_secs_f64())),
            }
        }
    }
}

impl Underway {
    /// Whether all requests have been sent.
    pub fn are_sent(&self) -> bool {
        self.are_sent.load(Relaxed)
    }

    /// Sends no more requests. Those that were sent have to be answered.
    pub fn are_enough(&self) {
        self.are_enough.store(true, Relaxed);
    }

    /// Whether all requests have been sent, and then answered or given up.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all requests are answered or given up.
    ///
    /// # Errors
    /// Says which requests were not answered, or took longer than [`PATIENCE`].
    pub fn finish(self) -> Result<(), String> {
        let answers = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        eprintln!("{}: {}", self.what, answers.slowest());
        if answers.missing().next().is_none() { Ok(()) } else { Err(format!("{}: {}", self.what, answers.lost())) }
    }

    /// Waits until all requests are answered.
    ///
    /// # Panics
    /// Panics if one was not answered, or took longer than [`PATIENCE`].
    #[track_caller]
    pub fn are_answered(self) {
        if let Err(lost) = self.finish() {
            panic!("{lost}");
        }
    }
}

impl Answers {
    /// The unanswered requests, numbered from 0, and when they were sent.
    fn missing(&self) -> impl Iterator<Item = (usize, Duration)> {
        let all = self.requests.iter().enumerate();
        all.filter(|(_, (_, took))| took.is_none()).map(|(number, (at, _))| (number, *at))
    }

    fn slowest(&self) -> String {
        let answered =
            self.requests.iter().enumerate().filter_map(|(number, (_, took))| took.map(|took| (took, number)));
        answered.max().map_or("none was answered".into(), |(took, number)| {
            format!("number {} took longest, {:.1} ms", number + 1, took.as_secs_f64() * 1e3)
        })
    }

    fn lost(&self) -> String {
        let missing: Vec<_> = self.missing().collect();
        let mut said = format!("{} were not answered:", missing.len());
        for run in missing.chunk_by(|(before, _), (after, _)| before + 1 == *after) {
            let ((first, began), (last, ended)) = (run[0], run[run.len() - 1]);
            let (began, ended) = (began.as_secs_f64(), ended.as_secs_f64());
            write!(said, " {} to {}, sent {began:.2} s to {ended:.2} s after the first;", first + 1, last + 1)
                .expect("text");
        }
        write!(said, " {}; {} errors {:?}", self.slowest(), self.errors.len(), self.errors.first()).expect("text");
        said
    }
}
