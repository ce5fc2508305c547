//! How facts are shown, and what is kept of them when the config changes. The tests of API, UAPI and metrics use these
//! fixtures too.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use overlay_core::{self as core, DropReason, Event, PathMtu, PathTag, PeerKey, PeerStats, PeerTag, Protocol, Rule};
use overlay_os::udp::{BindOptions, Family, UdpSocket};
use serde_json::json;
use zeroize::Zeroizing;

use super::*;
use crate::config::{self, Endpoint};
use crate::device::table::{Date, InterfaceEntry, PeerEntry};
use crate::engine::Sockets;
use crate::keys::PrivateKey;

/// The interface `overlay0` with the private key 10 11.. 51 and the public key aa..
pub(crate) fn interface() -> InterfaceEntry {
    InterfaceEntry {
        name: "overlay0".to_owned(),
        index: 7,
        public_key: Some(PeerKey([0xaa; 32])),
        private_key: PrivateKey::from_bytes(Zeroizing::new([0x11; 32])),
        former_keys: Vec::new(),
        addresses: vec!["10.77.0.1/24".parse().expect("a prefix")],
        mtu: 1420,
        max_mtu: 1440,
        listen_port: 51820,
        fwmark: None,
        config_file: PathBuf::from("/etc/overlay/overlay0.toml"),
        forward: false,
        started: Date::of(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
    }
}

/// A peer called bob with the key bb.., at 203.0.113.7:51820, for 10.77.0.2/32.
pub(crate) fn bob() -> config::Peer {
    config::Peer {
        name: Some("bob".to_owned()),
        endpoint: Some(Endpoint::Address(endpoint("203.0.113.7:51820"))),
        allowed_ips: vec!["10.77.0.2/32".parse().expect("a prefix")],
        mtu_discovery: true,
        ..config::Peer::of(PeerKey([0xbb; 32]))
    }
}

/// A peer without a name that calls us, with the key cc.. and the preshared key dd..
pub(crate) fn nameless() -> config::Peer {
    config::Peer {
        preshared_key: Some(Zeroizing::new([0xdd; 32])),
        allowed_ips: vec!["10.77.0.3/32".parse().expect("a prefix"), "fd00::/64".parse().expect("a prefix")],
        persistent_keepalive: Some(25),
        allow: Some(vec![
            Rule { protocol: Protocol::Icmp, ports: None },
            Rule { protocol: Protocol::Tcp, ports: Some(22..=22) },
            Rule { protocol: Protocol::Udp, ports: Some(8000..=8010) },
            Rule { protocol: Protocol::Number(47), ports: None },
        ]),
        mtu_discovery: true,
        ..config::Peer::of(PeerKey([0xcc; 32]))
    }
}

/// Creates the view of a daemon with these peers.
pub(crate) fn view(peers: impl IntoIterator<Item = config::Peer>) -> Arc<View> {
    let view = View::new(Arc::new(Table::new(interface())), Arc::default(), Arc::default());
    view.table().set_peers(peers.into_iter().map(|peer| (peer, Arc::default())));
    view
}

/// Makes the view watch the loopback device as its interface, with one socket.
#[must_use = "they are watched while they are open"]
pub(crate) fn watch_loopback(view: &View) -> Sockets {
    let options = BindOptions {
        port: 0,
        fwmark: None,
        receive_buffer: 100_000,
        send_buffer: 100_000,
        segmentation: true,
        coalescing: true,
    };
    let sockets = Sockets { v4: Some(UdpSocket::bind(Family::V4, &options).expect("a port")), v6: None };
    view.watch(Arc::new(Queues::of("lo", &sockets)));
    sockets
}

/// Completes a handshake with this peer, at `at` on one clock and at `wall` seconds since 1970 on the other.
pub(crate) fn shake_hands(view: &View, peer: u8, at: Instant, wall: u64) {
    let event = Event::HandshakeCompleted(tag(view, peer), at);
    view.table().on_event(event, |_| UNIX_EPOCH + Duration::new(wall, 5_000));
}

/// Reports this path MTU for a peer, at `wall` seconds since 1970.
pub(crate) fn find_path_mtu(view: &View, peer: u8, mtu: u16, state: overlay_core::PathMtuState, wall: u64) {
    let told = PathMtu { mtu, state, probed_by: core::ProbedBy::Echoes, limit: core::MtuLimit::Path, since: at(7) };
    view.table().on_event(Event::PathMtu(path(view, peer), told), |_| UNIX_EPOCH + Duration::from_secs(wall));
}

/// What the engine calls this peer; a peer that is not there is about to be.
pub(crate) fn tag(view: &View, peer: u8) -> PeerTag {
    view.table().tag_for(PeerKey([peer; 32])).expect("there are few peers")
}

/// What the engine calls the first path to it.
fn path(view: &View, peer: u8) -> PathTag {
    PathTag::from_bits(u64::from(tag(view, peer).to_bits()) << 32)
}

fn endpoint(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(seconds))
}

