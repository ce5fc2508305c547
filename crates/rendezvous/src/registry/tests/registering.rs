//! Records, names and addresses.

use std::time::Duration;

use overlay_wire::signed::{Pool, Signed, ipv4_candidate};

use crate::protocol::{Code, Find, Reply, Verb};
use crate::registry::Limits;
use crate::scene::{DAY, POOL_LEN, World, agent, attestation, code, record, register, release, sign};

fn pool() -> Pool {
    Pool::new([10, 64, 0, 0].into(), POOL_LEN).expect("a pool")
}

#[test]
fn a_first_record_gets_an_address_and_is_answered_once_it_is_on_disk() {
    let mut world = World::new();
    let alice = world.connect(agent(1), 0);
    let mut mine = record(1, "alice", 1, world.now);
    let Reply::Refused { code: Code::Ipv4, ipv4: Some(ipv4), .. } = world.ask(alice, register(1, mine.clone())) else {
        panic!("an address is offered");
    };
    assert_eq!(ipv4, ipv4_candidate(&pool(), &agent(1), 0).octets());
    mine.ipv4 = Some(ipv4);

    world.is_commit_held = true;
    let id = world.call(alice, register(1, mine.clone()));
    assert_eq!((world.answer(alice, id), world.waiting()), (None, 1));
    assert_eq!(world.find(alice, Find::Key(agent(1))), [""; 0], "nobody is shown what may be lost");
    world.commit();
    assert_eq!(world.answer(alice, id), Some(Reply::Done));
    assert_eq!(world.find(alice, Find::Key(agent(1))), ["alice"]);
    assert_eq!(world.ask(alice, register(1, mine)), Reply::Done, "the same record again costs no operation");
    assert_eq!(world.waiting(), 0);
}

#[test]
fn a_record_is_refused_for_each_reason() {
    let mut world = World::new();
    let alice = world.join(1);
    let now = world.now;
    let good = record(1, "agent1", 2, now);
    let later = |ms: u64| crate::now::Now { unix: now.unix + ms, ..now };
    let mut stranger = record(2, "agent2", 1, now);
    stranger.network = agent(9);
    let mut stale = record(1, "agent1", 2, now);
    (stale.issued, stale.fresh_until) = (now.unix - DAY, now.unix - 1);
    let mut forged = sign(1, good.clone()).bytes().to_vec();
    *forged.last_mut().expect("a signature") ^= 1;
    let bob = world.connect(agent(2), 0);
    for (connection, verb, expected) in [
        (alice, Verb::Register { record: forged.into() }, Code::Malformed),
        (alice, Verb::Register { record: vec![0; 100].into() }, Code::Malformed),
        (alice, register(2, record(2, "bob", 1, now)), Code::NotYours),
        (bob, register(2, stranger), Code::NotYours),
        (alice, register(1, record(1, "agent1", 2, later(10 * 60 * 1_000 + 1))), Code::Clock),
        (alice, register(1, stale), Code::Clock),
        (alice, register(1, record(1, "agent1", 1, later(1))), Code::Fork),
        (bob, register(2, record(2, "agent1", 1, now)), Code::NameTaken),
    ] {
        assert_eq!(code(&world.ask(connection, verb)), Some(expected));
        assert!(world.registry.stats().refused(expected) > 0);
    }
    assert_eq!(world.registry.stats().bad_objects, 2);
    assert_eq!(world.ask(alice, register(1, record(1, "agent1", 2, later(10 * 60 * 1_000)))), Reply::Done);
}

#[test]
fn a_restored_agent_is_told_its_newer_record() {
    let mut world = World::new();
    let alice = world.join(1);
    let newer = sign(1, record(1, "agent1", 7, world.now));
    assert_eq!(world.ask(alice, Verb::Register { record: newer.bytes().to_vec().into() }), Reply::Done);
    let Reply::Refused { code: Code::TooOld, record: Some(told), .. } =
        world.ask(alice, register(1, record(1, "agent1", 3, world.now)))
    else {
        panic!("an old sequence is refused");
    };
    assert_eq!(Signed::open(&told), Ok(newer));
}

