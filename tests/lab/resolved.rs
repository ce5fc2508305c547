//! systemd-resolved on a host, with a message bus of its own.
//!
//! Its runtime folder is one of the lab's, mounted where it looks. Programs that start on the host afterwards ask it, as on a
//! machine whose resolv.conf is a link to that of resolved.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::Host;
use super::process::{Process, find};
use super::wait::{SHORTLY, within};

/// Where the programs are: the package's place, and that of `scripts/setup`.
const FOLDERS: [&str; 3] = ["/lib/systemd", "/usr/bin", "/usr/local/lib/overlay-tests"];

/// A bus on which everybody may do everything.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=ADDRESS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// A resolved that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Resolved {
    host: Host,
    /// The file with the authorities that it believes, if they are not the machine's.
    authorities: Option<PathBuf>,
    process: Option<Process>,
    _bus: Process,
}

impl Resolved {
    /// Starts it with these lines of its `[Resolve]` section. `None` if it is not installed.
    #[track_caller]
    pub fn start(host: &Host, section: &str) -> Option<Resolved> {
        Self::start_believing(host, section, None)
    }

    /// Like [`Resolved::start`], with the authorities in this file, which every user may read.
    #[track_caller]
    pub fn start_believing(host: &Host, section: &str, authorities: Option<PathBuf>) -> Option<Resolved> {
        let (Some(_), Some(bus)) = (program("systemd-resolved"), find("dbus-daemon")) else {
            super::skip("resolved", "systemd-resolved and dbus-daemon are not installed (scripts/setup test)");
            return None;
        };
        let config = host.write("bus.conf", BUS.replace("ADDRESS", &socket(host).display().to_string()));
        let bus = host.spawn(format!("{} --config-file={} --nofork --nopidfile", bus.display(), config.display()));
        within(SHORTLY, "the message bus", || socket(host).exists().then_some(()));
        let folder = folder(host);
        fs::create_dir_all(&folder).expect("a folder in the host's folder");
        host.exec(format!("chown systemd-resolve: {}", folder.display()));
        // The folders above are root's alone, and resolved is not root.
        for above in folder.ancestors().take_while(|above| above.starts_with(std::env::temp_dir())) {
            host.exec(format!("chmod o+x {}", above.display()));
        }
        host.write("lab.conf", format!("[Resolve]\n{section}\n"));
        let mut resolved = Resolved { host: host.clone(), authorities, process: None, _bus: bus };
        resolved.run();
        let link = host.etc().join("resolv.conf");
        fs::create_dir_all(host.etc()).expect("/etc/netns");
        let _ = fs::remove_file(&link);
        symlink(folder.join("stub-resolv.conf"), link).expect("our own folder");
        Some(resolved)
    }

    /// Starts it again, as after an upgrade.
    #[track_caller]
    pub fn restart(&mut self) {
        drop(self.process.take());
        self.run();
    }

    #[track_caller]
    fn run(&mut self) {
        let (folder, host) = (folder(&self.host), &self.host);
        let program = program("systemd-resolved").expect("it was there");
        // Its whole /run is a different one.
        let line = format!(
            "mount -t tmpfs none /run && mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d && \
             cp {}/lab.conf /run/systemd/resolved.conf.d/ && mount --bind {} /run/systemd/resolve && exec {}",
            host.dir().display(),
            folder.display(),
            program.display()
        );
        let mut command = host.command(["unshare", "--mount", "--", "sh", "-ec", &line]);
        with_bus(host, &mut command);
        if let Some(authorities) = &self.authorities {
            command.env("SSL_CERT_FILE", authorities);
        }
        let _ = fs::remove_file(folder.join("stub-resolv.conf"));
        let mut process = host.start(command, "systemd-resolved");
        within(SHORTLY, "systemd-resolved", || {
            if let Some(ended) = process.ended() {
                panic!("systemd-resolved ended with {}: {}", ended.code, ended.stderr);
            }
            folder.join("stub-resolv.conf").exists().then_some(())
        });
        self.process = Some(process);
    }

    /// What `resolvectl` prints.
    #[track_caller]
    pub fn ctl(&self, line: &str) -> String {
        let program = program("resolvectl").expect("it comes with resolved");
        let mut command = self.host.command(format!("{} {line}", program.display()));
        with_bus(&self.host, &mut command);
        self.host.start(command, "resolvectl").finish_within(SHORTLY).succeeded(&format!("resolvectl {line}"))
    }
}

/// Lets a program find the bus of a host.
pub fn with_bus(host: &Host, command: &mut Command) {
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", socket(host).display()));
}

fn program(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| PathBuf::from(folder).join(name)).find(|path| path.exists())
}

fn socket(host: &Host) -> PathBuf {
    host.dir().join("bus")
}

fn folder(host: &Host) -> PathBuf {
    host.dir().join("resolve")
}