/// Returns the state of the peer bb.. at this second, after this many outer bytes were sent.
fn state(view: &View, seconds: u64, sent: u64) -> PeerState {
    view.table().read().peer(PeerKey([0xbb; 32])).expect("a peer").state(at(seconds), sent)
}

#[test]
fn a_peer_goes_from_idle_over_handshaking_to_connected_and_back() {
    let view = view([bob()]);
    assert_eq!(state(&view, 0, 0), PeerState::Idle);
    assert_eq!(state(&view, 1, 148), PeerState::Handshaking);
    shake_hands(&view, 0xbb, at(2), 1);
    assert_eq!(state(&view, 2, 148), PeerState::Connected);
    assert_eq!(state(&view, 181, 5_000), PeerState::Connected);
    // The session is over. What was sent so far was its traffic.
    assert_eq!(state(&view, 182, 5_000), PeerState::Idle);
    assert_eq!(state(&view, 190, 5_148), PeerState::Handshaking);
}

#[test]
fn a_peer_that_does_not_answer_is_unreachable_until_we_try_again() {
    let view = view([bob()]);
    assert_eq!(state(&view, 5, 0), PeerState::Idle);
    view.table().on_event(Event::HandshakeFailed(tag(&view, 0xbb)), |_| UNIX_EPOCH);
    assert_eq!(state(&view, 90, 0), PeerState::Unreachable);
    assert_eq!(state(&view, 95, 148), PeerState::Handshaking);
    shake_hands(&view, 0xbb, at(96), 1);
    assert_eq!(state(&view, 96, 148), PeerState::Connected);
    assert_eq!(state(&view, 400, 148), PeerState::Idle);
}

#[test]
fn a_peer_that_stops_to_answer_is_suspect_then_unreachable_and_connected_when_it_is_heard() {
    let view = view([bob()]);
    let tell = |answers| view.table().on_event(Event::Answering(tag(&view, 0xbb), answers), |_| UNIX_EPOCH);
    shake_hands(&view, 0xbb, at(2), 1);
    tell(false);
    assert_eq!(state(&view, 20, 5_000), PeerState::Suspect);
    tell(true);
    assert_eq!(state(&view, 21, 5_000), PeerState::Connected);
    tell(false);
    view.table().on_event(Event::HandshakeFailed(tag(&view, 0xbb)), |_| UNIX_EPOCH);
    assert_eq!(state(&view, 120, 5_000), PeerState::Unreachable, "called for 90 s in vain");
    tell(true);
    assert_eq!(state(&view, 121, 5_000), PeerState::Connected, "the session was never over");
    tell(false);
    shake_hands(&view, 0xbb, at(130), 1);
    assert_eq!(state(&view, 131, 5_000), PeerState::Connected);
    // Without a session no peer is suspect.
    tell(false);
    assert_eq!(state(&view, 400, 5_000), PeerState::Idle);
    let names: Vec<_> = PeerState::ALL.iter().map(|state| serde_json::to_value(state).expect("plain data")).collect();
    assert_eq!(names, PeerState::ALL.map(PeerState::name), "metrics and JSON say the same");
}

