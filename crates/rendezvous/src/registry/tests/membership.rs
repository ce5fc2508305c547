//! Proof of membership.

use overlay_wire::signed::{MAX_MEMBERSHIP, Membership, Signed};

use crate::protocol::{Code, Reply, Verb};
use crate::registry::{ConnectionId, Order};
use crate::scene::{World, agent, code, network_secret, rendezvous_secret};

fn proof(world: &mut World, connection: ConnectionId) -> Signed<Membership> {
    let Reply::Membership { membership } = world.ask(connection, Verb::Membership) else { panic!("a member has one") };
    Signed::open(&membership).expect("it is signed")
}

#[test]
fn a_member_gets_a_week_signed_by_the_rendezvous() {
    let mut world = World::new();
    let alice = world.join(1);
    let bob = world.join(2);
    for (connection, n) in [(alice, 1), (bob, 2)] {
        let proof = proof(&mut world, connection);
        assert_eq!((proof.network, proof.identity), (network_secret().public(), agent(n)));
        assert_eq!(proof.rendezvous, rendezvous_secret().public());
        assert_eq!((proof.issued, proof.expires), (world.now.unix, world.now.unix + MAX_MEMBERSHIP));
    }
    assert_eq!(world.waiting(), 0, "nothing of it is kept");
    world.advance_days(1);
    let alice = world.connect(agent(1), 0);
    assert_eq!(proof(&mut world, alice).issued, world.now.unix);
}

#[test]
fn nobody_else_gets_one() {
    let mut world = World::new();
    let stranger = world.connect(agent(3), 0);
    assert_eq!(code(&world.ask(stranger, Verb::Membership)), Some(Code::Unregistered));
    world.join(1);
    assert_eq!(world.order(Order::Remove(agent(1))), Some(Ok(())));
    let alice = world.connect(agent(1), 0);
    assert_eq!(code(&world.ask(alice, Verb::Membership)), Some(Code::Unregistered));
    world.join(2);
    assert_eq!(world.order(Order::Ban(agent(2))), Some(Ok(())));
    let bob = world.connect(agent(2), 0);
    assert_eq!(code(&world.ask(bob, Verb::Membership)), Some(Code::NotAMember));
}
