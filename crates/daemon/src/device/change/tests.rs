//! The commands that an edit sends to the engine, and what the view shows afterwards. Each edit costs what it changes.

use overlay_core::{Protocol, Rule};
use overlay_wire::signed::SecretKey;

use super::*;
use crate::config;
use crate::view::View;
use crate::view::tests::{bob, nameless, view};

const BOB: PeerKey = PeerKey([0xbb; 32]);
const NAMELESS: PeerKey = PeerKey([0xcc; 32]);
const STRANGER: PeerKey = PeerKey([0x77; 32]);

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn add(text: &str) -> AllowedIpChange {
    AllowedIpChange::Add(net(text))
}

/// Returns the commands for the engine as text.
fn told(view: &View, edit: PeerEdit) -> Vec<String> {
    let tags =
        |view: &View| view.table().read().peers().iter().map(|peer| (peer.tag, peer.public_key)).collect::<Vec<_>>();
    let mut known = tags(view);
    let commands = view.table().edit(|state| edit.apply(state)).expect("a change that is possible");
    known.extend(tags(view));
    let key = |tag| known.iter().find(|(known, _)| *known == tag).expect("it is or was a peer").1;
    let words = |command: Command| match command {
        Command::RemovePeer(peer) => format!("remove {:?}", key(peer)),
        Command::SetPeer { config, .. } => {
            let nothing_else = config.allowed_ips.is_empty() && config.preshared_key.is_none();
            assert!(nothing_else && config.endpoint.is_none() && config.persistent_keepalive.is_none());
            let search = if config.mtu_discovery { ", with search" } else { "" };
            format!("set {:?} which may open {:?}{search}", config.public_key, config.allow)
        }
        Command::ChangePeer(change) => {
            let mut words = vec![format!("change {:?}", key(change.peer))];
            words.extend(change.add.map(|_| "new".to_owned()));
            words.extend(change.preshared_key.map(|key| format!("psk {:02x}", key[0])));
            words.extend(change.endpoint.map(|endpoint| format!("at {endpoint}")));
            words.extend(change.persistent_keepalive.map(|interval| format!("every {interval:?}")));
            words.extend(match &change.allowed_ips[..] {
                [] => None,
                few if few.len() < 5 => Some(format!("{few:?}")),
                many => Some(format!("{} prefixes", many.len())),
            });
            words.join(" ")
        }
        _ => "something else".to_owned(),
    };
    commands.into_iter().map(words).collect()
}

fn shown(view: &View, key: PeerKey) -> Vec<String> {
    let state = view.table().read();
    let peer = state.peer(key);
    peer.into_iter().flat_map(|peer| &peer.allowed_ips).map(ToString::to_string).collect()
}

#[test]
fn a_stranger_becomes_a_peer_unless_only_known_ones_are_meant() {
    let view = view([bob()]);
    let only_known = PeerEdit { update_only: true, allowed_ips: vec![add("10.9.0.0/16")], ..PeerEdit::of(STRANGER) };
    assert_eq!(told(&view, only_known), Vec::<String>::new());
    assert_eq!(view.status().peers.len(), 1);
    assert_eq!(told(&view, PeerEdit::of(STRANGER)), ["change 77777777.. new"]);
    let status = view.status();
    assert_eq!((status.peers.len(), status.peers[1].name.as_deref()), (2, None), "behind the others");
    assert_eq!(told(&view, PeerEdit { remove: true, ..PeerEdit::of(STRANGER) }), ["remove 77777777.."]);
    assert_eq!(told(&view, PeerEdit { remove: true, ..PeerEdit::of(STRANGER) }), Vec::<String>::new());
    assert_eq!(view.status().peers.len(), 1);
}

#[test]
fn a_peer_of_the_file_that_is_added_again_has_its_name_and_may_open_no_more_than_before() {
    let allow = Some(vec![Rule { protocol: Protocol::Icmp, ports: None }]);
    let restricted = config::Peer { allow: allow.clone(), ..bob() };
    let view = view([restricted.clone(), nameless()]);
    let edit = PeerEdit { allowed_ips: vec![add("10.77.0.2/32")], ..PeerEdit::of(BOB) };
    for _ in 0..2 {
        told(&view, PeerEdit { remove: true, ..PeerEdit::of(BOB) });
        let words = told(&view, edit.clone());
        let set = "set bbbbbbbb.. which may open Some([Rule { protocol: Icmp, ports: None }]), with search";
        assert_eq!(words, [set, "change bbbbbbbb.. [Add(10.77.0.2/32)]"], "the list first");
        let shown = view.status().peers.remove(1);
        assert_eq!((shown.name.as_deref(), shown.allow), (Some("bob"), Some(vec!["icmp".to_owned()])));
    }
    // Everything else is what `wg` sets.
    assert_eq!(view.status().peers[1].endpoint, None);

    // An empty list is different from a missing one.
    view.table().set_peers([(config::Peer { allow: Some(Vec::new()), ..bob() }, Arc::default())]);
    told(&view, PeerEdit { remove: true, ..PeerEdit::of(BOB) });
    assert_eq!(told(&view, PeerEdit::of(BOB))[0], "set bbbbbbbb.. which may open Some([]), with search");
    // The config file in force decides.
    view.table().set_peers([(config::Peer { mtu_discovery: false, ..bob() }, Arc::default())]);
    told(&view, PeerEdit { remove: true, ..PeerEdit::of(BOB) });
    assert_eq!(told(&view, PeerEdit::of(BOB)), ["change bbbbbbbb.. new"]);
    assert_eq!(view.status().peers[0].name.as_deref(), Some("bob"));
    view.table().set_peers([]);
    assert_eq!(told(&view, PeerEdit::of(BOB)), ["change bbbbbbbb.. new"]);
    assert_eq!(view.status().peers[0].name, None);
}

