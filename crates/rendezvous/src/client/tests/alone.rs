//! A client whose rendezvous the test plays.

use std::time::Duration;

use minicbor::bytes::ByteVec;
use overlay_wire::signed::Signed;

use crate::client::{Client, ELSEWHERE, Event, Outgoing, Output, PING, RECONNECT, SILENCE, Task, TooMuch};
use crate::now::Now;
use crate::protocol::{
    Answer, Call, Code, Find, FromServer, MAX_SEALED_LEN, MAX_WATCHED_AT_ONCE, Push, Reply, Slot, VERSION, Verb,
};
use crate::scene::{START, agent, network, network_secret, record, sign};

pub(super) struct Alone {
    pub(super) client: Client,
    pub(super) now: Now,
}

pub(super) fn refused(code: Code) -> Reply {
    Reply::Refused { code, ipv4: None, record: None, wait: None }
}

impl Alone {
    pub(super) fn new(seed: u8) -> Self {
        let now = Now { unix: START, monotonic: Duration::from_secs(500) };
        Self { client: Client::new(network_secret().public(), agent(1), [seed; 32]), now }
    }

    /// A client that was welcomed and is registered.
    pub(super) fn welcomed() -> Self {
        let mut alone = Self::new(1);
        alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
        alone.connect();
        alone.welcome();
        let calls = alone.calls();
        assert!(matches!(calls[..], [Call { verb: Verb::Register { .. }, .. }]), "{calls:?}");
        alone.answer(calls[0].id, Reply::Done);
        assert_eq!(alone.events(), [Event::Registered { sequence: 1 }, Event::Synced]);
        alone
    }

    pub(super) fn connect(&mut self) {
        self.connect_in(VERSION);
    }

    /// Connects to a rendezvous with which this is the newest version that both speak.
    pub(super) fn connect_in(&mut self, version: u16) {
        self.client.handle_timeout(self.now);
        assert_eq!(self.outputs(), [Output::Connect]);
        self.client.connected(version, self.now);
    }

    pub(super) fn welcome(&mut self) {
        let calls = self.calls();
        let [Call { id, verb: Verb::Hello }] = calls[..] else { panic!("hello comes first: {calls:?}") };
        let network = network(false).bytes().to_vec().into();
        self.answer(
            id,
            Reply::Welcome { network, record: None, epoch: 5, seen_from: vec![192, 0, 2, 1].into(), relay: None },
        );
        assert!(matches!(self.client.poll_output(), Some(Output::Event(Event::Online { epoch: 5, .. }))));
    }

    pub(super) fn answer(&mut self, id: u32, reply: Reply) {
        self.client.received(FromServer::Answer(Answer { id, reply }), self.now);
    }

    pub(super) fn push(&mut self, push: Push) {
        self.client.received(FromServer::Push(push), self.now);
    }

    pub(super) fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.client.poll_output()).collect()
    }

    pub(super) fn calls(&mut self) -> Vec<Call> {
        let call = |output| match output {
            Output::Send(call) => call,
            other => panic!("{other:?}"),
        };
        self.outputs().into_iter().map(call).collect()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        let event = |output| match output {
            Output::Event(event) => event,
            other => panic!("{other:?}"),
        };
        self.outputs().into_iter().map(event).collect()
    }

    pub(super) fn advance_to(&mut self, at: Duration) {
        self.now.monotonic = at;
        self.client.handle_timeout(self.now);
    }
}

#[test]
fn reconnects_are_spread_over_thirty_seconds() {
    let mut waits: Vec<_> = (0..100)
        .map(|seed| {
            let mut alone = Alone::new(seed);
            alone.connect();
            alone.client.lost(alone.now);
            alone.client.deadline() - alone.now.monotonic
        })
        .collect();
    waits.sort_unstable();
    assert!(waits.iter().all(|wait| (RECONNECT.0..=RECONNECT.1).contains(wait)));
    assert!(waits[20] < Duration::from_secs(12) && waits[80] > Duration::from_secs(19), "{waits:?}");
}

