//! The links of this host as a rendezvous: announcements to trusted peers there, and theirs. See `overlay_rendezvous::lan`.
//!
//! Nothing is announced while all is well. This agent speaks when it looks for a peer, when it has moved and no rendezvous serves it,
//! and in return to a peer that looks for it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ipnet::IpNet;
use overlay_os::multicast;
use overlay_rendezvous::lan::{Announcement, GROUP_V4, GROUP_V6, MAX_LEN, MAX_TAGS, Own, PORT};
use overlay_wire::signed::PublicKey;
use tokio::net::UdpSocket;

use super::time::now;
use super::{Agent, Changed, ENDPOINTS, NOTHING};

/// How long an address counts at which a peer was heard.
const FRESH: Duration = Duration::from_secs(600);
/// The most addresses of one peer.
const MAX_PLACES: usize = 4;
/// How many announcements are judged in a second, and how many from one address. Each is compared with all peers.
const HEARD_A_SECOND: usize = 32;
const HEARD_FROM_ONE: usize = 4;
/// The shortest time between two answers for one peer.
const APART: Duration = Duration::from_secs(1);

/// What is said and heard on the links of this host.
#[derive(Debug, Default)]
pub(super) struct Lan {
    sockets: Vec<UdpSocket>,
    /// The links that have joined, by an address of ours.
    links: Vec<(IpAddr, u32)>,
    /// Where peers were heard, and when.
    found: BTreeMap<PublicKey, BTreeMap<SocketAddr, Duration>>,
    answered: BTreeMap<PublicKey, Duration>,
    second: u64,
    /// From where the announcements of this second came.
    heard: Vec<IpAddr>,
    /// Whether a link is not heard that should be.
    is_deaf: bool,
    counts: Arc<LanCounts>,
}

/// What was said and heard, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct LanCounts {
    sent: AtomicU64,
    found: AtomicU64,
    foreign: AtomicU64,
    malformed: AtomicU64,
    overrun: AtomicU64,
}

impl LanCounts {
    /// Each count with its word.
    pub(crate) fn list(&self) -> [(&'static str, u64); 5] {
        let Self { sent, found, foreign, malformed, overrun } = self;
        [("sent", sent), ("found", found), ("foreign", foreign), ("malformed", malformed), ("overrun", overrun)]
            .map(|(what, count)| (what, count.load(Relaxed)))
    }
}

/// A datagram that came to the port of announcements.
#[derive(Debug)]
pub(crate) struct Heard {
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Lan {
    /// Listens on these links, and on no other.
    fn listen(&mut self, links: Vec<(IpAddr, u32)>) {
        if self.links == links {
            return;
        }
        // A socket leaves its groups when it ends.
        self.sockets.clear();
        self.is_deaf = false;
        for is_ipv4 in [true, false] {
            let of_family: Vec<_> = links.iter().filter(|(ip, _)| ip.is_ipv4() == is_ipv4).collect();
            match listen(is_ipv4, &of_family) {
                Ok(None) => {}
                Ok(Some((socket, are_joined))) => {
                    self.sockets.push(socket);
                    self.is_deaf |= !are_joined;
                }
                Err(error) => {
                    self.is_deaf = true;
                    tracing::debug!(%error, is_ipv4, "peers on this LAN are not heard");
                }
            }
        }
        self.links = links;
    }

    /// The next datagram. Can be cancelled.
    pub(super) async fn next(&self) -> Heard {
        let hear = async |socket: Option<&UdpSocket>| {
            let Some(socket) = socket else { return std::future::pending().await };
            loop {
                // Memory is taken once there is something to read: this is asked at each turn of the agent.
                if socket.readable().await.is_err() {
                    continue;
                }
                let mut bytes = vec![0; MAX_LEN + 1];
                if let Ok((len, from)) = socket.try_recv_from(&mut bytes) {
                    bytes.truncate(len);
                    return Heard { from, bytes };
                }
            }
        };
        tokio::select! {
            heard = hear(self.sockets.first()) => heard,
            heard = hear(self.sockets.get(1)) => heard,
        }
    }

    /// Tries the links again that are not heard.
    pub(super) fn try_again(&mut self) {
        if self.is_deaf {
            self.links.clear();
            self.sockets.clear();
            self.is_deaf = false;
        }
    }

    /// Whether one more announcement from there may be judged in this second.
    fn may_hear(&mut self, from: IpAddr, now: Duration) -> bool {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.heard.clear();
        }
        let of_one = self.heard.iter().filter(|address| **address == from).count();
        let may = self.heard.len() < HEARD_A_SECOND && of_one < HEARD_FROM_ONE;
        if may {
            self.heard.push(from);
        }
        may
    }