#[test]
fn a_peer_without_an_endpoint_waits_for_a_call_and_shows_where_it_came_from() {
    let view = view([nameless()]);
    let shown = view.status_at(at(0));
    assert_eq!((shown.peers[0].state, shown.peers[0].endpoint), (PeerState::NoEndpoint, None));
    let caller = endpoint("[2001:db8::7]:4000");
    view.table().on_event(Event::EndpointChanged(tag(&view, 0xcc), caller, false), |_| UNIX_EPOCH);
    shake_hands(&view, 0xcc, at(1), 1_700_000_001);
    let shown = view.status_at(at(13));
    assert_eq!((shown.peers[0].state, shown.peers[0].endpoint), (PeerState::Connected, Some(caller)));
    assert_eq!(shown.peers[0].latest_handshake, Some(1_700_000_001));
    assert_eq!(shown.peers[0].latest_handshake_age_seconds, Some(12));
}

#[test]
fn a_peer_is_shown_as_direct_or_relayed_once_its_endpoint_is_known() {
    let view = view([bob(), nameless()]);
    let paths = || view.status_at(at(0)).peers.iter().map(|peer| peer.path).collect::<Vec<_>>();
    assert_eq!(paths(), [Some(PathKind::Direct), None], "a configured endpoint is the peer's own");
    let relay = endpoint("192.0.2.1:7447");
    view.table().on_event(Event::EndpointChanged(tag(&view, 0xbb), relay, true), |_| UNIX_EPOCH);
    assert_eq!(paths(), [Some(PathKind::Relay), None]);
    view.table().set_peers([(bob(), Arc::default()), (nameless(), Arc::default())]);
    assert_eq!(paths(), [Some(PathKind::Relay), None], "a reload knows what was learned");
    let moved = config::Peer { endpoint: Some(Endpoint::Address(endpoint("192.0.2.7:51820"))), ..bob() };
    view.table().set_peers([(moved, Arc::default())]);
    assert_eq!(paths(), [Some(PathKind::Direct)]);
    view.table().on_event(Event::EndpointChanged(tag(&view, 0xbb), relay, true), |_| UNIX_EPOCH);
    view.table().on_event(Event::EndpointChanged(tag(&view, 0xbb), endpoint("192.0.2.8:1"), false), |_| UNIX_EPOCH);
    assert_eq!(paths(), [Some(PathKind::Direct)]);
}

#[test]
fn a_wall_clock_that_is_set_changes_neither_state_nor_age() {
    let view = view([bob()]);
    shake_hands(&view, 0xbb, at(100), 9_999_999_999);
    let shown = view.status_at(at(130));
    assert_eq!((shown.peers[0].state, shown.peers[0].latest_handshake_age_seconds), (PeerState::Connected, Some(30)));
}

#[test]
fn an_event_about_a_peer_that_is_gone_is_forgotten() {
    let view = view([bob()]);
    view.table().edit(|state| state.remove(PeerKey([0xbb; 32])));
    shake_hands(&view, 0xbb, at(1), 1);
    assert_eq!(view.status_at(at(1)).peers, []);
}