#[test]
fn the_path_of_a_peer_of_the_file_that_is_added_again_is_searched_again() {
    let view = view([config::Peer { name: None, ..bob() }]);
    for _ in 0..2 {
        told(&view, PeerEdit { remove: true, ..PeerEdit::of(BOB) });
        let words = told(&view, PeerEdit::of(BOB));
        assert_eq!(words, ["set bbbbbbbb.. which may open None, with search", "change bbbbbbbb.."]);
        let is_as_in_the_file = config::Peer { mtu_discovery: true, ..config::Peer::of(BOB) };
        assert!(
            view.table().read().peer(BOB).is_some_and(|peer| peer.is_as(&is_as_in_the_file)),
            "a reload changes nothing"
        );
    }
    view.table().set_peers([(config::Peer { mtu_discovery: false, ..bob() }, Arc::default())]);
    told(&view, PeerEdit { remove: true, ..PeerEdit::of(BOB) });
    assert_eq!(told(&view, PeerEdit::of(BOB)), ["change bbbbbbbb.. new"], "the file in force is what counts");
}

#[test]
fn an_answer_of_dns_counts_while_the_endpoint_is_a_name() {
    let address = "192.0.2.7:51820".parse().expect("an address");
    let name = Endpoint::Name { host: "bob.example".to_owned(), port: 51820 };
    let view = view([config::Peer { endpoint: Some(name), ..bob() }, nameless()]);
    let is_taken = |key| match resolved(Answer { peer: key, addresses: vec![address] }, &view.table().read()) {
        Some(Command::SetCandidates(peer, to)) => {
            assert_eq!((view.table().key_of(peer), to), (Some(key), vec![address]));
            true
        }
        Some(_) => panic!("another command"),
        None => false,
    };
    assert!(is_taken(BOB));
    assert!(!is_taken(NAMELESS), "it has no endpoint");
    assert!(!is_taken(STRANGER), "it is gone");
    told(&view, PeerEdit { endpoint: Some("198.51.100.1:7".parse().expect("an address")), ..PeerEdit::of(BOB) });
    assert!(!is_taken(BOB), "`wg set` was later than the question");
}

#[test]
fn our_own_key_is_passed_over() {
    let view = view([]);
    assert_eq!(told(&view, PeerEdit::of(PeerKey([0xaa; 32]))), Vec::<String>::new());
    assert_eq!(view.status().peers.len(), 0);
}

#[test]
fn everything_else_is_told_as_it_is_and_shown() {
    let view = view([bob()]);
    let edit = PeerEdit {
        preshared_key: Some(Zeroizing::new([9; 32])),
        endpoint: Some("192.0.2.9:9".parse().expect("an address")),
        persistent_keepalive: Some(25),
        ..PeerEdit::of(BOB)
    };
    assert_eq!(told(&view, edit.clone()), ["change bbbbbbbb.. psk 09 at 192.0.2.9:9 every Some(25s)"]);
    let status = view.status();
    let peer = &status.peers[0];
    assert_eq!((peer.name.as_deref(), peer.persistent_keepalive), (Some("bob"), Some(25)));
    assert_eq!(peer.endpoint, edit.endpoint);
    let off =
        PeerEdit { preshared_key: Some(Zeroizing::new([0; 32])), persistent_keepalive: Some(0), ..PeerEdit::of(BOB) };
    assert_eq!(told(&view, off), ["change bbbbbbbb.. psk 00 every None"]);
    assert_eq!(view.status().peers[0].persistent_keepalive, None);
    assert!(view.table().read().peer(BOB).is_some_and(|peer| peer.preshared_key.is_none()));
}

