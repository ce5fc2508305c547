//! Words of our own that tests look for in a log, or in what `overlay status` shows to people. If you reword such a message,
//! change the words here too: a test that waits for the old words fails.
//!
//! What a verb says when it fails stands in golden files instead ([`Host::golden`](super::Host::golden)).

/// A reload could not read the private key's file again.
pub const KEY_STAYS: &str = "; the key in force stays";
/// The interface went away under a running daemon.
pub const CANNOT_GO_ON: &str = "cannot be used any more";
/// The daemon has restored what another program had removed.
pub const PUT_BACK: &str = "restored what another program had removed";
/// The same as `overlay status` shows it.
pub const PUT_BACK_SHOWN: &str = "restored";
/// Another program removes the same thing each time.
pub const FIGHT: &str = "another program keeps removing";
/// The program nft, which makes the guard, is missing.
pub const NO_NFT: &str = "nft is not installed";
/// A daemon that failed leaves the lock of a default route shut.
pub const LOCK_STAYS: &str = "does not leave this host until";
/// The guard has dropped packets that would have passed the tunnel by, as `overlay status` shows it.
pub const PAST_THE_TUNNEL: [&str; 2] = ["guard drops", "on their way past the tunnel"];
/// The guard has dropped two packets to a virtual IP, as `overlay status` shows it.
pub const TWO_FROM_ELSEWHERE: &str = "guard drops  2 to virtual IPs from elsewhere";
/// The kernel refused joined TCP for the TUN device.
pub const REFUSES_TCP: &str = "refuses TCP super-packets";
/// The kernel refused joined UDP for the TUN device.
pub const REFUSES_UDP: &str = "refuses UDP super-packets";
/// The same as `overlay status` shows it.
pub const TCP_REFUSED_SHOWN: &str = "tun_tcp refused by the kernel";
/// A train did not fit the way that it was to go.
pub const TOO_NARROW: &str = "too narrow";
/// The kernel refused a datagram.
pub const NOT_SENT: &str = "not sent";
/// The kernel dropped what the daemon did not read in time, as `overlay status` shows it.
pub const KERNEL_DROPS: &str = "kernel drops";
/// Those of them that came from peers.
pub const FROM_PEERS: &str = "from peers";
/// The port of the config is taken.
pub const PORT_TAKEN: &str = "UDP port 51820 is already in use";
/// A node without a private key, as `overlay status` shows it.
pub const NO_PRIVATE_KEY: &str = "no private key";
/// A host without IPv6 leaves the IPv6 addresses out.
pub const IPV6_OFF: &str = "this host has IPv6 switched off";
