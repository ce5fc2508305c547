//! sendmsg, sendmmsg, recvmsg and recvmmsg. None of them ever blocks.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{ControlBuffer, RawAddress};

/// The most messages that one system call carries.
pub(crate) const MESSAGES_MAX: usize = 64;

/// The result for one receive buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// How many bytes were written to it.
    pub(crate) len: usize,
    /// Whether the message was longer than the buffer.
    pub(crate) truncated: bool,
}

/// Sends one message. Without a `destination` it goes to the address that the socket is connected to.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    destination: Option<&RawAddress>,
    contents: &[u8],
    control: &ControlBuffer,
) -> io::Result<()> {
    let mut vector = vector_of(contents);
    let header = outgoing(destination, &mut vector, control);
    // SAFETY: `header` points to an address, a vector, contents and control messages with the lengths it gives. All of
    // them live across the call, and sendmsg only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An outgoing message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// The destination address.
    pub(crate) destination: &'a RawAddress,
    /// The payload.
    pub(crate) contents: &'a [u8],
    /// The control messages that accompany it.
    pub(crate) control: &'a ControlBuffer,
}

/// Sends the first [`MESSAGES_MAX`] of `messages` separately, and returns how many the kernel accepted: at least one
/// unless `messages` is empty. The kernel stops at the first message that it refuses. Its error appears only when that
/// message is sent again.
///
/// # Errors
/// Returns the kernel's error if it refused the first message.
pub(crate) fn send_many<'a>(socket: BorrowedFd<'_>, messages: impl Iterator<Item = Outgoing<'a>>) -> io::Result<usize> {
    // Unused elements stay uninitialised, since most calls carry only a few messages.
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MESSAGES_MAX];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_MAX];
    let mut count = 0;
    for ((header, vector), message) in headers.iter_mut().zip(&mut vectors).zip(messages) {
        let vector = vector.write(vector_of(message.contents));
        header
            .write(libc::mmsghdr { msg_hdr: outgoing(Some(message.destination), vector, message.control), msg_len: 0 });
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers were written above and point to data that lives across the call. sendmmsg looks
    // at no other headers, and writes only their `msg_len`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr().cast(), count, flags as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives one message.
///
/// # Errors
/// `WouldBlock` if there is no message.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    contents: &mut [u8],
    source: &mut RawAddress,
    control: &mut ControlBuffer,
) -> io::Result<Outcome> {
    let mut vector = vector_to(contents);
    let mut header = incoming(&mut vector, source, control);
    // SAFETY: `header` points to a vector, a buffer, an address and control space with the lengths it gives, all
    // borrowed mutably across the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    Ok(outcome(&header, len, source, control))
}

/// Receives all waiting messages, up to the number of slots. Message n goes to the n-th `slot_len` bytes of `contents`,
/// and its details to the n-th elements of the other slices. Returns how many messages there were.
///
/// # Errors
/// `WouldBlock` if there are no messages.
///
/// # Panics
/// Panics if the slices have different lengths or are longer than [`MESSAGES_MAX`].
pub(crate) fn receive_many(
    socket: BorrowedFd<'_>,
    contents: &mut [u8],
    slot_len: usize,
    sources: &mut [RawAddress],
    controls: &mut [ControlBuffer],
    outcomes: &mut [Outcome],
) -> io::Result<usize> {
    let slots = outcomes.len();
    assert!(slots <= MESSAGES_MAX && contents.len() == slots * slot_len);
    assert!(sources.len() == slots && controls.len() == slots);
    let mut vectors = [EMPTY_VECTOR; MESSAGES_MAX];
    let mut headers = [libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 }; MESSAGES_MAX];
    for (slot, buffer) in contents.chunks_exact_mut(slot_len).enumerate() {
        vectors[slot] = vector_to(buffer);
        headers[slot].msg_hdr = incoming(&mut vectors[slot], &mut sources[slot], &mut controls[slot]);
    }
    // SAFETY: the first `slots` headers were filled above with pointers to disjoint buffers of the lengths they give,
    // all borrowed mutably across the call. There is no timeout to read.
    let received = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), slots as _, libc::MSG_DONTWAIT as _, ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for slot in 0..received {
        let header = &headers[slot];
        outcomes[slot] = outcome(&header.msg_hdr, header.msg_len as usize, &mut sources[slot], &mut controls[slot]);
    }
    Ok(received)
}

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