#[test]
fn a_prefix_has_one_owner() {
    let view = view([bob(), nameless()]);
    let taken = PeerEdit { allowed_ips: vec![add("10.77.0.2/32")], ..PeerEdit::of(NAMELESS) };
    assert_eq!(told(&view, taken.clone()), ["change cccccccc.. [Add(10.77.0.2/32)]"]);
    assert_eq!(shown(&view, BOB), Vec::<String>::new());
    assert_eq!(told(&view, taken), ["change cccccccc.."], "no news");
    let not_theirs = vec![AllowedIpChange::Remove(net("10.77.0.2/32"))];
    assert_eq!(told(&view, PeerEdit { allowed_ips: not_theirs.clone(), ..PeerEdit::of(BOB) }), ["change bbbbbbbb.."]);
    assert_eq!(shown(&view, NAMELESS), ["10.77.0.2/32", "10.77.0.3/32", "fd00::/64"]);
    told(&view, PeerEdit { allowed_ips: not_theirs, ..PeerEdit::of(NAMELESS) });
    assert_eq!(shown(&view, NAMELESS), ["10.77.0.3/32", "fd00::/64"]);
    // A prefix is removed with its owner, and a different peer may then have it.
    told(&view, PeerEdit { remove: true, ..PeerEdit::of(NAMELESS) });
    told(&view, PeerEdit { allowed_ips: vec![add("fd00::/64")], ..PeerEdit::of(BOB) });
    assert_eq!(shown(&view, BOB), ["fd00::/64"]);
}

#[test]
fn a_replacement_tells_only_the_difference() {
    let view = view([nameless()]);
    let replaced = PeerEdit {
        replace_allowed_ips: true,
        allowed_ips: vec![
            add("fd00::/64"),
            add("10.1.0.0/16"),
            add("10.2.0.0/16"),
            AllowedIpChange::Remove(net("10.2.0.0/16")),
        ],
        ..PeerEdit::of(NAMELESS)
    };
    assert_eq!(told(&view, replaced.clone()), ["change cccccccc.. [Remove(10.77.0.3/32), Add(10.1.0.0/16)]"]);
    assert_eq!(told(&view, replaced), ["change cccccccc.."]);
    assert_eq!(shown(&view, NAMELESS), ["10.1.0.0/16", "fd00::/64"]);
    told(&view, PeerEdit { replace_allowed_ips: true, ..PeerEdit::of(NAMELESS) });
    assert_eq!(shown(&view, NAMELESS), Vec::<String>::new());
}

#[test]
fn many_prefixes_come_and_go_in_pieces() {
    let view = view([bob()]);
    let prefix = |n: u32| IpNet::from(std::net::IpAddr::from((0x0b00_0000 + n).to_be_bytes()));
    let many = (0..1_100).map(|n| AllowedIpChange::Add(prefix(n))).collect();
    let edit = PeerEdit { allowed_ips: many, persistent_keepalive: Some(7), ..PeerEdit::of(BOB) };
    let pieces = ["every Some(7s) 512 prefixes", "512 prefixes", "76 prefixes"];
    assert_eq!(told(&view, edit), pieces.map(|piece| format!("change bbbbbbbb.. {piece}")));
    let gone = told(&view, PeerEdit { remove: true, ..PeerEdit::of(BOB) });
    assert_eq!(gone.len(), 4, "{gone:?}");
    assert_eq!(gone[3], "remove bbbbbbbb..");
}

/// An agent with this identity and these tunnel keys, for 10.99.0.2/32.
fn agent(identity: u8, key: u8, former: Option<u8>) -> config::Peer {
    let agent = config::AgentPeer {
        identity: SecretKey::from_bytes(&[identity; 32]).public(),
        former_key: former.map(|byte| PeerKey([byte; 32])),
        own_key: None,
    };
    let allowed_ips = vec!["10.99.0.2/32".parse().expect("a prefix")];
    config::Peer { agent: Some(Box::new(agent)), allowed_ips, ..config::Peer::of(PeerKey([key; 32])) }
}

#[test]
fn an_agent_with_a_new_tunnel_key_is_the_same_peer() {
    let view = view([bob(), agent(1, 0x11, None)]);
    let table = view.table();
    let (first, second) = (PeerKey([0x11; 32]), PeerKey([0x22; 32]));
    let tag = table.tag_for(first).expect("room");
    assert!(table.edit(|state| state.rekey(&[bob(), agent(1, 0x11, None)])).is_empty(), "the key is the same");

    let rekeyed = table.edit(|state| state.rekey(&[bob(), agent(1, 0x22, Some(0x11))]));
    assert_eq!(rekeyed.into_iter().collect::<Vec<_>>(), [second]);
    assert_eq!((table.tag_for(second), table.key_of(tag)), (Some(tag), Some(second)));
    let prefix = "10.99.0.2/32".parse().expect("a prefix");
    assert_eq!(table.read().owner(&prefix).map(|peer| peer.public_key), Some(second));
    assert!(table.read().peer(first).is_none());
    assert_eq!(table.agent_of(second), Some(SecretKey::from_bytes(&[1; 32]).public()));
    assert_ne!(table.tag_for(first), Some(tag), "the former key names nobody");
}

#[test]
fn no_agent_takes_a_key_that_a_peer_has() {
    let view = view([bob(), agent(1, 0x11, None)]);
    let rekeyed = view.table().edit(|state| state.rekey(&[bob(), agent(1, 0xbb, None), agent(2, 0x11, None)]));
    assert!(rekeyed.is_empty());
    assert_eq!(view.table().agent_of(BOB), None);
    assert_eq!(view.table().agent_of(PeerKey([0x11; 32])), Some(SecretKey::from_bytes(&[1; 32]).public()));
}
