//! Debian's coturn as a TURN server (RFC 8656), and a client that sends through one channel of it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use crate::lab::{Host, Process, SHORTLY, inside, within};

/// The port of TURN.
pub(crate) const PORT: u16 = 3478;
const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
/// What is added to a request's type in the answer to one that succeeded.
const SUCCESS: u16 = 0x0100;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const CHANNEL: u16 = 0x4000;

/// Starts coturn, which relays from one address of the host to whom the other reaches.
pub(crate) fn coturn(host: &Host, listen: Ipv4Addr, relayed: Ipv4Addr) -> Process {
    let dir = host.dir().display();
    let process = host.spawn(format!(
        "turnserver -n -m 1 --no-auth --no-tls --no-dtls --no-cli --no-tcp --no-tcp-relay --log-file stdout --simple-log \
         -L {listen} -E {relayed} --userdb {dir}/turndb --pidfile {dir}/turnserver.pid"
    ));
    within(SHORTLY, "coturn's port", || {
        host.exec(format!("ss -Hlun sport = :{PORT}")).contains(&listen.to_string()).then_some(())
    });
    process
}

/// Binds a channel from the agent's address to a peer, and returns the agent's socket, connected to the server.
pub(crate) fn channel(host: &Host, server: Ipv4Addr, peer: SocketAddrV4) -> UdpSocket {
    inside(host, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        socket.connect((server, PORT)).expect("a way to the server");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        ask(&socket, ALLOCATE, &attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
        let magic = u32::from_be_bytes(MAGIC);
        let port = (peer.port() ^ (magic >> 16) as u16).to_be_bytes();
        let address = (peer.ip().to_bits() ^ magic).to_be_bytes();
        let xored = [&[0, 1][..], &port, &address].concat();
        let [high, low] = CHANNEL.to_be_bytes();
        let body = [attribute(CHANNEL_NUMBER, &[high, low, 0, 0]), attribute(XOR_PEER_ADDRESS, &xored)].concat();
        ask(&socket, CHANNEL_BIND, &body);
        socket
    })
}

/// Data for the channel: the head and so many bytes.
pub(crate) fn data(len: u16) -> Vec<u8> {
    [&CHANNEL.to_be_bytes()[..], &len.to_be_bytes(), &vec![7; len.into()]].concat()
}

/// Where the server is.
pub(crate) fn address(server: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((server, PORT))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn ask(socket: &UdpSocket, kind: u16, body: &[u8]) {
    let transaction = [kind as u8; 12];
    let request = [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), &MAGIC, &transaction, body].concat();
    socket.send(&request).expect("sent");
    let mut answer = [0; 1_500];
    let len = socket.recv(&mut answer).expect("coturn's answer");
    assert_eq!(answer[..2], (kind + SUCCESS).to_be_bytes(), "{:x?}", &answer[..len]);
}
