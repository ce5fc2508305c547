//! The TUN device: where IP packets leave the kernel for us and enter it again.
//!
//! With offload, every packet carries the virtio header before it, and the kernel hands over and takes whole
//! super-packets of up to 64 KiB: that is worth a factor of three to four in throughput. The header's meaning is
//! `overlay_wire::offload`'s; cutting and joining super-packets is the node's.
//!
//! The device exists for as long as [`Tun`] lives, and with it its addresses and routes. Bringing it up and giving it
//! addresses is [`crate::netlink`]'s. Until it is read, a packet waits in the kernel's queue, whose length is netlink's too.
//!
//! The device is opened by `tun-rs`, which creates a missing `/dev/net/tun` and joins a device that already exists.
//! Both would hide a mistake, so both are refused here beforehand. What others do to the interface afterwards, a
//! [`LinkWatch`] tells.

mod queue;
mod watch;
mod whereabouts;

pub use queue::dropped_packets;
pub use watch::{LinkWatch, TunLink};

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::interface;

const CONTROL_DEVICE: &str = "/dev/net/tun";

/// Why no TUN device could be created.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel has no TUN driver, or this container was not given the device.
    #[error("there is no /dev/net/tun")]
    NoDevice,
    /// CAP_NET_ADMIN is missing.
    #[error("creating a network interface is not permitted")]
    Permission,
    /// An interface of that name exists, of whatever kind.
    #[error("an interface of that name exists")]
    Busy,
    /// The name is empty, longer than 15 bytes or holds a character that the kernel refuses.
    #[error("not a valid name for an interface")]
    Name,
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A TUN device of our own. Dropping it deletes the interface.
pub struct Tun {
    device: SyncDevice,
    name: String,
    index: u32,
    offload: bool,
}

impl Tun {
    /// Creates the interface `name`, which is down and has no address. `offload` asks for virtio headers.
    ///
    /// # Errors
    /// See [`TunError`]; nothing is left behind.
    pub fn create(name: &str, offload: bool) -> Result<Self, TunError> {
        if !interface::is_valid_name(name) {
            return Err(TunError::Name);
        }
        if !Path::new(CONTROL_DEVICE).exists() {
            return Err(TunError::NoDevice);
        }
        if interface::index_of(name)?.is_some() {
            return Err(TunError::Busy);
        }
        let device = DeviceBuilder::new()
            .name(name)
            .inherit_enable_state() // it comes up when it has its addresses
            .with(|options| {
                options.offload(offload);
            })
            .build_sync()
            .map_err(|error| classify(error, name))?;
        device.set_nonblocking(true)?;
        // Gone already: somebody deleted it between the two calls.
        let index = interface::index_of(name)?.ok_or(TunError::Io(io::ErrorKind::NotFound.into()))?;
        Ok(Self { device, name: name.to_owned(), index, offload })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, which netlink takes.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether packets carry a virtio header, in both directions.
    pub fn has_offload(&self) -> bool {
        self.offload
    }

    /// Whether the kernel also joins and cuts UDP (Linux 6.2). Without offload: false.
    pub fn has_udp_offload(&self) -> bool {
        self.device.udp_gso()
    }

    /// Reads one packet: with offload the 10 bytes of the virtio header and then up to 65,535 bytes. A packet that is
    /// longer than `buffer` is cut short.
    ///
    /// # Errors
    /// `WouldBlock` when there is none. EBADFD when the interface was deleted under us.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buffer)
    }

    /// Writes one packet that lies in pieces, framed as [`Tun::read`] frames it.
    ///
    /// # Errors
    /// EIO while the interface is down, EINVAL for a virtio header that contradicts its packet (and, on some kernels,
    /// for any super-packet), `WouldBlock` when the kernel has no memory for it, `InvalidInput` above 1,024 pieces.
    pub fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.device.send_vectored(parts)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn classify(error: io::Error, name: &str) -> TunError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::Permission,
        // ENODEV and ENXIO: the node is there, the driver is not.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDevice,
        // A TUN of that name that somebody holds open.
        Some(libc::EBUSY | libc::EEXIST) => TunError::Busy,
        // Another kind of link of that name, if there is one: somebody was faster after our check.
        Some(libc::EINVAL) if matches!(interface::index_of(name), Ok(Some(_))) => TunError::Busy,
        _ => TunError::Io(error),
    }
}

#[cfg(test)]
mod tests;