fn empty_header() -> libc::msghdr {
    // SAFETY: this is a C struct of integers and pointers, with some private padding. Zero is a valid value for all of
    // them.
    unsafe { std::mem::zeroed() }
}

fn vector_of(contents: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: contents.as_ptr().cast_mut().cast(), iov_len: contents.len() }
}

fn vector_to(buffer: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
}

/// A header for sending, which only reads through its pointers.
fn outgoing(destination: Option<&RawAddress>, vector: &mut libc::iovec, control: &ControlBuffer) -> libc::msghdr {
    let mut header = empty_header();
    if let Some(destination) = destination {
        header.msg_name = destination.as_ptr().cast_mut();
        header.msg_namelen = destination.len() as libc::socklen_t;
    }
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    if control.len() > 0 {
        header.msg_control = control.as_ptr().cast_mut();
        header.msg_controllen = control.len() as _;
    }
    header
}

fn incoming(vector: &mut libc::iovec, source: &mut RawAddress, control: &mut ControlBuffer) -> libc::msghdr {
    let mut header = empty_header();
    header.msg_name = source.as_mut_ptr();
    header.msg_namelen = RawAddress::CAPACITY as libc::socklen_t;
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr();
    header.msg_controllen = ControlBuffer::CAPACITY as _;
    header
}

fn outcome(header: &libc::msghdr, len: usize, source: &mut RawAddress, control: &mut ControlBuffer) -> Outcome {
    source.set_len(header.msg_namelen as usize);
    control.set_len(header.msg_controllen as _);
    Outcome { len, truncated: header.msg_flags & libc::MSG_TRUNC != 0 }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket, RawAddress) {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to_b = RawAddress::new(b.local_addr().unwrap());
        (a, b, to_b)
    }

    #[test]
    fn one_message_arrives_with_its_source() {
        let (a, b, to_b) = pair();
        send(a.as_fd(), Some(&to_b), b"hello", &ControlBuffer::default()).unwrap();
        let (mut source, mut control, mut buffer) = (RawAddress::default(), ControlBuffer::default(), [0; 8]);
        let outcome = receive(b.as_fd(), &mut buffer, &mut source, &mut control).unwrap();
        assert_eq!((&buffer[..outcome.len], outcome.truncated), (&b"hello"[..], false));
        assert_eq!(source.decode(), Some(a.local_addr().unwrap()));
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_truncated_and_says_so() {
        let (a, b, to_b) = pair();
        send(a.as_fd(), Some(&to_b), b"hello", &ControlBuffer::default()).unwrap();
        let (mut source, mut control, mut buffer) = (RawAddress::default(), ControlBuffer::default(), [0; 2]);
        let outcome = receive(b.as_fd(), &mut buffer, &mut source, &mut control).unwrap();
        assert_eq!((&buffer[..], outcome.len, outcome.truncated), (&b"he"[..], 2, true));
    }

    #[test]
    fn many_messages_go_out_in_one_call_up_to_the_limit_and_come_in_likewise() {
        let (a, b, to_b) = pair();
        let messages: Vec<[u8; 2]> = (0..100).map(|n| [n, n + 1]).collect();
        let control = ControlBuffer::default();
        let outgoing = messages.iter().map(|contents| Outgoing { destination: &to_b, contents, control: &control });
        let taken = send_many(a.as_fd(), outgoing).unwrap();
        assert_eq!(taken, MESSAGES_MAX);

        let mut contents = vec![0; 8 * 4];
        let mut sources = vec![RawAddress::default(); 8];
        let mut controls = vec![ControlBuffer::default(); 8];
        let mut outcomes = vec![Outcome::default(); 8];
        for round in 0..8u8 {
            let received =
                receive_many(b.as_fd(), &mut contents, 4, &mut sources, &mut controls, &mut outcomes).unwrap();
            assert_eq!(received, 8);
            for slot in 0..8 {
                let first = round * 8 + slot as u8;
                assert_eq!(contents[slot * 4..][..outcomes[slot].len], [first, first + 1]);
                assert_eq!(sources[slot].decode(), Some(a.local_addr().unwrap()));
            }
        }
        let error = receive_many(b.as_fd(), &mut contents, 4, &mut sources, &mut controls, &mut outcomes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
