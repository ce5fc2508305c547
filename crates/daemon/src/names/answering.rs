//! The process that answers DNS questions, as the daemon runs it: one that ends is started again.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::bound::Bound;
use super::child::{Child, Known, Role};
use super::message::{Counts, Report};

/// The wait before the process is started again; doubles each time, and begins anew after a minute.
const FIRST_RESTART: Duration = Duration::from_millis(100);
const LONGEST_RESTART: Duration = Duration::from_secs(30);

/// The process that answers, or when it is started again.
#[derive(Debug)]
pub(super) struct Answering {
    child: Result<Child, Instant>,
    pause: Duration,
    /// When the last start was tried.
    started: Instant,
    /// What processes that have ended had answered, and what this one has.
    before: Counts,
    counts: Counts,
}

impl Answering {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            child: Err(now),
            pause: FIRST_RESTART,
            started: now,
            before: Counts::default(),
            counts: Counts::default(),
        }
    }

    /// Starts the process if it does not run, and waits for what it says. Can be cancelled.
    ///
    /// # Errors
    /// The process has ended, or cannot be started.
    pub(super) async fn next(&mut self, known: &Known, bound: &Bound) -> io::Result<Report> {
        if let Err(due) = &self.child {
            sleep_until(*due).await;
            self.started = Instant::now();
            let mut child = Child::start(Role::Answer, known)?;
            bound.addresses().for_each(|address| child.on_bound(address));
            self.child = Ok(child);
        }
        match &mut self.child {
            Ok(child) => child.next(known, bound).await,
            Err(_) => std::future::pending().await,
        }
    }

    /// Has the process started again after a while.
    pub(super) fn on_ended(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the process that answers names has ended: it is started again");
        if self.started.elapsed() > LONGEST_RESTART * 2 {
            self.pause = FIRST_RESTART;
        }
        self.before = self.total();
        self.counts = Counts::default();
        self.child = Err(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RESTART);
    }

    /// The process, if it runs.
    pub(super) fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut().ok()
    }

    /// Whether the process has ended, and was not started again yet.
    pub(super) fn is_down(&self) -> bool {
        self.child.is_err() && self.pause > FIRST_RESTART
    }

    /// What this process has answered so far.
    pub(super) fn on_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// What was answered since the daemon started.
    pub(super) fn total(&self) -> Counts {
        self.before.plus(self.counts)
    }
}
