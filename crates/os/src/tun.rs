//! The TUN device: where IP packets leave the kernel for us and enter it again.
//!
//! With offload, every packet has a virtio header in front, and the kernel passes and accepts whole super-packets of up
//! to 64 KiB. That increases throughput by a factor of three to four. `overlay_wire::offload` defines the header's
//! meaning. The node cuts and joins super-packets.
//!
//! The device, with its addresses and routes, exists for as long as [`Tun`] lives. [`crate::netlink`] brings it up and
//! gives it addresses. A packet waits in the kernel's queue until it is read. Netlink also sets the length of that
//! queue.
//!
//! `tun-rs` opens the device. It creates a missing `/dev/net/tun` and joins a device that already exists. Both would
//! hide a mistake, so we check for them first and refuse. A [`LinkWatch`] reports what others do to the interface
//! later.

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

/// The reason why a TUN device could not be created.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel has no TUN driver, or this container does not have the device.
    #[error("there is no /dev/net/tun")]
    NoDevice,
    /// CAP_NET_ADMIN is missing.
    #[error("creating a network interface is not permitted")]
    Permission,
    /// An interface with this name, of any kind, already exists.
    #[error("an interface of that name exists")]
    Busy,
    /// The name is empty, longer than 15 bytes, or has a character that the kernel refuses.
    #[error("not a valid name for an interface")]
    Name,
    /// Any other error.
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
    /// Creates the interface `name`, which is down and has no address. `offload` requests virtio headers.
    ///
    /// # Errors
    /// See [`TunError`]. After an error nothing is left behind.
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
            .inherit_enable_state() // it is brought up once it has its addresses
            .with(|options| {
                options.offload(offload);
            })
            .build_sync()
            .map_err(|error| classify(error, name))?;
        device.set_nonblocking(true)?;
        // The interface is already gone: another program deleted it between the two calls.
        let index = interface::index_of(name)?.ok_or(TunError::Io(io::ErrorKind::NotFound.into()))?;
        Ok(Self { device, name: name.to_owned(), index, offload })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, as used in netlink calls.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether packets have a virtio header, in both directions.
    pub fn has_offload(&self) -> bool {
        self.offload
    }

    /// Whether the kernel also joins and segments UDP (Linux 6.2). False without offload.
    pub fn has_udp_offload(&self) -> bool {
        self.device.udp_gso()
    }

    /// Reads one packet. With offload, that is the 10-byte virtio header and then up to 65,535 bytes. A packet longer
    /// than `buffer` is truncated.
    ///
    /// # Errors
    /// `WouldBlock` if there is no packet. EBADFD if another program deleted the interface.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buffer)
    }

    /// Writes one packet, given in parts, in the same format as [`Tun::read`].
    ///
    /// # Errors
    /// EIO while the interface is down. EINVAL for a virtio header that contradicts its packet (and, on some kernels,
    /// for any super-packet). `WouldBlock` if the kernel has no memory for it. `InvalidInput` for more than 1,024
    /// parts.
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
        // ENODEV and ENXIO: the device node exists, but the driver does not.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDevice,
        // A different process holds a TUN with this name open.
        Some(libc::EBUSY | libc::EEXIST) => TunError::Busy,
        // A link of a different kind has this name: another program created it after our check.
        Some(libc::EINVAL) if matches!(interface::index_of(name), Ok(Some(_))) => TunError::Busy,
        _ => TunError::Io(error),
    }
}

#[cfg(test)]
mod tests;