#[test]
fn a_new_config_keeps_what_was_learned_and_the_order_of_the_file() {
    let view = view([bob(), nameless()]);
    shake_hands(&view, 0xbb, at(1), 1);
    let roamed = endpoint("198.51.100.9:7");
    view.table().on_event(Event::EndpointChanged(tag(&view, 0xbb), roamed, false), |_| UNIX_EPOCH);

    let robert = config::Peer { name: Some("robert".to_owned()), ..bob() };
    view.table().set_peers([(robert, Arc::default()), (nameless(), Arc::default())]);
    let shown = view.status_at(at(2)).peers;
    assert_eq!(shown.iter().map(|peer| peer.name.as_deref()).collect::<Vec<_>>(), [Some("robert"), None]);
    assert_eq!((shown[0].endpoint, shown[0].state), (Some(roamed), PeerState::Connected));

    view.table().set_peers([(nameless(), Arc::default()), (bob(), Arc::default())]);
    let shown = view.status_at(at(2)).peers;
    assert_eq!(shown.iter().map(|peer| peer.name.as_deref()).collect::<Vec<_>>(), [None, Some("bob")]);
    assert_eq!((shown[1].endpoint, shown[1].state), (Some(roamed), PeerState::Connected));

    let moved = endpoint("192.0.2.1:51820");
    view.table().set_peers([(config::Peer { endpoint: Some(Endpoint::Address(moved)), ..bob() }, Arc::default())]);
    assert_eq!(view.status_at(at(2)).peers[0].endpoint, Some(moved));
}

#[test]
fn a_resolved_name_fills_an_empty_endpoint_and_never_moves_a_live_session() {
    let by_name = Endpoint::Name { host: "bob.example.net".to_owned(), port: 51820 };
    let view = view([config::Peer { endpoint: Some(by_name), ..bob() }]);
    let shown = &view.status().peers[0];
    assert_eq!((shown.state, shown.endpoint_name.as_deref()), (PeerState::NoEndpoint, Some("bob.example.net:51820")));

    view.table().on_first_endpoint(PeerKey([0xbb; 32]), endpoint("192.0.2.1:51820"), false);
    assert_eq!(view.status().peers[0].endpoint, Some(endpoint("192.0.2.1:51820")));
    shake_hands(&view, 0xbb, now(), 1);
    view.table().on_first_endpoint(PeerKey([0xbb; 32]), endpoint("192.0.2.2:51820"), false);
    assert_eq!(view.status().peers[0].endpoint, Some(endpoint("192.0.2.1:51820")));
}

#[test]
fn a_peer_that_a_relay_leads_to_is_idle_until_it_is_called() {
    let view = view([config::Peer { endpoint: None, ..bob() }]);
    assert_eq!(view.status().peers[0].state, PeerState::NoEndpoint);
    view.table().on_first_endpoint(PeerKey([0xbb; 32]), endpoint("192.0.2.9:7447"), true);
    let shown = &view.status().peers[0];
    assert_eq!((shown.state, shown.path), (PeerState::Idle, Some(PathKind::Relay)));
}

#[test]
fn the_json_of_status_has_its_documented_fields() {
    let view = view([nameless()]);
    let status = serde_json::to_value(view.status()).expect("plain data");
    assert_eq!(status["schema"], "overlay.status.v1");
    let key = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=";
    assert_eq!(
        status["interface"],
        json!({
            "name": "overlay0", "public_key": key, "addresses": ["10.77.0.1/24"], "mtu": 1420, "max_mtu": 1440,
            "listen_port": 51820, "forward": false, "config": "/etc/overlay/overlay0.toml", "uptime_seconds": 0,
        })
    );
    assert_eq!(
        status["peers"][0],
        json!({
            "public_key": "zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMw=", "allowed_ips": ["10.77.0.3/32", "fd00::/64"],
            "state": "no_endpoint", "received_bytes": 0, "sent_bytes": 0, "received_packets": 0, "sent_packets": 0,
            "received_wire_bytes": 0, "sent_wire_bytes": 0, "handshakes": 0, "persistent_keepalive": 25,
            "allow": ["icmp", "tcp/22", "udp/8000-8010", "47"], "drops": 0,
        })
    );
    for counter in PeerStats::COUNTERS {
        let name = if counter.name == "peer_dropped_packets" { "drops" } else { counter.name };
        assert_eq!(status["peers"][0][name], 0, "a counter of a peer that `PeerStatus` does not show");
    }
    let drops = status["drops"].as_object().expect("a map");
    assert_eq!(drops.len(), DropReason::ALL.len());
    assert_eq!(drops["spoofed_source"], 0);
    assert_eq!(status["counters"]["handshakes_completed"], 0);
    assert_eq!(status["counters"]["udp_send_errors"], 0);
    assert_eq!(status["offloads"]["udp_segmentation"], "off");
}

