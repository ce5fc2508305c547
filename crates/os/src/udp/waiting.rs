//! Waiting with tokio until a socket can be read or written.
//!
//! A task that owns a socket keeps a [`Waiting`] beside it. It reads until nothing is left, and only then waits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::UdpSocket;
use crate::readable::wait;

/// Waits for a socket, which it keeps open.
#[derive(Debug)]
pub struct Waiting(AsyncFd<OwnedFd>);

impl UdpSocket {
    /// What waits for this socket. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Fails if the process has no file descriptors left.
    pub fn waiting(&self) -> io::Result<Waiting> {
        wait(self.as_fd().try_clone_to_owned()?, Interest::READABLE | Interest::WRITABLE).map(Waiting)
    }
}

impl Waiting {
    /// Waits until something has arrived since the last call. Can be cancelled.
    ///
    /// # Errors
    /// Fails if the runtime ends.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }

    /// Waits until the kernel takes more, after it has refused something. Can be cancelled.
    ///
    /// # Errors
    /// Fails if the runtime ends.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::udp::ReceiveBatch;
    use crate::udp::tests::{options, train};

    #[tokio::test]
    async fn a_task_wakes_when_something_arrives_and_only_then() {
        let loopback = Ipv4Addr::LOCALHOST.into();
        let (a, b) = [(); 2].map(|()| UdpSocket::bind_at(loopback, &options()).unwrap()).into();
        let waiting = b.waiting().unwrap();
        let to_b = (loopback, b.local_port()).into();
        let mut batch = ReceiveBatch::new(4);
        for _ in 0..3 {
            let nothing = tokio::time::timeout(Duration::from_millis(20), waiting.readable()).await;
            assert!(nothing.is_err(), "nothing has arrived");
            a.send(&train(to_b, b"hello", 5)).unwrap();
            tokio::time::timeout(Duration::from_secs(5), waiting.readable()).await.unwrap().unwrap();
            assert_eq!(b.receive(&mut batch, 4).unwrap(), 1);
        }
        waiting.writable().await.unwrap();
    }

    #[test]
    fn a_socket_on_one_address_leaves_the_port_to_the_others() {
        let first = UdpSocket::bind_at([127, 0, 0, 1].into(), &options()).unwrap();
        let same = crate::udp::BindOptions { port: first.local_port(), ..options() };
        let second = UdpSocket::bind_at([127, 0, 0, 2].into(), &same).unwrap();
        assert_eq!(first.local_port(), second.local_port());
        assert!(matches!(UdpSocket::bind_at([127, 0, 0, 1].into(), &same), Err(crate::udp::BindError::PortInUse)));
    }
}
