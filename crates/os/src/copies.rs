//! Whether this process, or the machine that it runs on, was copied while it ran.
//!
//! Two copies of one process hold the same session keys and would use the same nonces. There are three signs. The kernel
//! wipes a page of memory in a forked process. The machine's boot id is different in a process that was frozen and taken
//! to a different machine. A virtual machine that runs from a copy is given a new generation id, which its kernel announces
//! (Linux 6.10 and later, where the hypervisor has such an id).
//!
//! A process that was frozen and continued twice under one kernel shows no sign, and neither does a copied virtual machine
//! without a generation id.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::time::Duration;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

use crate::clock::boottime;

/// The boot id is read this often at most.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The length of a boot id as text.
const BOOT_ID_LEN: usize = 36;
/// The multicast group of the kernel's own announcements.
const FROM_KERNEL: u32 = 1;
/// What the kernel says of a new generation id.
const NEW_GENERATION: &[u8] = b"NEW_VMGENID=1";
/// The longest announcement of the kernel is 2 KiB.
const ANNOUNCEMENT_LEN: usize = 4_096;
/// How many announcements are read at a time.
const ANNOUNCEMENTS_A_TURN: usize = 64;

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// This process is the child of a fork.
    Process,
    /// This process continues on a different machine, or after a boot.
    Boot,
    /// The virtual machine continues from a copy.
    Machine,
}

/// Watches for copies of this process.
#[derive(Debug)]
pub struct CopyWatch {
    page: Option<WipedPage>,
    boot_id: Option<(File, [u8; BOOT_ID_LEN])>,
    looked: Duration,
    announcements: Option<OwnedFd>,
}

impl CopyWatch {
    /// Starts watching. What this kernel does not offer is not watched.
    pub fn start() -> Self {
        let boot_id = File::open(BOOT_ID).ok().and_then(|file| Some((read_boot_id(&file)?, file)));
        Self {
            page: WipedPage::new().ok(),
            boot_id: boot_id.map(|(id, file)| (file, id)),
            looked: boottime(),
            announcements: announcements().ok(),
        }
    }

    /// Becomes readable when the kernel announces something. `None`: it announces nothing to this process.
    pub fn announcements(&self) -> Option<&impl AsFd> {
        self.announcements.as_ref()
    }

    /// Reads what the kernel has announced.
    pub fn on_announcement(&self) -> Option<Copied> {
        let socket = self.announcements.as_ref()?;
        let mut text = [0; ANNOUNCEMENT_LEN];
        let mut found = None;
        for _ in 0..ANNOUNCEMENTS_A_TURN {
            let Ok((len, _, from)) = recvfrom(socket, &mut text[..], RecvFlags::DONTWAIT) else { break };
            let is_kernel =
                from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
            if is_kernel && is_new_generation(&text[..len]) {
                found = Some(Copied::Machine);
            }
        }
        found
    }

    /// Whether the process was copied since the last call. `now` is the time on [`crate::clock::boottime`]. It reads memory,
    /// and every 100 ms a file.
    pub fn take(&mut self, now: Duration) -> Option<Copied> {
        if self.page.as_ref().is_some_and(WipedPage::take_wiped) {
            return Some(Copied::Process);
        }
        if now.abs_diff(self.looked) < LOOK_AGAIN {
            return None;
        }
        self.looked = now;
        let (file, known) = self.boot_id.as_mut()?;
        let found = read_boot_id(file).filter(|found| found != known)?;
        *known = found;
        Some(Copied::Boot)
    }
}

/// A page of memory that is zero in a forked process.
#[derive(Debug)]
struct WipedPage(NonNull<u64>);

// SAFETY: the page belongs to this value alone.
unsafe impl Send for WipedPage {}

impl WipedPage {
    fn new() -> io::Result<Self> {
        let len = rustix::param::page_size();
        // SAFETY: a new mapping is made where the kernel likes, so no other memory is touched.
        let page = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let mapped = Self(NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?);
        // SAFETY: the range is the mapping made above, in which nothing is kept yet.
        unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }?;
        mapped.write(1);
        Ok(mapped)
    }

    fn take_wiped(&self) -> bool {
        // SAFETY: the page is mapped, readable and aligned as long as this value lives.
        let is_wiped = unsafe { self.0.read_volatile() } == 0;
        if is_wiped {
            self.write(1);
        }
        is_wiped
    }

    fn write(&self, value: u64) {
        // SAFETY: the page is mapped, writable and aligned as long as this value lives, and nobody else has the pointer.
        unsafe { self.0.write_volatile(value) }
    }
}