#[test]
fn a_rendezvous_with_several_addresses_is_called_again_sooner() {
    let wait = |seed: u8, addresses: &[&str]| {
        let mut alone = Alone::new(seed);
        alone.connect();
        let parsed: Vec<_> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        alone.client.on_resolved(&parsed);
        alone.client.lost(alone.now);
        alone.client.deadline() - alone.now.monotonic
    };
    let longest = |addresses: &[&str]| (0..100).map(|seed| wait(seed, addresses)).max();
    assert!(longest(&["192.0.2.1:1", "192.0.2.2:1"]) <= Some(ELSEWHERE.1));
    assert!(longest(&["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.2:1"]) <= Some(ELSEWHERE.1));
    assert!(longest(&["[2001:db8::1]:1", "192.0.2.2:1"]) > Some(ELSEWHERE.1), "one host with both kinds");
}

#[test]
fn it_knows_for_how_long_a_call_has_waited() {
    let mut alone = Alone::new(1);
    alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
    alone.connect();
    alone.welcome();
    let register = alone.calls()[0].id;
    let at = alone.now.monotonic + PING;
    alone.advance_to(at);
    let ping = alone.calls()[0].id;
    alone.answer(ping, Reply::Revision { revision: 1, time: START });
    assert_eq!(alone.client.waits(alone.now), Some(PING), "that pings are answered does not matter");
    alone.answer(register, Reply::Done);
    assert_eq!(alone.client.waits(alone.now), None);
}

#[test]
fn the_rendezvous_says_when_to_reconnect_within_reason() {
    for (asked, expected) in [(0, 1), (45_000, 45), (u32::MAX, 600)] {
        let mut alone = Alone::welcomed();
        alone.push(Push::Reconnect { wait: asked });
        assert_eq!(alone.outputs(), [Output::Disconnect, Output::Event(Event::Offline)]);
        alone.client.lost(alone.now);
        assert_eq!(alone.client.deadline() - alone.now.monotonic, Duration::from_secs(expected));
        alone.advance_to(alone.client.deadline());
        assert_eq!(alone.outputs(), [Output::Connect]);
    }
}

#[test]
fn a_connection_that_answers_no_ping_is_replaced_after_two_pings() {
    let mut alone = Alone::welcomed();
    let begin = alone.now.monotonic;
    let mut pings = 0;
    loop {
        let at = alone.client.deadline();
        alone.advance_to(at);
        // Pushes and answers to other calls do not count.
        alone.push(Push::Delivered { to: agent(2), message: [1; 16] });
        let outputs = alone.outputs();
        if outputs.contains(&Output::Disconnect) {
            assert_eq!(at - begin, SILENCE);
            assert_eq!(outputs, [Output::Disconnect, Output::Event(Event::Offline), Output::Connect]);
            break;
        }
        pings += outputs.iter().filter(|output| matches!(output, Output::Send(Call { verb: Verb::Ping, .. }))).count();
        assert_eq!(at - begin, PING * pings as u32);
    }
    assert_eq!(pings, 2);

    let mut alone = Alone::welcomed();
    for _ in 0..100 {
        alone.advance_to(alone.client.deadline());
        let calls = alone.calls();
        let [Call { id, verb: Verb::Ping }] = calls[..] else { panic!("{calls:?}") };
        alone.answer(id, Reply::Revision { revision: 1, time: 77 });
        assert_eq!(alone.events(), [Event::Clock { time: 77 }]);
    }
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    let mut alone = Alone::new(1);
    alone.client.handle_timeout(alone.now);
    assert_eq!(alone.outputs(), [Output::Connect]);
    alone.advance_to(alone.client.deadline());
    assert_eq!(alone.outputs(), [Output::Disconnect]);
    alone.client.connected(VERSION, alone.now);
    assert_eq!(alone.outputs(), [Output::Disconnect], "it comes too late");
    alone.advance_to(alone.client.deadline());
    assert_eq!(alone.outputs(), [Output::Connect]);
}

#[test]
fn a_new_network_is_tried_at_once() {
    let mut alone = Alone::welcomed();
    alone.client.on_network_changed(alone.now);
    assert_eq!(alone.outputs(), [Output::Disconnect, Output::Event(Event::Offline), Output::Connect]);
}

