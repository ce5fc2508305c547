//! What the service manager is told: ready, reloading, stopping, a status line, the watchdog.
//!
//! This is systemd's notification protocol, sd_notify(3). Without `NOTIFY_SOCKET` in the environment, every call does
//! nothing. A message that cannot be sent is logged at debug and otherwise ignored.

use std::time::Duration;

use sd_notify::NotifyState;

/// Reports that the interface is up and traffic can flow, or that a reload has ended. `systemctl status` shows `status`.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that a reload has begun. [`ready`] ends it, even if the new config was refused.
pub fn reloading() {
    // The manager uses this clock to tell a reload from an earlier one. If it cannot be read, the message is sent without it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// Reports that the daemon is shutting down.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("taking the interface down")]);
}

/// Sets one line for `systemctl status`.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// How often to call [`watchdog`]: half of what the manager allows, as it recommends. `None` if the watchdog is off.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Reports that the daemon is alive.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use overlay_golden::golden;

    use super::*;

    /// Set for the process that plays the daemon, because the environment of the running one cannot be changed safely.
    const CHILD: &str = "OVERLAY_TEST_NOTIFY_CHILD";

    #[test]
    fn the_service_manager_reads_what_sd_notify_specifies() {
        if std::env::var_os(CHILD).is_some() {
            assert_eq!(watchdog_interval(), Some(Duration::from_secs(5)));
            ready("4 peers");
            reloading();
            status("one line");
            watchdog();
            stopping();
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_read_timeout(Some(Duration::from_secs(10))).expect("settable");
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "notify::tests::the_service_manager_reads_what_sd_notify_specifies"])
            .env(CHILD, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "10000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .expect("it runs");
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));

        let next = || {
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).expect("a message");
            String::from_utf8(buffer[..length].to_vec()).expect("text")
        };
        assert_eq!(next(), "READY=1\nSTATUS=4 peers\n");
        let reload = next();
        let clock = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both lines").trim_end();
        assert!(clock.parse::<u64>().expect("a number") > 0);
        assert_eq!(next(), "STATUS=one line\n");
        assert_eq!(next(), "WATCHDOG=1\n");
        let stopping = next();
        golden("on the way down", stopping.strip_prefix("STOPPING=1\nSTATUS=").expect("both lines"));
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            ready("alone");
            assert_eq!(watchdog_interval(), None);
        }
    }
}
