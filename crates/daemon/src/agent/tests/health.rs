//! How an agent says that it is: running, and from its state folder alone.

use overlay_rendezvous::client::Event;

use super::*;
use crate::agent::explain::{Reason, Side};
use crate::agent::health::OnDisk;
use crate::agent::request::{Health, Question};

fn health(agent: &mut Agent) -> Health {
    match ask(agent, AgentRequest::Ask(Question::Health)).expect("an answer at once") {
        Ok(AgentReply::Health(health)) => *health,
        other => panic!("how it is, not {other:?}"),
    }
}

#[tokio::test]
async fn the_state_folder_alone_tells_the_same_of_each_peer_as_the_running_agent() {
    let home = Home::new().await;
    let mut bob = home.open();
    let (mut alice, mut carol, dave) =
        (Peer::new(2, "alice", &bob), Peer::new(3, "carol", &bob), Peer::new(4, "dave", &bob));
    alice.asks(&mut bob);
    decide(&mut bob, approve(alice.me())).expect("she asked");
    carol.asks(&mut bob);
    let trust = AgentRequest::Trust(Approve { peer: dave.me().to_string(), ..Approve::default() });
    decide(&mut bob, trust).expect("a whole key");
    let health = health(&mut bob);
    let bars = |name: &str| {
        let peer = health.peers.iter().find(|peer| peer.name == name).expect("it is known");
        peer.bar.map(|bar| (bar.reason, bar.side, bar.is_granted_here))
    };
    assert_eq!(bars("alice"), None);
    assert_eq!(bars("carol"), Some((Reason::Pending, Side::Here, false)));
    assert_eq!(bars(""), Some((Reason::Beforehand, Side::There, false)), "dave's name is not known yet");
    let on_disk = OnDisk::read(&home.config, &home.folder.path().join("state")).expect("readable while it runs");
    assert_eq!(on_disk.peers.len(), 3);
    assert!(health.peers.iter().all(|peer| on_disk.peers.contains(peer)), "{health:#?}\n{on_disk:#?}");
    assert_eq!((on_disk.addresses, on_disk.pools), (health.addresses, bob.pools()));
    assert_eq!(on_disk.time.signed_by_peers_ms, health.time.signed_by_peers_ms);
}

#[tokio::test]
async fn a_clock_that_differs_from_that_of_the_rendezvous_is_a_warning_until_it_agrees() {
    let home = Home::new().await;
    let mut bob = home.open();
    let at = bob.config.rendezvous[0].rendezvous;
    assert!(bob.clock_warning().is_none() && health(&mut bob).rendezvous[0].ahead_ms.is_none());
    for (ahead, is_told) in [(11 * 60_000, true), (9 * 60_000, false), (-11 * 60_000, true), (0, false)] {
        bob.meetings.on_event(&at, &Event::Clock { time: unix_now().saturating_add_signed(ahead) });
        assert_eq!(bob.clock_warning().is_some(), is_told, "{ahead}");
        let noted = health(&mut bob).rendezvous[0].ahead_ms.expect("it was heard");
        assert!(noted.abs_diff(ahead) < 10_000, "{noted}");
    }
}
