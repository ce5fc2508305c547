//! A host with systemd as its first process, in its own namespaces. The installed files are tested unchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::host::overlay_program;
use crate::lab::{Finished, Host, POLL, Process, SHORTLY, within};

/// Systemd, running on a host of a lab. Dropping it removes it with everything that it started.
pub(crate) struct Machine {
    host: Host,
    pid: u32,
    systemd: Option<Process>,
    cgroup: PathBuf,
}

impl Machine {
    /// Boots it with overlay installed, and waits until it accepts commands.
    #[track_caller]
    pub(crate) fn boot(host: &Host) -> Machine {
        let cgroup = cgroup_folder().join(host.namespace());
        fs::create_dir(&cgroup).expect("a control group");
        let repository = env!("CARGO_MANIFEST_DIR");
        let line = format!(
            "echo $$ > {}/cgroup.procs && exec nsenter --net=/run/netns/{} unshare --mount --pid --ipc --uts --cgroup \
             --fork --kill-child bash {repository}/tests/unit/boot.sh {} {repository} {}",
            cgroup.display(),
            host.namespace(),
            host.dir().display(),
            overlay_program().display(),
        );
        let mut command = Command::new("bash");
        command.args(["-c", &line]);
        let systemd = host.start(command, "systemd");
        let parent = systemd.pid();
        // From here on, everything is removed again whatever happens.
        let mut machine = Machine { host: host.clone(), pid: 0, systemd: Some(systemd), cgroup };
        machine.pid = within(SHORTLY, "systemd to be there", || {
            if let Some(ended) = machine.systemd.as_mut().and_then(Process::ended) {
                panic!("systemd ended: {ended:?}");
            }
            let child = Command::new("pgrep").args(["-P", &parent.to_string()]).output().expect("procps is installed");
            let pid: u32 = String::from_utf8_lossy(&child.stdout).trim().parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "systemd").then_some(pid)
        });
        within(SHORTLY, "systemd to take orders", || {
            (machine.run("systemctl is-active lab.target").code == 0).then_some(())
        });
        machine
    }

    /// Runs a line of shell there, as root.
    pub(crate) fn run(&self, line: &str) -> Finished {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.pid.to_string(),
            "--mount",
            "--net",
            "--pid",
            "--cgroup",
            "--wd=/",
            "sh",
            "-c",
            line,
        ]);
        command.env("NO_COLOR", "1").output().expect("util-linux is installed").into()
    }

    /// Runs a line of shell that must succeed, and returns its standard output.
    #[track_caller]
    pub(crate) fn exec(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, 0, "`{line}`: {said:?}\n{}", self.log());
        said.stdout
    }

    /// The log of the unit.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.host.dir().join("unit.log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.pid > 0 {
            eprintln!("--- the unit's log\n{}", self.log());
            eprintln!("{}", self.run("systemctl --no-pager --full status 'overlay@*'").stdout);
        }
        drop(self.systemd.take());
        // When the first process of a PID namespace is killed, the others disappear a moment later.
        for _ in 0..100 {
            if remove_groups(&self.cgroup) {
                break;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Whether the control group and all groups below it could be removed.
fn remove_groups(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    for group in below.filter(|path| path.is_dir()) {
        remove_groups(&group);
    }
    fs::remove_dir(group).is_ok()
}

/// Where cgroup v2 is mounted.
fn cgroup_folder() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc");
    let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = words.find(|words| words.get(2) == Some(&"cgroup2")).expect("control groups of version 2");
    PathBuf::from(found[1])
}