#[test]
fn a_rendezvous_of_a_different_network_is_not_believed() {
    let mut alone = Alone::new(1);
    alone.connect();
    let hello = alone.calls()[0].id;
    let foreign = overlay_wire::signed::Network { network: agent(66), ..network(false).into_value() };
    let foreign = Signed::sign(foreign, &crate::scene::secret(66)).expect("a good network");
    let welcome = Reply::Welcome {
        network: foreign.bytes().to_vec().into(),
        record: None,
        epoch: 1,
        seen_from: vec![].into(),
        relay: None,
    };
    alone.answer(hello, welcome);
    assert_eq!(alone.outputs(), [Output::Disconnect]);
    assert_eq!(alone.client.distrusted(), 1);
}

#[test]
fn a_record_that_needs_an_address_is_signed_again() {
    let mut alone = Alone::new(1);
    alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
    alone.connect();
    alone.welcome();
    let id = alone.calls()[0].id;
    let ipv4 = Some([10, 64, 0, 9]);
    alone.answer(id, Reply::Refused { code: Code::Ipv4, ipv4, record: None, wait: None });
    assert_eq!(alone.events(), [Event::NeedsIpv4 { address: ipv4 }]);
    let mut signed = record(1, "alice", 2, alone.now);
    signed.ipv4 = ipv4;
    let signed = sign(1, signed);
    alone.client.set_record(signed.clone(), alone.now);
    let calls = alone.calls();
    assert_eq!(calls[0].verb, Verb::Register { record: signed.bytes().to_vec().into() });

    // A newer record of our own is handed over if it is really ours. Without one, our record was removed.
    let newer = sign(1, record(1, "alice", 9, alone.now));
    let theirs = sign(2, record(2, "bob", 9, alone.now));
    for (told, expected) in [
        (Some(newer.clone()), vec![Event::TooOld { record: Some(Box::new(newer)) }]),
        (None, vec![Event::TooOld { record: None }]),
        (Some(theirs), vec![]),
    ] {
        alone.client.set_record(signed.clone(), alone.now);
        let id = alone.calls().last().expect("a call").id;
        let record = told.map(|told| ByteVec::from(told.bytes().to_vec()));
        alone.answer(id, Reply::Refused { code: Code::TooOld, ipv4: None, record, wait: None });
        assert_eq!(alone.events(), expected);
    }
}

#[test]
fn an_agent_that_keeps_an_address_which_is_taken_asks_again_later() {
    let mut alone = Alone::new(1);
    let mut mine = record(1, "alice", 1, alone.now);
    mine.ipv4 = Some([10, 64, 0, 9]);
    alone.client.set_record(sign(1, mine), alone.now);
    alone.connect();
    alone.welcome();
    let mut id = alone.calls()[0].id;
    for wait in [30, 60, 120] {
        alone.answer(id, Reply::Refused { code: Code::Ipv4, ipv4: Some([10, 64, 0, 8]), record: None, wait: None });
        assert_eq!(alone.events(), [Event::NeedsIpv4 { address: Some([10, 64, 0, 8]) }]);
        let asked = alone.now.monotonic;
        let calls = loop {
            alone.advance_to(alone.client.deadline());
            let mut calls = alone.calls();
            for at in (0..calls.len()).rev().filter(|at| calls[*at].verb == Verb::Ping).collect::<Vec<_>>() {
                let ping = calls.remove(at);
                alone.answer(ping.id, Reply::Revision { revision: 1, time: START });
                alone.events();
            }
            if !calls.is_empty() {
                break calls;
            }
        };
        assert!(matches!(calls[..], [Call { verb: Verb::Register { .. }, .. }]), "{calls:?}");
        assert_eq!(alone.now.monotonic - asked, Duration::from_secs(wait));
        id = calls[0].id;
    }
    alone.answer(id, Reply::Done);
    assert_eq!(alone.events(), [Event::Registered { sequence: 1 }, Event::Synced]);
}

