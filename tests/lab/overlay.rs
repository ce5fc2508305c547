//! The real binary, running on a host.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::host::Host;
use super::process::{Finished, Process};
use super::wait::{ENDED, SHORTLY, within};

/// A daemon in the foreground. Dropping it kills it.
#[derive(Debug)]
pub struct Overlay {
    host: Host,
    process: Process,
}

impl Overlay {
    /// Writes `config` to `overlay.toml` in the host's folder, starts `overlay up` with it, and waits until it answers.
    ///
    /// # Panics
    /// Panics if the daemon exits instead, and shows its output.
    #[track_caller]
    pub fn up(host: &Host, config: &str) -> Overlay {
        let path = host.write("overlay.toml", config);
        Overlay::from_command(host, host.overlay_command(format!("up {}", path.display())))
    }

    /// Like [`Overlay::up`], for a prepared command with different arguments or a different environment.
    #[track_caller]
    pub fn from_command(host: &Host, command: Command) -> Overlay {
        let mut process = host.start(command, "overlay up");
        within(SHORTLY, "`overlay up` to answer", || {
            if let Some(ended) = process.ended() {
                panic!("`overlay up` ended with {}\n{}{}", ended.code, ended.stdout, ended.stderr);
            }
            (host.overlay("status --json").code == 0).then_some(())
        });
        Overlay { host: host.clone(), process }
    }

    /// The config file that it was started with. A test may rewrite it before a reload.
    pub fn config(&self) -> PathBuf {
        self.host.dir().join("overlay.toml")
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The output of `overlay status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let json = self.host.overlay("status --json").succeeded("overlay status --json");
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("status is not valid JSON: {error}\n{json}"))
    }

    /// The status of the peer with this host's public key.
    #[track_caller]
    pub fn peer(&self, peer: &Host) -> Value {
        let status = self.status();
        let peers = status["peers"].as_array().expect("`peers` is a list");
        let found = peers.iter().find(|entry| entry["public_key"] == peer.public_key());
        found.unwrap_or_else(|| panic!("no peer {} in {status:#}", peer.name())).clone()
    }

    /// How many packets were dropped for this reason.
    #[track_caller]
    pub fn dropped(&self, reason: &str) -> u64 {
        let status = self.status();
        status["drops"][reason].as_u64().unwrap_or_else(|| panic!("no drop reason `{reason}` in {status:#}"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Terminates it with SIGTERM, waits for its exit, and requires success.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        let finished = self.process.finish_within(ENDED);
        assert!(finished.code == 0, "`overlay up` ended with {} on SIGTERM\n{}", finished.code, finished.stderr);
        finished
    }

    /// Waits until it exits for any other reason.
    #[track_caller]
    pub fn finish_within(self, limit: Duration) -> Finished {
        self.process.finish_within(limit)
    }

    /// Kills it with SIGKILL, so that it cannot clean up.
    pub fn kill9(self) {
        self.signal(Signal::KILL);
        self.process.finish_within(SHORTLY);
    }
}