impl Drop for WipedPage {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping, and no pointer into it remains.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), rustix::param::page_size()) };
    }
}

fn read_boot_id(file: &File) -> Option<[u8; BOOT_ID_LEN]> {
    let mut id = [0; BOOT_ID_LEN];
    file.read_exact_at(&mut id, 0).ok()?;
    Some(id)
}

/// A socket on which the kernel announces changes of devices.
fn announcements() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    bind(&socket, &SocketAddrNetlink::new(0, FROM_KERNEL))?;
    Ok(socket)
}

/// Whether an announcement, a row of texts that end with a zero, says that the machine has a new generation id.
fn is_new_generation(announcement: &[u8]) -> bool {
    announcement.split(|byte| *byte == 0).any(|text| text == NEW_GENERATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_on_is_no_copy() {
        let mut watch = CopyWatch::start();
        assert!(watch.boot_id.is_some() && watch.page.is_some(), "every kernel of today has them");
        assert_eq!(watch.take(watch.looked), None);
        assert_eq!(watch.take(watch.looked + 2 * LOOK_AGAIN), None);
        assert_eq!(watch.on_announcement(), None);
    }

    #[test]
    fn the_child_of_a_fork_is_told_once() {
        let mut watch = CopyWatch::start();
        // SAFETY: the child only reads memory and ends, without anything that a different thread may have locked.
        match unsafe { libc::fork() } {
            0 => {
                let told = [watch.take(Duration::ZERO), watch.take(Duration::ZERO)];
                let is_right = told[0] == Some(Copied::Process) && told[1] != Some(Copied::Process);
                // SAFETY: this ends the child at once.
                unsafe { libc::_exit(if is_right { 7 } else { 1 }) }
            }
            child => {
                assert!(child > 0, "{}", io::Error::last_os_error());
                let mut status = 0;
                // SAFETY: the child is ours, and the pointer is to a value that lives.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
                assert_ne!(watch.take(Duration::ZERO), Some(Copied::Process), "the parent is no copy");
            }
        }
    }

    #[test]
    fn a_different_boot_id_is_told_once_and_looked_for_every_100_ms() {
        let mut watch = CopyWatch::start();
        let start = watch.looked;
        watch.boot_id.as_mut().expect("a boot id").1 = *b"00000000-0000-0000-0000-000000000000";
        assert_eq!(watch.take(start + LOOK_AGAIN - Duration::from_nanos(1)), None);
        assert_eq!(watch.take(start + LOOK_AGAIN), Some(Copied::Boot));
        assert_eq!(watch.take(start + 2 * LOOK_AGAIN), None);
        watch.boot_id.as_mut().expect("a boot id").1 = *b"00000000-0000-0000-0000-000000000000";
        assert_eq!(watch.take(Duration::ZERO), Some(Copied::Boot), "a clock that went back does not hide it");
    }

    #[test]
    fn only_a_whole_text_is_a_new_generation() {
        let announced = b"change@/devices/LNXSYSTM:00/VMGENCTR:00\0ACTION=change\0SUBSYSTEM=platform\0NEW_VMGENID=1\0";
        assert!(is_new_generation(announced));
        for text in [&b"change@/x\0NEW_VMGENID=12\0"[..], b"change@/x\0SYNTH_ARG_NEW_VMGENID=1\0", b"", b"\0\0"] {
            assert!(!is_new_generation(text));
        }
    }

    /// Other programs may write to such sockets, and only the kernel counts.
    #[test]
    fn an_announcement_of_a_program_is_not_believed() {
        let watch = CopyWatch::start();
        let Some(socket) = &watch.announcements else { return eprintln!("this process hears no announcements") };
        let address = rustix::net::getsockname(socket).expect("bound");
        let sender = announcements().expect("a second socket");
        let text = b"change@/x\0NEW_VMGENID=1\0";
        match rustix::net::sendto(&sender, text, rustix::net::SendFlags::empty(), &address) {
            Ok(_) => assert_eq!(watch.on_announcement(), None),
            Err(error) => eprintln!("this kernel lets no program write to it: {error}"),
        }
    }
}