#[test]
fn a_record_that_is_refused_is_registered_again_after_a_growing_wait() {
    let mut alone = Alone::new(1);
    alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
    alone.connect();
    alone.welcome();
    let mut id = alone.calls()[0].id;
    for expected in [30, 60, 120, 240, 300, 300] {
        alone.answer(id, refused(Code::NotAMember));
        assert_eq!(alone.events(), [Event::Refused { subject: Task::Register(1), code: Code::NotAMember }]);
        let refused_at = alone.now.monotonic;
        id = loop {
            alone.advance_to(alone.client.deadline());
            let mut registered = None;
            for Call { id, verb } in alone.calls() {
                match verb {
                    Verb::Register { .. } => registered = Some(id),
                    Verb::Ping => alone.answer(id, Reply::Revision { revision: 1, time: START }),
                    other => panic!("{other:?}"),
                }
            }
            alone.events();
            if let Some(id) = registered {
                break id;
            }
        };
        assert_eq!(alone.now.monotonic - refused_at, Duration::from_secs(expected));
    }
    alone.answer(id, Reply::Done);
    assert_eq!(alone.events(), [Event::Registered { sequence: 1 }, Event::Synced]);
}

#[test]
fn a_name_that_is_taken_is_told_and_not_tried_at_once() {
    let mut alone = Alone::new(1);
    alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
    alone.connect();
    alone.welcome();
    let id = alone.calls()[0].id;
    alone.answer(id, refused(Code::NameTaken));
    assert_eq!(alone.events(), [Event::Refused { subject: Task::Register(1), code: Code::NameTaken }]);
    assert_eq!(alone.client.watch(&[agent(2)], alone.now), Ok(()));
    assert_eq!(alone.outputs(), [], "watching needs a registration");
    alone.client.lost(alone.now);
    alone.outputs();
    alone.advance_to(alone.client.deadline());
    assert_eq!(alone.outputs(), [Output::Connect]);
    alone.client.connected(VERSION, alone.now);
    alone.welcome();
    let id = alone.calls()[0].id;
    alone.answer(id, Reply::Done);
    let outputs = alone.outputs();
    assert_eq!(outputs[0], Output::Event(Event::Registered { sequence: 1 }));
    assert!(matches!(&outputs[1], Output::Send(Call { verb: Verb::Watch { .. }, .. })));
}

#[test]
fn watched_agents_are_told_in_chunks_one_at_a_time() {
    let mut alone = Alone::welcomed();
    let all: Vec<_> = (100..400).map(agent).collect();
    assert_eq!(alone.client.watch(&all, alone.now), Ok(()));
    let mut told = Vec::new();
    for chunk in 0..3 {
        let calls = alone.calls();
        let [Call { id, verb: Verb::Watch { identities } }] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!(identities.len(), if chunk < 2 { MAX_WATCHED_AT_ONCE } else { 44 });
        told.extend(identities.iter().copied());
        alone.answer(*id, Reply::Done);
    }
    assert_eq!(alone.outputs(), []);
    told.sort_unstable();
    let mut all = all;
    all.sort_unstable();
    assert_eq!(told, all);
    assert_eq!(alone.client.watch(&(1_000..5_000).map(agent).collect::<Vec<_>>(), alone.now), Err(TooMuch));
    alone.client.unwatch(&all, alone.now);
    let calls = alone.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| matches!(call.verb, Verb::Unwatch { .. })));
}

#[test]
fn a_call_that_is_refused_for_now_is_repeated_when_it_may_be() {
    let mut alone = Alone::welcomed();
    let outgoing = Outgoing { sealed: vec![1], permit: None };
    assert_eq!(alone.client.send(agent(2), [7; 16], outgoing.clone(), alone.now), Ok(()));
    let id = alone.calls()[0].id;
    alone.answer(id, Reply::Refused { code: Code::Later, ipv4: None, record: None, wait: Some(3_000) });
    assert_eq!(alone.client.send(agent(3), [8; 16], outgoing, alone.now), Ok(()));
    assert_eq!(alone.outputs(), [], "writes are held back");
    assert!(alone.client.find(Find::All, None, alone.now).is_ok());
    assert!(matches!(alone.calls()[..], [Call { verb: Verb::Find { .. }, .. }]), "look-ups are not");
    assert_eq!(alone.client.deadline() - alone.now.monotonic, Duration::from_secs(3));
    alone.advance_to(alone.client.deadline());
    let calls = alone.calls();
    assert_eq!(calls.len(), 2);
    alone.answer(calls[0].id, refused(Code::Full));
    let Verb::Send { to, message, .. } = &calls[0].verb else { panic!("{calls:?}") };
    let subject = Task::Send(*to, *message);
    assert_eq!(alone.events(), [Event::Refused { subject, code: Code::Full }]);
}

