//! An agent inside the test process: it is registered and writes letters, and has neither a daemon nor a tunnel.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use hpke::rand_core::UnwrapErr;
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::{Call, Code, FromServer, Reply, Slot, Verb};
use overlay_rendezvous::registry::{Arrival, ConnectionId};
use overlay_rendezvous::sealed::{self, Heading, MailboxKeys};
use overlay_wire::signed::{
    Abilities, Endpoints, Grant, MAX_FRESH, PublicKey, Record, Request, ScopeList, SecretKey, Share, Signed, TunnelKey,
    Visibility,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::desk::Desk;
use super::{now, random, secret};

/// The agent. Its keys are the test's to use.
pub struct Outsider {
    pub key: SecretKey,
    pub record: Signed<Record>,
    desk: Arc<Mutex<Desk>>,
    connection: ConnectionId,
    inbox: UnboundedReceiver<FromServer>,
    last_call: u32,
}

impl Outsider {
    #[track_caller]
    pub(super) fn join(desk: Arc<Mutex<Desk>>, network: PublicKey, name: &str) -> Self {
        let key = secret();
        let record = Signed::sign(record(network, &key, name), &key).expect("a good record");
        let (out, inbox) = unbounded_channel();
        let address = IpAddr::from([192, 0, 2, 99]);
        let arrival = Arrival { identity: key.public(), address, epoch: 0 };
        let connection = desk.lock().expect("no filter panics").connect(arrival, out);
        let mut outsider = Self { key, record, desk, connection, inbox, last_call: 0 };
        let reply = outsider.call(outsider.register());
        if let Reply::Refused { code: Code::Ipv4, ipv4, .. } = reply {
            let record = Record { ipv4, ..outsider.record.clone().into_value() };
            outsider.record = Signed::sign(record, &outsider.key).expect("a good record");
            assert_eq!(outsider.call(outsider.register()), Reply::Done);
        } else {
            assert_eq!(reply, Reply::Done);
        }
        outsider
    }

    pub fn identity(&self) -> PublicKey {
        self.key.public()
    }

    /// Makes a call, and returns the answer.
    #[track_caller]
    pub fn call(&mut self, verb: Verb) -> Reply {
        self.last_call += 1;
        let id = self.last_call;
        self.desk.lock().expect("no filter panics").call(self.connection, Call { id, verb });
        loop {
            match self.inbox.try_recv().expect("each call is answered at once") {
                FromServer::Answer(answer) if answer.id == id => return answer.reply,
                _ => {}
            }
        }
    }

    /// Asks an agent to be trusted, with a grant for it that lets it open nothing.
    #[track_caller]
    pub fn ask(&mut self, agent: &Record, want: &str) {
        let letter = Letter::Request {
            request: request(agent, &self.key, want).bytes().to_vec().into(),
            record: self.record.bytes().to_vec().into(),
        };
        let id = random();
        let sealed = seal_message(agent, &self.identity(), &id, &letter);
        let verb = Verb::Send { to: agent.identity, message: id, sealed: sealed.into(), permit: None };
        assert_eq!(self.call(verb), Reply::Done);
    }

    fn register(&self) -> Verb {
        Verb::Register { record: self.record.bytes().to_vec().into() }
    }
}

/// A record of an agent that did not exist before.
pub fn record(network: PublicKey, key: &SecretKey, name: &str) -> Record {
    let mailbox = MailboxKeys::from_secret(&random()).expect("any bytes are keys");
    let unix = now().unix;
    Record {
        network,
        identity: key.public(),
        sequence: unix,
        issued: unix,
        fresh_until: unix + MAX_FRESH,
        name: name.to_owned(),
        ipv4: None,
        tunnel_keys: vec![TunnelKey(
            x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(random())).to_bytes(),
        )],
        mailbox_x25519: mailbox.public_x25519(),
        mailbox_xwing: None,
        tags: Vec::new(),
        services: Vec::new(),
        visibility: Visibility::Members,
        abilities: Abilities::default(),
        attestation: None,
    }
}

/// A request for an agent, signed with `key` now.
pub fn request(to: &Record, key: &SecretKey, want: &str) -> Signed<Request> {
    let unix = now().unix;
    let grant = grant(to, key, unix);
    let request = Request {
        network: to.network,
        from: key.public(),
        to: to.identity,
        id: random(),
        issued: unix,
        expires: unix + 3_600_000,
        reason: String::new(),
        want: ScopeList(vec![want.to_owned()]),
        grant: grant.bytes().to_vec(),
        psk_share: Share(random()),
    };
    Signed::sign(request, key).expect("a good request")
}

/// A grant for an agent, signed with `key`.
pub fn grant(to: &Record, key: &SecretKey, sequence: u64) -> Signed<Grant> {
    let grant = Grant {
        network: to.network,
        issuer: key.public(),
        subject: to.identity,
        sequence,
        issued: now().unix,
        expires: None,
        allow: ScopeList::default(),
        request: None,
    };
    Signed::sign(grant, key).expect("a good grant")
}

/// The endpoints of the owner of `key`, for an agent, as a sealed slot.
pub fn endpoints(to: &Record, key: &SecretKey, sequence: u64, places: &[std::net::SocketAddr]) -> Vec<u8> {
    let endpoints = Endpoints {
        network: to.network,
        from: key.public(),
        to: to.identity,
        sequence,
        issued: now().unix,
        places: places.iter().map(|place| (*place).into()).collect(),
        relays: None,
    };
    let endpoints = Signed::sign(endpoints, key).expect("good endpoints");
    let letter = Letter::Endpoints { endpoints: endpoints.bytes().to_vec().into() };
    seal_slot(to, &key.public(), Slot::Endpoints, &letter)
}

/// Seals a message for an agent. Anybody can do that in anybody's name: what is inside has to be signed.
pub fn seal_message(to: &Record, from: &PublicKey, id: &[u8; 16], letter: &Letter) -> Vec<u8> {
    let heading = Heading { network: &to.network, sender: from, recipient: &to.identity, label: id };
    sealed::seal(to, heading, &letter.write(), &mut UnwrapErr(getrandom::SysRng)).expect("a good mailbox key")
}

/// Seals what stands in a slot for an agent.
pub fn seal_slot(to: &Record, from: &PublicKey, slot: Slot, letter: &Letter) -> Vec<u8> {
    let label: &[u8] = match slot {
        Slot::Endpoints => b"endpoints",
        Slot::Word => b"word",
    };
    let heading = Heading { network: &to.network, sender: from, recipient: &to.identity, label };
    sealed::seal_short(to, heading, &letter.write(), &mut UnwrapErr(getrandom::SysRng)).expect("a good mailbox key")
}
