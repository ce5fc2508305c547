//! Hands open sockets to a different process: SCM_RIGHTS, unix(7).
//!
//! They travel with bytes over a unix socket. A program that may connect to that socket gets them, so its file must be closed to
//! others.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The most sockets in one message.
pub const MAX: usize = 4;

/// Sends bytes and, with the first of them, open sockets. Returns how many bytes were sent.
///
/// # Errors
/// The system's. `InvalidInput` for more than [`MAX`] sockets, or for none.
pub fn send(stream: impl AsFd, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if sockets.is_empty() || sockets.len() > MAX || !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives bytes and the sockets that came with them. 0 bytes: the other end has closed. Programs that we start do not
/// inherit the sockets.
///
/// # Errors
/// The system's. `InvalidData` if there were more than [`MAX`] sockets: the rest is closed.
pub fn receive(stream: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let of_message = |message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    };
    let sockets = control.drain().filter_map(of_message).flatten().collect();
    if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many sockets were handed over"));
    }
    Ok((received.bytes, sockets))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn a_listener_goes_on_in_the_hands_of_its_receiver() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(send(&ours, b"take it", &[listener.as_fd()]).unwrap(), 7);
        drop(listener);
        let mut bytes = [0; 64];
        let (len, mut sockets) = receive(&theirs, &mut bytes).unwrap();
        assert_eq!((&bytes[..len], sockets.len()), (&b"take it"[..], 1));
        let socket = sockets.pop().unwrap();
        assert!(fcntl_getfd(&socket).unwrap().contains(FdFlags::CLOEXEC));
        TcpStream::connect(address).expect("it was never closed");
        assert_eq!(TcpListener::from(socket).local_addr().unwrap(), address);
    }

    #[test]
    fn bytes_without_sockets_and_too_many_sockets_are_told_apart() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"only bytes").unwrap();
        let (len, sockets) = receive(&theirs, &mut [0; 64]).unwrap();
        assert_eq!((len, sockets.len()), (10, 0));
        assert!(send(&ours, b"none", &[]).is_err());
        assert!(send(&ours, b"many", &[theirs.as_fd(); MAX + 1]).is_err());
        drop(ours);
        assert_eq!(receive(&theirs, &mut [0; 64]).unwrap().0, 0);
    }
}