#[test]
fn a_name_is_kept_for_its_former_owner_for_thirty_days() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    assert_eq!(code(&world.ask(alice, release(1, "other", 5))), Some(Code::NotFound));
    assert_eq!(code(&world.ask(alice, release(1, "agent1", 1))), Some(Code::TooOld));
    assert_eq!(world.ask(alice, release(1, "agent1", 5)), Reply::Done);
    assert_eq!(world.find(bob, Find::Key(agent(1))), [""; 0]);
    assert_eq!(world.find(bob, Find::Name("agent1".to_owned())), [""; 0]);

    let take = |world: &mut World, n, sequence| {
        let connection = world.connect(agent(n), 0);
        let reply = world.ask(connection, register(n, record(n, "agent1", sequence, world.now)));
        code(&reply)
    };
    world.advance_days(29);
    assert_eq!(take(&mut world, 2, 9), Some(Code::NameTaken));
    assert_eq!(take(&mut world, 1, 5), Some(Code::TooOld), "the release has a sequence, too");
    assert_eq!(take(&mut world, 1, 6), Some(Code::Ipv4), "the owner may come back");
    world.advance_days(2);
    assert_eq!(take(&mut world, 2, 9), None);
}

#[test]
fn a_new_name_gives_up_the_old_one_and_hoarding_ends() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    for n in 0..4 {
        assert_eq!(world.ask(alice, register(1, record(1, &format!("name{n}"), 2 + n, world.now))), Reply::Done);
    }
    assert_eq!(world.find(bob, Find::Name("name3".to_owned())), ["name3"]);
    assert_eq!(world.find(bob, Find::Name("agent1".to_owned())), [""; 0]);
    assert_eq!(code(&world.ask(bob, register(2, record(2, "name0", 2, world.now)))), Some(Code::NameTaken));
    let refused = world.ask(alice, register(1, record(1, "name9", 9, world.now)));
    assert!(
        matches!(refused, Reply::Refused { code: Code::Later, wait: Some(wait), .. } if u64::from(wait) > 29 * DAY)
    );
    world.advance_days(30);
    let alice = world.connect(agent(1), 0);
    assert_eq!(world.ask(alice, register(1, record(1, "name9", 9, world.now))), Reply::Done);
}

#[test]
fn names_cannot_be_hoarded_by_leaving_and_coming_back() {
    let mut world = World::new();
    let alice = world.join(1);
    let refused = (0..10).find(|n: &u64| {
        let former = if *n == 0 { "agent1".to_owned() } else { format!("name{}", n - 1) };
        assert_eq!(world.ask(alice, release(1, &former, 10 * n + 10)), Reply::Done);
        let mut again = record(1, &format!("name{n}"), 10 * n + 11, world.now);
        again.ipv4 = Some(ipv4_candidate(&pool(), &agent(1), 0).octets());
        world.now.monotonic += Duration::from_secs(2);
        code(&world.ask(alice, register(1, again))) == Some(Code::Later)
    });
    assert_eq!(refused, Some(3), "four names are kept for it");
    let mut own = record(1, "name1", 99, world.now);
    own.ipv4 = Some(ipv4_candidate(&pool(), &agent(1), 0).octets());
    assert_eq!(world.ask(alice, register(1, own)), Reply::Done, "its own are free for it");
}

#[test]
fn agents_that_want_the_same_at_once_get_it_one_after_the_other() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1), world.join(2));
    world.is_commit_held = true;
    let first = world.call(alice, register(1, record(1, "shared", 2, world.now)));
    assert_eq!(code(&world.ask(bob, register(2, record(2, "shared", 2, world.now)))), Some(Code::Later));
    assert_eq!(code(&world.ask(alice, register(1, record(1, "other", 3, world.now)))), Some(Code::Later));
    world.commit();
    assert_eq!(world.answer(alice, first), Some(Reply::Done));
    assert_eq!(code(&world.ask(bob, register(2, record(2, "shared", 2, world.now)))), Some(Code::NameTaken));
}

