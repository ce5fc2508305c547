//! The state of our table, read from the kernel over nfnetlink.
//!
//! The `nft` program is not used for this. The state is read for every status, and whenever another program has touched
//! our table, and a new process each time would cost too much. Only what we need is read: one table, its chains by
//! name, its rules, its counters.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

use super::table::{CHAINS, OUTSIDE_TUNNEL, WEAK_HOST};
use super::{Counters, NftError, table_name};
use crate::netlink::notice::{self, HEADER_LEN};

/// NFNL_SUBSYS_NFTABLES, the high byte of every message's type.
const SUBSYSTEM: u16 = 10;
/// Message types, NFT_MSG_*.
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_OBJECT: u16 = 19;
/// NFPROTO_INET.
const FAMILY_INET: u8 = 1;
/// Attribute numbers. The table's name is 1 in every message. The name of a chain is 3, the name of an object is 2.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
/// NFT_OBJECT_COUNTER, and the number of packets in its data.
const OBJECT_COUNTER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;
/// Length of `nfgenmsg`.
const GENERIC_LEN: usize = 4;
/// NLM_F_REQUEST, NLM_F_DUMP and NLM_F_DUMP_INTR.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;
/// NLMSG_ERROR and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// More than one datagram of an answer can hold.
const BUFFER_LEN: usize = 64 * 1024;
/// How many times a list is requested if it keeps changing while it is read.
const ATTEMPTS: usize = 8;

/// The state of a table, for comparison: equal shapes have the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Vec<u8>);

/// The state of our table. `None` if it does not exist.
pub(super) fn shape(interface: &str) -> Result<Option<Shape>, NftError> {
    let table = terminated(&table_name(interface)?);
    let kernel = Kernel::connect()?;
    let mut shape = Vec::new();
    match kernel.ask(GET_TABLE, REQUEST, &[(TABLE, &table)]) {
        Ok(answers) => answers.iter().for_each(|answer| shape.extend_from_slice(answer)),
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    for chain in CHAINS {
        match kernel.ask(GET_CHAIN, REQUEST, &[(TABLE, &table), (CHAIN_NAME, &terminated(chain))]) {
            Ok(answers) => answers.iter().for_each(|answer| shape.extend_from_slice(answer)),
            // A table without a lock has only one of the chains.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match kernel.ask(GET_RULE, REQUEST | DUMP, &[(TABLE, &table)]) {
        Ok(answers) => answers.iter().for_each(|answer| shape.extend_from_slice(answer)),
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    Ok(Some(Shape(shape)))
}

/// The counters of our table. `None` if the table does not exist.
pub(super) fn counters(interface: &str) -> Result<Option<Counters>, NftError> {
    let table = terminated(&table_name(interface)?);
    let kernel = Kernel::connect()?;
    let packets = |name: &str| -> io::Result<u64> {
        let kind = OBJECT_COUNTER.to_be_bytes();
        let name = terminated(name);
        let answers =
            kernel.ask(GET_OBJECT, REQUEST, &[(TABLE, &table), (OBJECT_NAME, &name), (OBJECT_TYPE, &kind)])?;
        let data = answers.first().and_then(|answer| notice::attribute(answer, OBJECT_DATA));
        let packets = data.and_then(|data| notice::attribute(data, COUNTER_PACKETS)?.try_into().ok());
        packets.map(u64::from_be_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    match packets(WEAK_HOST).and_then(|weak_host| Ok(Counters { weak_host, outside_tunnel: packets(OUTSIDE_TUNNEL)? }))
    {
        Ok(counters) => Ok(Some(counters)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the error means that the interface's table, or an object in it, does not exist.
fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// A connection for a few requests. The kernel answers before the send call returns, so reading never blocks.
struct Kernel {
    socket: OwnedFd,
}

impl Kernel {
    fn connect() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket })
    }

    /// The attributes of all answers.
    fn ask(&self, message: u16, flags: u16, attributes: &[(u16, &[u8])]) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..ATTEMPTS {
            if let Some(answers) = self.ask_once(message, flags, attributes)? {
                return Ok(answers);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Like [`Kernel::ask`], but returns `None` if the list changed while it was read.
    fn ask_once(&self, message: u16, flags: u16, attributes: &[(u16, &[u8])]) -> io::Result<Option<Vec<Vec<u8>>>> {
        let question = encode(message, flags, attributes);
        send(self.socket.as_fd(), &question, SendFlags::empty())?;
        let (mut answers, mut is_whole) = (Vec::new(), true);
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            let (_, len) = recv(self.socket.as_fd(), buffer.as_mut_slice(), RecvFlags::empty())?;
            for answer in notice::messages(buffer.get(..len).unwrap_or_default()) {
                is_whole &= answer.flags & INTERRUPTED == 0;
                match answer.kind {
                    DONE => return Ok(is_whole.then_some(answers)),
                    ERROR => {
                        let code = answer.payload.first_chunk().map(|code| i32::from_ne_bytes(*code)).unwrap_or(0);
                        if code == 0 {
                            return Ok(Some(answers));
                        }
                        if code == -libc::EINTR {
                            return Ok(None);
                        }
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    // The generic header is cut off: it holds a number that changes with every nft transaction on the
                    // host.
                    _ => answers.push(answer.payload.get(GENERIC_LEN..).unwrap_or_default().to_vec()),
                }
            }
            if flags & DUMP == 0 {
                return Ok(Some(answers));
            }
        }
    }
}

fn encode(message: u16, flags: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes.extend([FAMILY_INET, 0, 0, 0]);
    for (kind, value) in attributes {
        // An attribute's length includes its 4-byte header.
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..6].copy_from_slice(&(SUBSYSTEM << 8 | message).to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}
