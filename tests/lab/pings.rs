//! Echo requests at a steady pace, each of which has to be answered.
//!
//! `ping` cannot tell: once it has sent the last one it waits for twice its longest round trip, however short that was, and takes
//! what comes later for lost (`-W` counts only where nothing was answered at all). On a busy machine a program that stands
//! still for a moment loses nothing, but would seem to if it did so in the end. Here every request has [`PATIENCE`], the last too,
//! and those without an answer are told by their numbers.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use overlay_os::ping::Ping;

use super::{Host, inside};

/// How long an answer may take: less than the 5 s after which a handshake that was lost is tried again.
const PATIENCE: Duration = Duration::from_secs(4);

/// What `ping` sends by itself, in bytes: packets of 84 over IPv4 and of 104 over IPv6.
const PAYLOAD_LEN: usize = 56;

/// Requests to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    count: u16,
    interval: Duration,
    payload_len: usize,
}

/// Requests under way.
#[derive(Debug)]
pub struct Underway {
    what: String,
    are_sent: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

/// What became of them.
#[derive(Debug, Default)]
struct Answers {
    /// When each was sent after the first, and how long its answer took.
    requests: Vec<(Duration, Option<Duration>)>,
    /// What the kernel refused, and what came back in the place of answers.
    errors: Vec<String>,
}

impl Pings {
    /// So many, that far apart.
    pub const fn new(count: u16, interval: Duration) -> Pings {
        Pings { count, interval, payload_len: PAYLOAD_LEN }
    }

    /// Each with so many bytes behind its ICMP header.
    pub const fn of(self, payload_len: usize) -> Pings {
        Pings { payload_len, ..self }
    }

    /// Sends them from a host.
    #[track_caller]
    pub fn start(self, from: &Host, to: &str) -> Underway {
        let address: IpAddr = to.parse().expect("an address");
        let ping = inside(from, || Ping::connect(address, None)).expect("a socket for echo requests");
        let what = format!("{} pings of {} to {to}", self.count, from.name());
        let are_sent = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&are_sent);
        Underway { what, are_sent, thread: thread::spawn(move || self.exchange(&ping, &told)) }
    }

    /// Sends them and waits until each was answered.
    ///
    /// # Panics
    /// See [`Underway::are_answered`].
    #[track_caller]
    pub fn are_answered(self, from: &Host, to: &str) {
        self.start(from, to).are_answered();
    }

    fn exchange(self, ping: &Ping, are_sent: &AtomicBool) -> Answers {
        let (began, payload) = (Instant::now(), vec![0; self.payload_len]);
        let mut answers = Answers::default();
        loop {
            let (now, last) = (began.elapsed(), answers.requests.last().map(|(at, _)| *at));
            let is_sending = answers.requests.len() < usize::from(self.count);
            are_sent.store(!is_sending, Relaxed);
            let until = match last {
                None => now,
                Some(last) if is_sending => last + self.interval,
                Some(last) => last + PATIENCE,
            };
            if is_sending && now >= until {
                // Not faster for having been late: a burst would be another test.
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
    /// Whether all were sent.
    pub fn are_sent(&self) -> bool {
        self.are_sent.load(Relaxed)
    }

    /// Whether all were sent, and answered or given up.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all were answered; else what there is to say about those that were not.
    ///
    /// # Errors
    /// Which were not, or took longer than [`PATIENCE`].
    pub fn finish(self) -> Result<(), String> {
        let answers = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        eprintln!("{}: {}", self.what, answers.slowest());
        if answers.missing().next().is_none() { Ok(()) } else { Err(format!("{}: {}", self.what, answers.lost())) }
    }

    /// Waits until all were answered.
    ///
    /// # Panics
    /// When one was not, or took longer than [`PATIENCE`].
    #[track_caller]
    pub fn are_answered(self) {
        if let Err(lost) = self.finish() {
            panic!("{lost}");
        }
    }
}

impl Answers {
    /// Those without an answer, from 0 on, and when they were sent.
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