#[test]
fn addresses_are_candidates_that_nobody_else_has() {
    let mut world = World::new();
    let alice = world.join(1);
    // An agent whose first candidate is the address of the first one.
    let taken = ipv4_candidate(&pool(), &agent(1), 0);
    let rival = (2..).find(|n| ipv4_candidate(&pool(), &agent(*n), 0) == taken).expect("a pool of 254");
    let bob = world.connect(agent(rival), 0);
    let mut mine = record(rival, "bob", 1, world.now);
    let second = ipv4_candidate(&pool(), &agent(rival), 1).octets();
    for wrong in [taken.octets(), [10, 64, 0, 0], [10, 65, 0, 1], [192, 0, 2, 1]] {
        mine.ipv4 = Some(wrong);
        let reply = world.ask(bob, register(rival, mine.clone()));
        assert!(matches!(reply, Reply::Refused { code: Code::Ipv4, ipv4: Some(offer), .. } if offer == second));
    }
    mine.ipv4 = Some(second);
    assert_eq!(world.ask(bob, register(rival, mine.clone())), Reply::Done);
    assert_eq!(world.find(alice, Find::Address(second.to_vec().into())), ["bob"]);
    assert_eq!(world.find(alice, Find::Address(taken.octets().to_vec().into())), ["agent1"]);
    assert_eq!(world.find(alice, Find::Address(sign(rival, mine.clone()).ipv6().octets().to_vec().into())), ["bob"]);

    // It may change its address for a free candidate, and keeps the one it has while its record shows none.
    let third = ipv4_candidate(&pool(), &agent(rival), 2).octets();
    (mine.sequence, mine.ipv4) = (2, Some(third));
    assert_eq!(world.ask(bob, register(rival, mine.clone())), Reply::Done);
    assert_eq!(world.find(alice, Find::Address(second.to_vec().into())), [""; 0]);
    assert_eq!(world.find(alice, Find::Address(third.to_vec().into())), ["bob"]);
    (mine.sequence, mine.ipv4) = (3, None);
    assert_eq!(world.ask(bob, register(rival, mine.clone())), Reply::Done);
    assert_eq!(world.find(alice, Find::Address(third.to_vec().into())), [""; 0]);
    // It has one address in all, also after it left and came back.
    assert_eq!(world.ask(bob, release(rival, "bob", 4)), Reply::Done);
    mine.sequence = 5;
    let reply = world.ask(bob, register(rival, mine.clone()));
    assert!(matches!(reply, Reply::Refused { code: Code::Ipv4, ipv4: Some(offer), .. } if offer == third));
    mine.ipv4 = Some(second);
    assert_eq!(world.ask(bob, register(rival, mine)), Reply::Done);
    let claims = crate::store::Store::scan(&world.store, b"ipv4/", None, 9).expect("a store in memory");
    assert_eq!(claims.len(), 2);
    world.restart();
    let bob = world.connect(agent(rival), 0);
    assert_eq!(world.find(bob, Find::Address(second.to_vec().into())), ["bob"]);
}

#[test]
fn a_full_pool_leaves_newcomers_without_an_address_and_nothing_else() {
    let mut world = World::new();
    let mut with = 0;
    for n in 0..400 {
        let connection = world.connect(agent(n), 0);
        let mut mine = record(n, &format!("agent{n}"), 1, world.now);
        if let Reply::Refused { code: Code::Ipv4, ipv4, .. } = world.ask(connection, register(n, mine.clone())) {
            mine.ipv4 = ipv4;
            assert_eq!(world.ask(connection, register(n, mine)), Reply::Done);
            with += 1;
        }
    }
    assert_eq!(world.registry.agents(), 400);
    assert!((240..=254).contains(&with), "{with} agents share 254 addresses");
}

