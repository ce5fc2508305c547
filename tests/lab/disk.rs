//! A disk of its own for the state folder of a host: ext4 in a file, through a loop device.
//!
//! The file is mounted in a mount namespace that lives as long as one process of the host, which dies with the test. So
//! nobody else sees the mount, and nothing of it is left, also if the test is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::host::Host;
use super::process::{Finished, Process};
use super::wait::{SHORTLY, within};
use super::{installed, skip};

/// The size of the file system in KiB: it is read as a whole in a millisecond, and has room for a journal.
const KIB: u64 = 4_096;

/// A mounted file system. Dropping it unmounts it, once the programs that use it have ended.
pub struct Disk {
    keeper: Process,
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Makes an empty file system and mounts it at a folder of the host. `None` if this machine cannot.
    pub fn new(host: &Host, at: &Path) -> Option<Disk> {
        if !installed("ext4", &["mkfs.ext4", "nsenter", "unshare", "setpriv"]) {
            return None;
        }
        let image = host.dir().join("disk.img");
        let file = fs::File::create(&image).expect("a file in the host's folder");
        file.set_len(KIB * 1_024).expect("a file with a hole");
        let made = Command::new("mkfs.ext4").args(["-q", "-b", "1024", "-m", "0", "-J", "size=1"]).arg(&image).output();
        Finished::from(made.expect("mkfs.ext4")).succeeded("mkfs.ext4");
        Disk::of(host, at, &image)
    }

    /// Mounts a file system that exists. `None` if this machine cannot.
    pub fn of(host: &Host, at: &Path, image: &Path) -> Option<Disk> {
        fs::create_dir_all(at).expect("a folder in the host's folder");
        let keeper = host.spawn("setpriv --pdeathsig KILL unshare -m --propagation private sleep infinity");
        let disk = Disk { keeper, image: image.to_owned(), at: at.to_owned() };
        let comm = PathBuf::from(format!("/proc/{}/comm", disk.keeper.pid()));
        within(SHORTLY, "a mount namespace", || (fs::read_to_string(&comm).ok()?.trim() == "sleep").then_some(()));
        let mounted = disk.run(&format!("mount -o loop {} {}", image.display(), at.display()));
        if mounted.code != 0 {
            skip("ext4", &format!("no loop device: {}", mounted.stderr));
            return None;
        }
        Some(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The same command of the host, where this disk is mounted.
    pub fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["-m", "-n", "-t", &self.keeper.pid().to_string(), "--"]);
        // Without "netns exec NAME", which the namespace of the process stands for.
        inside.args(command.get_args().skip(3));
        for (name, value) in command.get_envs() {
            inside.env(name, value.unwrap_or_default());
        }
        inside
    }

    /// Runs a line of shell where the disk is mounted.
    pub fn run(&self, line: &str) -> Finished {
        let pid = self.keeper.pid().to_string();
        let output = Command::new("nsenter").args(["-m", "-n", "-t", &pid, "sh", "-ec", line]).output();
        output.expect("nsenter").into()
    }

    /// Copies what would be on the disk if the power failed at this moment: what was written to the loop device. The
    /// moment is between the returned times.
    #[track_caller]
    pub fn as_after_a_power_loss(&self, to: &Path) -> (Instant, Instant) {
        let read = || fs::read(&self.image).expect("the file of the loop device");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // Two equal reads: nothing was written between them, so this was the content at one moment.
            let (from, first) = (Instant::now(), read());
            if first == read() {
                let until = Instant::now();
                fs::write(to, first).expect("a file in the lab's folder");
                return (from, until);
            }
            assert!(from < deadline, "something writes all the time");
        }
    }

    /// Fills it until nothing more can be written.
    #[track_caller]
    pub fn fill(&self) {
        // First with one file, then with many small ones, which need no lists of their own. Some room appears only when
        // all of it is on the disk.
        let line = "mkdir -p $at; cat /dev/zero > $at/all || true; n=0; for round in 1 2 3; do \
                    while head -c 1024 /dev/zero > $at/$n; do n=$((n + 1)); done; sync -f $at; done";
        self.run(&format!("at={}/filler; {line}", self.at.display())).succeeded("the filler");
        let probe =
            self.run(&format!("if echo probe > {0}/probe; then exit 1; fi; rm -f {0}/probe", self.at.display()));
        assert_eq!(probe.code, 0, "there is still room");
    }

    /// Makes room again.
    #[track_caller]
    pub fn make_room(&self) {
        self.run(&format!("rm -r {0}/filler; sync -f {0}", self.at.display())).succeeded("rm");
    }
}
