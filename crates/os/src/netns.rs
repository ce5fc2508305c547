//! Identifies network namespaces.
//!
//! State that outlives the daemon records its namespace, so that a clean-up in a different namespace leaves it alone.

use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The inode of the calling thread's network namespace. It identifies the namespace for as long as it exists.
///
/// # Errors
/// Fails if `/proc` is not mounted.
pub fn current() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Moves the calling thread, and only that, into a new network namespace with nothing but a loopback device, which is
/// down. Processes and threads that it starts from then on live there too. The namespace disappears with the last of
/// them.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_ADMIN.
pub fn isolate_thread() -> io::Result<()> {
    // SAFETY: only the FILES flag could affect other threads' file descriptors. A network namespace does not touch
    // them.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Runs `test` on a thread in a network namespace of its own, or prints why that is not possible.
#[cfg(test)]
pub(crate) fn isolated(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let outcome = scope
            .spawn(|| match isolate_thread() {
                Ok(()) => test(),
                Err(error) => eprintln!("skipped: no network namespace can be made: {error}"),
            })
            .join();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Like [`isolated`], with a runtime for the netlink tasks, a netlink connection, and the loopback device up.
#[cfg(test)]
pub(crate) fn isolated_async<F: Future<Output = ()>>(test: impl FnOnce(crate::netlink::Netlink) -> F + Send) {
    isolated(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let netlink = crate::netlink::Netlink::connect().await.unwrap();
            let loopback = netlink.link("lo").await.unwrap().expect("every namespace has a loopback device");
            netlink.set_up(loopback.index).await.unwrap();
            test(netlink).await;
        });
    });
}

/// Drops all capabilities of the calling thread, for good.
#[cfg(test)]
pub(crate) fn drop_capabilities() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
}

/// Drops one capability of the calling thread and of everything that it starts.
#[cfg(test)]
pub(crate) fn drop_capability(capability: rustix::thread::CapabilitySet) {
    use rustix::thread::{capabilities, set_capabilities};

    let mut sets = capabilities(None).unwrap();
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(capability);
    }
    set_capabilities(None, sets).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_isolates_itself_changes_its_namespace_and_nobody_elses() {
        let outside = current().unwrap();
        isolated(|| assert_ne!(current().unwrap(), outside));
        assert_eq!(current().unwrap(), outside);
    }
}