    /// Notes where a peer was heard. Returns whether that is news.
    fn on_found(&mut self, peer: PublicKey, at: SocketAddr, now: Duration) -> bool {
        let places = self.found.entry(peer).or_default();
        places.retain(|_, heard| now < *heard + FRESH);
        let is_new = places.insert(at, now).is_none();
        while places.len() > MAX_PLACES {
            let oldest = places.iter().min_by_key(|(_, heard)| **heard).map(|(at, _)| *at);
            oldest.map(|at| places.remove(&at));
        }
        is_new
    }

    /// Where a peer was heard lately, the latest first.
    pub(super) fn places(&self, peer: &PublicKey, now: Duration) -> Vec<SocketAddr> {
        let places = self.found.get(peer).into_iter().flatten();
        let mut fresh: Vec<_> = places.filter(|(_, heard)| now < **heard + FRESH).collect();
        fresh.sort_by_key(|(_, heard)| std::cmp::Reverse(**heard));
        fresh.into_iter().map(|(at, _)| *at).collect()
    }

    /// Forgets peers that are not trusted any more.
    pub(super) fn retain(&mut self, is_trusted: impl Fn(&PublicKey) -> bool) {
        self.found.retain(|peer, _| is_trusted(peer));
        self.answered.retain(|peer, _| is_trusted(peer));
    }

    fn may_answer(&mut self, peer: PublicKey, now: Duration) -> bool {
        self.answered.retain(|_, at| now < *at + APART);
        !self.answered.contains_key(&peer) && self.answered.insert(peer, now).is_none()
    }
}

/// A socket that listens on these links, and whether all of them have joined. `None`: no link has the family.
fn listen(is_ipv4: bool, links: &[&(IpAddr, u32)]) -> io::Result<Option<(UdpSocket, bool)>> {
    if links.is_empty() {
        return Ok(None);
    }
    let socket = multicast::listen(is_ipv4, PORT)?;
    let mut are_joined = true;
    for link in links {
        if let Err(error) = multicast::join(&socket, group(is_ipv4).ip(), **link) {
            are_joined = false;
            tracing::debug!(%error, ?link, "peers on this link are not heard");
        }
    }
    Ok(Some((UdpSocket::from_std(socket)?, are_joined)))
}

fn group(is_ipv4: bool) -> SocketAddr {
    if is_ipv4 { (GROUP_V4, PORT).into() } else { (GROUP_V6, PORT).into() }
}

impl Agent {
    /// Listens on the links that this host has now. An agent without peers has nobody to hear, and the kernel tells each link of a
    /// group that is joined.
    pub(super) fn settle_lan(&mut self) {
        let listens = self.config.lan && self.open_peers().next().is_some();
        let links = if listens { self.candidates.links() } else { Vec::new() };
        self.lan.listen(links);
    }

    /// What was said and heard on links, for the metrics.
    pub(crate) fn lan_counts(&self) -> Arc<LanCounts> {
        Arc::clone(&self.lan.counts)
    }

    /// Announces this agent on all links to these peers, and asks them to announce themselves.
    pub(super) fn announce(&mut self, peers: &[PublicKey]) {
        for link in self.lan.links.clone() {
            self.announce_on(link, group(link.0.is_ipv4()), peers, true);
        }
    }

    fn announce_on(&self, link: (IpAddr, u32), to: SocketAddr, peers: &[PublicKey], asks: bool) {
        let (identity, at) = (&self.book.me(), SocketAddr::new(link.0, self.port));
        let keys = self.open_peers().filter(|open| peers.contains(&open.record.identity));
        let keys: Vec<_> = keys.map(|open| &*open.preshared_key.0).collect();
        let random = |bytes: &mut [u8]| {
            // Without randomness the tags of two announcements may look alike, and nothing else is lost.
            let _ = overlay_os::random::fill(bytes);
        };
        for keys in keys.chunks(MAX_TAGS) {
            let datagram = Own { identity, at, asks }.write(keys.iter().copied(), random);
            match multicast::send(&datagram, to, link) {
                Ok(()) => _ = self.lan.counts.sent.fetch_add(1, Relaxed),
                Err(error) => tracing::debug!(%error, ?link, "cannot announce this agent"),
            }
        }
    }