#[test]
fn what_does_not_match_the_question_is_dropped() {
    let mut alone = Alone::welcomed();
    let (bob, carol) = (sign(2, record(2, "bob", 1, alone.now)), sign(3, record(3, "carol", 1, alone.now)));
    let mut foreign = record(2, "bob", 1, alone.now);
    foreign.network = agent(66);
    let foreign = sign(2, foreign);
    let mut forged = bob.bytes().to_vec();
    forged[20] ^= 1;
    let query = alone.client.find(Find::Name("bob".to_owned()), None, alone.now).expect("room");
    let id = alone.calls()[0].id;
    let records = [bob.bytes(), carol.bytes(), foreign.bytes(), &forged].map(|bytes| ByteVec::from(bytes.to_vec()));
    alone.answer(id, Reply::Found { records: records.to_vec(), next: None });
    assert_eq!(alone.events(), [Event::Found { query, records: vec![bob.clone()], next: None }]);
    assert_eq!(alone.client.distrusted(), 3);

    // Nothing is passed on of an agent that nobody watches.
    let pushes = || {
        [
            Push::Record { record: bob.bytes().to_vec().into() },
            Push::Presence { identity: agent(2), is_present: true },
            Push::Slot { from: agent(2), slot: Slot::Word, sealed: vec![1].into() },
        ]
    };
    pushes().into_iter().for_each(|push| alone.push(push));
    alone.push(Push::Message { from: agent(2), message: [1; 16], sealed: vec![0; MAX_SEALED_LEN + 1].into() });
    alone.push(Push::Record { record: forged.into() });
    assert_eq!(alone.outputs(), []);
    assert_eq!(alone.client.watch(&[agent(2)], alone.now), Ok(()));
    alone.calls();
    pushes().into_iter().for_each(|push| alone.push(push));
    assert_eq!(alone.events().len(), 3);
}

#[test]
fn answers_that_nobody_waits_for_are_ignored_and_wrong_ones_end_the_connection() {
    let mut alone = Alone::welcomed();
    alone.answer(999, Reply::Done);
    assert_eq!(alone.outputs(), []);
    assert!(alone.client.find(Find::All, None, alone.now).is_ok());
    let id = alone.calls()[0].id;
    alone.answer(id, Reply::Revision { revision: 1, time: 1 });
    assert_eq!(alone.outputs(), [Output::Disconnect, Output::Event(Event::Offline)]);
    alone.answer(id, Reply::Done);
    assert_eq!(alone.outputs(), []);
}

#[test]
fn what_waits_is_bounded() {
    let mut alone = Alone::welcomed();
    let send = |alone: &mut Alone, n: u32, len| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        alone.client.send(agent(2), id, Outgoing { sealed: vec![0; len], permit: None }, alone.now)
    };
    assert_eq!(send(&mut alone, 0, MAX_SEALED_LEN + 1), Err(TooMuch));
    for n in 0..256 {
        assert_eq!(send(&mut alone, n, 1), Ok(()));
    }
    assert_eq!(send(&mut alone, 256, 1), Err(TooMuch));
    assert_eq!(send(&mut alone, 255, 1), Ok(()), "a replaced message takes no room");
    assert_eq!(alone.calls().len(), 32, "few calls wait for answers at once");
    assert_eq!(alone.client.put_slot(agent(2), Slot::Word, vec![0; 1_025], alone.now), Err(TooMuch));
    for n in 0..64 {
        assert!(alone.client.find(Find::Key(agent(n)), None, alone.now).is_ok());
    }
    assert_eq!(alone.client.find(Find::All, None, alone.now), Err(TooMuch));
}
