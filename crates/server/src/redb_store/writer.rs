//! The thread that owns a store and commits in groups.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use overlay_rendezvous::store::{Conflict, MAX_BATCH, Operation, Revision, Store};

/// How long operations are gathered for one commit, counted from the first.
pub const GATHER: Duration = Duration::from_millis(5);
/// The most operations that wait for the writer. A registry has no more under way, so it never meets the bound.
pub const MAX_WAITING: usize = 4_096;

/// Called on the writer's thread when the operation is on disk, or a condition was not met. A reply that is dropped
/// without a call means that the store failed: nothing is known of the operation.
pub type Reply = Box<dyn FnOnce(Result<Revision, Conflict>) + Send>;

/// The error for an operation that the writer does not take. It is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// [`MAX_WAITING`] operations wait already.
    #[error("too many operations wait for the store")]
    Full,
    /// The writer has ended, because its store failed.
    #[error("the store has failed")]
    Ended,
}

/// The thread. Dropping the last [`Submitter`] ends it, after everything that waits is committed.
#[derive(Debug)]
pub struct Writer<S: Store> {
    thread: JoinHandle<Result<S, S::Error>>,
}

/// Hands operations to the writer. Clones do the same.
#[derive(Clone)]
pub struct Submitter {
    waiting: SyncSender<(Operation, Reply)>,
}

impl<S: Store + Send + 'static> Writer<S> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(store: S) -> io::Result<(Self, Submitter)> {
        let (waiting, operations) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || run(store, &operations))?;
        Ok((Self { thread }, Submitter { waiting }))
    }

    /// Waits until the thread has ended, and returns the store.
    ///
    /// # Errors
    /// The error that ended the thread.
    ///
    /// # Panics
    /// If the thread panicked.
    pub fn join(self) -> Result<S, S::Error> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Whether the thread has ended. Unless the last [`Submitter`] is gone, the store has failed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Submitter {
    /// Hands over an operation. Never blocks.
    ///
    /// # Errors
    /// [`NotTaken`]. The reply is not called.
    pub fn submit(&self, operation: Operation, reply: Reply) -> Result<(), NotTaken> {
        self.waiting.try_send((operation, reply)).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Full,
            TrySendError::Disconnected(_) => NotTaken::Ended,
        })
    }
}

/// Commits until nobody can hand over anything more. After an error of the store nothing more is committed: what is on
/// disk is not known, and the next start reads it from there.
fn run<S: Store>(mut store: S, waiting: &Receiver<(Operation, Reply)>) -> Result<S, S::Error> {
    while let Ok(first) = waiting.recv() {
        let (operations, replies): (Vec<_>, Vec<_>) = gather(first, waiting).into_iter().unzip();
        for (outcome, reply) in store.commit(&operations)?.into_iter().zip(replies) {
            reply(outcome);
        }
    }
    Ok(store)
}

fn gather(first: (Operation, Reply), waiting: &Receiver<(Operation, Reply)>) -> Vec<(Operation, Reply)> {
    let end = Instant::now() + GATHER;
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH {
        match waiting.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(next) => batch.push(next),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}