    /// Handles an announcement.
    pub(super) fn on_announcement(&mut self, heard: &Heard) -> Changed {
        let (from, now) = (heard.from.ip(), now().monotonic);
        // Only who lives on a link is answered there.
        let count = |of: &AtomicU64| {
            of.fetch_add(1, Relaxed);
            NOTHING
        };
        let counts = Arc::clone(&self.lan.counts);
        let Some(announcement) = Announcement::read(&heard.bytes, from) else { return count(&counts.malformed) };
        let Some(link) = self.link_of(from) else { return count(&counts.foreign) };
        if !self.lan.may_hear(from, now) {
            return count(&counts.overrun);
        }
        let sender = self.open_peers().find(|open| {
            let keys = [Some(open.preshared_key), open.former_preshared_key];
            keys.into_iter().flatten().any(|key| announcement.is_from(&open.record.identity, &key.0))
        });
        let Some(sender) = sender.map(|open| open.record.identity) else { return count(&counts.foreign) };
        count(&counts.found);
        let is_new = self.lan.on_found(sender, announcement.at(), now);
        if announcement.asks() && self.lan.may_answer(sender, now) {
            self.announce_on(link, SocketAddr::new(from, PORT), &[sender], false);
        }
        if !is_new {
            return NOTHING;
        }
        tracing::debug!(peer = %sender, at = %announcement.at(), "a peer is on this LAN");
        self.moved.insert(sender);
        ENDPOINTS
    }

    /// The link on which this address is, by an address of ours there.
    fn link_of(&self, ip: IpAddr) -> Option<(IpAddr, u32)> {
        let on_link = |link: &&(IpAddr, u32)| {
            let own = self.host.addresses.iter().find(|own| (own.ip, own.index) == **link);
            own.and_then(|own| IpNet::new(own.ip, own.prefix).ok()).is_some_and(|net| net.contains(&ip))
        };
        self.lan.links.iter().find(on_link).filter(|link| link.0 != ip).copied()
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::*;

    fn key(byte: u8) -> PublicKey {
        SecretKey::from_bytes(&[byte; 32]).public()
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ip(host: u8) -> IpAddr {
        [192, 0, 2, host].into()
    }

    #[test]
    fn one_neighbour_is_heard_four_times_a_second_and_all_of_them_thirty_two_times() {
        let mut lan = Lan::default();
        assert_eq!((0..1_000).filter(|millis| lan.may_hear(ip(1), at(*millis))).count(), HEARD_FROM_ONE);
        let others = (2..=250).filter(|host| lan.may_hear(ip(*host), at(999))).count();
        assert_eq!(others, HEARD_A_SECOND - HEARD_FROM_ONE);
        assert!(lan.may_hear(ip(1), at(1_000)), "a new second");
    }

    #[test]
    fn the_four_places_where_a_peer_was_heard_last_count_for_ten_minutes() {
        let mut lan = Lan::default();
        let place = |port| SocketAddr::new(ip(1), port);
        for port in 1..=6 {
            assert!(lan.on_found(key(1), place(port), at(u64::from(port) * 1_000)));
        }
        assert!(!lan.on_found(key(1), place(4), at(7_000)), "known");
        assert_eq!(lan.places(&key(1), at(7_000)), [4, 6, 5, 3].map(place));
        assert_eq!(lan.places(&key(1), at(605_500)), [4, 6].map(place));
        lan.retain(|peer| *peer != key(1));
        assert!(lan.places(&key(1), at(7_000)).is_empty());
    }

    #[test]
    fn one_peer_is_answered_once_a_second() {
        let mut lan = Lan::default();
        assert_eq!((0..3_000).filter(|millis| lan.may_answer(key(1), at(*millis))).count(), 3);
    }

    /// On loopback, without a group: what the kernel does on real links is seen in `tests/friends`.
    #[tokio::test]
    async fn a_link_that_cannot_be_joined_is_tried_again_at_the_next_look() {
        let mut lan = Lan::default();
        let gone = vec![(ip(1), 0)];
        lan.listen(gone.clone());
        assert!(lan.is_deaf);
        lan.try_again();
        assert!(!lan.is_deaf && lan.links.is_empty() && lan.sockets.is_empty());
        lan.listen(gone);
        assert!(lan.is_deaf, "it was tried again");
    }
}