#[test]
fn a_closed_network_takes_those_with_a_token_as_often_as_it_says() {
    let mut world = World::with(Limits::default(), true);
    let with_token = |world: &mut World, n: u32, token| {
        let connection = world.connect(agent(n), 0);
        let mut mine = record(n, &format!("agent{n}"), 1, world.now);
        mine.ipv4 = Some(ipv4_candidate(&pool(), &agent(n), 0).octets());
        mine.attestation = token;
        code(&world.ask(connection, register(n, mine)))
    };
    assert_eq!(with_token(&mut world, 1, None), Some(Code::NotAMember));
    assert_eq!(with_token(&mut world, 1, Some(attestation(1, 7, 2, false))), None);
    assert_eq!(with_token(&mut world, 2, Some(attestation(2, 7, 2, false))), None);
    assert_eq!(with_token(&mut world, 3, Some(attestation(3, 7, 2, false))), Some(Code::NotAMember));
    // The count survives the agent and a restart. The key of a member is enough.
    let alice = world.connect(agent(1), 0);
    assert_eq!(world.ask(alice, release(1, "agent1", 2)), Reply::Done);
    world.restart();
    assert_eq!(with_token(&mut world, 3, Some(attestation(3, 7, 2, false))), Some(Code::NotAMember));
    let alice = world.connect(agent(1), 0);
    let mut again = record(1, "agent1", 3, world.now);
    again.ipv4 = Some(ipv4_candidate(&pool(), &agent(1), 0).octets());
    assert_eq!(world.ask(alice, register(1, again)), Reply::Done);
    world.advance_days(2);
    assert_eq!(with_token(&mut world, 4, Some(attestation(4, 8, 0, false))), Some(Code::NotAMember), "it has expired");
}

#[test]
fn an_ephemeral_agent_vanishes_ten_minutes_after_its_lease() {
    let mut world = World::with(Limits::default(), true);
    let bob = world.join_as(2, |record| record.attestation = Some(attestation(2, 1, 0, false)));
    let alice = world.join_as(1, |record| record.attestation = Some(attestation(1, 1, 0, true)));
    world.registry.disconnected(alice, world.now);
    for minute in 0..13 {
        let expected = if minute < 12 { &["agent1"][..] } else { &[] };
        assert_eq!(world.find(bob, Find::Key(agent(1))), expected, "after {minute} minutes");
        world.advance(Duration::from_secs(60));
    }
    // Its name and its address are free for others, now and after a restart.
    let (name, address) = ("agent1".to_owned(), ipv4_candidate(&pool(), &agent(1), 0).octets());
    for _ in 0..2 {
        assert!(world.registry.agents.names.find(&name).is_none());
        assert!(world.registry.agents.addresses.find(&address).is_none());
        world.restart();
    }
    let carol = world.connect(agent(3), 0);
    let mut mine = record(3, "agent1", 1, world.now);
    mine.attestation = Some(attestation(3, 1, 0, false));
    mine.ipv4 = Some(ipv4_candidate(&pool(), &agent(3), 0).octets());
    assert_eq!(world.ask(carol, register(3, mine)), Reply::Done);
}

#[test]
fn an_abandoned_name_is_free_after_half_a_year_and_a_month() {
    let mut world = World::new();
    world.join(1);
    world.advance_days(182);
    let bob = world.connect(agent(2), 0);
    assert_eq!(code(&world.ask(bob, register(2, record(2, "agent1", 1, world.now)))), Some(Code::NameTaken));
    world.advance_days(31);
    let bob = world.connect(agent(2), 0);
    assert_eq!(code(&world.ask(bob, register(2, record(2, "agent1", 1, world.now)))), Some(Code::Ipv4));
    assert_eq!(world.registry.agents(), 0, "what was left of it is gone, too");
    assert_eq!(crate::store::Store::scan(&world.store, b"", None, 9), Ok(Vec::new()));
}

#[test]
fn agents_are_bounded() {
    let mut world = World::with(Limits { agents: 2, ..Limits::default() }, false);
    world.join(1);
    let bob = world.join(2);
    let carol = world.connect(agent(3), 0);
    assert_eq!(code(&world.ask(carol, register(3, record(3, "carol", 1, world.now)))), Some(Code::Full));
    assert_eq!(world.ask(bob, register(2, record(2, "agent2", 2, world.now))), Reply::Done);
}