#[test]
fn what_the_kernel_says_of_its_queues_is_shown_with_what_was_counted() {
    let view = view([]);
    assert_eq!(view.status().queues.len(), 0);
    let _sockets = watch_loopback(&view);
    let status = view.status();
    // The kernel doubles the requested size.
    assert_eq!((status.queues["udp_receive_buffer_bytes"], status.queues["udp_receive_queued_bytes"]), (200_000, 0));
    assert_eq!((status.counters["tun_queue_dropped"], status.counters["udp_receive_overflow"]), (0, 0));
}

#[test]
fn no_secret_is_in_the_json_of_status() {
    let text = serde_json::to_string(&view([nameless()]).status()).expect("plain data");
    // 0x11 and 0xdd repeated, in base64 and in hexadecimal.
    for secret in ["ERERERER", "11111111", "3d3d3d3d", "dddddddd"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[test]
fn what_was_found_of_a_path_is_shown_until_its_peer_is_gone() {
    use core::PathMtuState::{Assumed, Found, Searching};
    let view = view([bob(), nameless()]);
    let of_bob = |view: &View| view.status().peers.iter().find(|peer| peer.name.is_some()).map(|peer| peer.path_mtu);
    assert_eq!(of_bob(&view), Some(None), "nothing was told yet");
    find_path_mtu(&view, 0xbb, 1228, Found, 1_700_000_000);
    find_path_mtu(&view, 0xee, 1228, Found, 1_700_000_000);
    let shown = serde_json::to_value(of_bob(&view)).expect("plain data");
    assert_eq!(
        shown,
        json!({
            "mtu": 1228, "state": "found", "probed_by": "echoes", "limit": "path", "since": 1_700_000_000,
            "configured": 1420, "is_narrow": true,
        })
    );
    assert_eq!(view.table().prefixes_of_found_paths(), bob().allowed_ips);
    let is_narrow = |mtu, state| {
        find_path_mtu(&view, 0xbb, mtu, state, 1);
        of_bob(&view).flatten().is_some_and(|path| path.is_narrow)
    };
    assert!(
        !is_narrow(1420, Found) && !is_narrow(1200, Searching) && !is_narrow(1420, Assumed) && is_narrow(1419, Found)
    );
    let limit = core::MtuLimit::Peer;
    let told = PathMtu { mtu: 1380, state: Found, probed_by: core::ProbedBy::ControlFrames, limit, since: at(7) };
    view.table().on_event(Event::PathMtu(path(&view, 0xbb), told), |_| UNIX_EPOCH);
    let path = of_bob(&view).flatten().expect("found");
    assert!(path.limit == MtuLimit::Peer && !path.is_narrow, "its interface is set so: {path:?}");
    find_path_mtu(&view, 0xbb, 1419, Found, 1);
    assert_eq!(view.table().read().owner(&bob().allowed_ips[0]).and_then(PeerEntry::found_mtu), Some(1419));

    view.table().set_peers([(bob(), Arc::default())]);
    assert_eq!(of_bob(&view).flatten().map(|path| path.mtu), Some(1419), "a reload keeps it");
    view.table().set_peers([(config::Peer { mtu_discovery: false, ..bob() }, Arc::default())]);
    assert_eq!(of_bob(&view), Some(None), "nothing is searched for any more");
    find_path_mtu(&view, 0xbb, 1420, Assumed, 1);
    assert_eq!(view.table().read().owner(&bob().allowed_ips[0]).and_then(PeerEntry::found_mtu), None, "as all begin");
    view.table().edit(|state| state.remove(PeerKey([0xbb; 32])));
    view.table().edit(|state| state.add(PeerKey([0xbb; 32]), Arc::default()).is_some());
    assert!(view.status().peers.iter().all(|peer| peer.path_mtu.is_none()));
}
