//! One agent of the crowd: the real client of the rendezvous over a real connection, as a task.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use overlay_daemon::agent::connection::{CONNECT_PATIENCE, ConnectError, Connection, Target, connect_to};
use overlay_rendezvous::channel::Pinned;
use overlay_rendezvous::client::{Client, Event, Output, Query};
use overlay_rendezvous::protocol::{Find, FromServer};
use overlay_wire::signed::{PublicKey, Record, SecretKey, Signed};
use tokio::sync::mpsc;

use crate::rogue::{now, outsider, random};

/// What a member is to do.
pub(crate) enum Order {
    /// Sign a record with a higher sequence, and register it. The time is that at which this should begin.
    Register(Instant),
    /// Look for an agent.
    Find(Find, Instant),
    /// Watch these, too.
    Watch(Vec<PublicKey>),
}

/// What a member tells. `began` is the time of its order.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) who: usize,
    pub(crate) at: Instant,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// It tries to connect.
    Tries,
    /// There is a connection, but it is not welcome yet.
    Connected,
    /// The attempt was in vain.
    Failed(ConnectError),
    /// The rendezvous has said welcome, and which of our records it has.
    Welcome {
        sequence: u64,
    },
    Offline,
    Registered {
        began: Instant,
        sequence: u64,
    },
    /// It is registered, and has been told all that it watches.
    Synced,
    Found {
        began: Instant,
        records: usize,
    },
    /// The record of an agent that it watches.
    Record {
        of: PublicKey,
    },
    Refused(String),
}

/// What the test keeps of a member.
pub(crate) struct Member {
    pub(crate) identity: PublicKey,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    /// How many messages nobody asked for have come.
    pub(crate) pushes: Arc<AtomicU64>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Connection, ConnectError>> + Send>>;

/// The task.
struct Life {
    who: usize,
    name: String,
    client: Client,
    target: Target,
    /// Where the rendezvous is, in the order in which that is tried.
    addresses: Vec<SocketAddr>,
    record: Option<Signed<Record>>,
    /// When the record was ordered that is not registered yet.
    began: Option<Instant>,
    finds: BTreeMap<Query, Instant>,
    facts: mpsc::UnboundedSender<Fact>,
    pushes: Arc<AtomicU64>,
    connecting: Option<Connecting>,
    connection: Option<Connection>,
}

impl Member {
    /// An agent that connects at once, to the first of these addresses that takes it.
    pub(crate) fn join(
        who: usize,
        url: &Pinned,
        addresses: Vec<SocketAddr>,
        facts: &mpsc::UnboundedSender<Fact>,
    ) -> Self {
        let secret = Arc::new(SecretKey::from_bytes(&random()));
        let (identity, pushes) = (secret.public(), Arc::<AtomicU64>::default());
        let (orders, to_do) = mpsc::unbounded_channel();
        let rendezvous = Pinned { host: addresses[0].ip().to_string(), ..url.clone() };
        let life = Life {
            who,
            name: name_of(who),
            client: Client::new(rendezvous.network, identity, random()),
            target: Target { rendezvous, identity: secret, epoch: 0, ca_file: None },
            addresses,
            record: None,
            began: None,
            finds: BTreeMap::new(),
            facts: facts.clone(),
            pushes: pushes.clone(),
            connecting: None,
            connection: None,
        };
        tokio::spawn(life.run(to_do));
        Self { identity, orders, pushes }
    }
}

/// The name of a member.
pub(crate) fn name_of(who: usize) -> String {
    format!("m{who}")
}

impl Life {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        self.client.on_resolved(&self.addresses);
        self.client.handle_timeout(now());
        loop {
            self.carry_out().await;
            let due = self.client.deadline().saturating_sub(now().monotonic);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                made = made(&mut self.connecting) => {
                    self.connecting = None;
                    match made {
                        Ok(connection) => {
                            let version = connection.version;
                            self.connection = Some(connection);
                            self.tell(What::Connected);
                            self.client.connected(version, now());
                        }
                        Err(error) => {
                            self.tell(What::Failed(error));
                            self.client.lost(now());
                        }
                    }
                }
                message = received(&mut self.connection) => match message {
                    Some(message) => {
                        self.pushes.fetch_add(u64::from(matches!(message, FromServer::Push(_))), Relaxed);
                        self.client.received(message, now());
                    }
                    None => {
                        self.connection = None;
                        self.client.lost(now());
                    }
                },
                () = tokio::time::sleep(due) => self.client.handle_timeout(now()),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Register(began) => {
                self.began = Some(began);
                let network = self.target.rendezvous.network;
                let record = match &self.record {
                    Some(former) => Record {
                        sequence: now().unix.max(former.sequence + 1),
                        issued: now().unix,
                        ..former.clone().into_value()
                    },
                    None => outsider::record(network, &self.target.identity, &self.name),
                };
                self.set_record(record);
            }
            Order::Find(by, began) => match self.client.find(by, None, now()) {
                Ok(query) => drop(self.finds.insert(query, began)),
                Err(error) => self.tell(What::Refused(error.to_string())),
            },
            Order::Watch(identities) => {
                if let Err(error) = self.client.watch(&identities, now()) {
                    self.tell(What::Refused(error.to_string()));
                }
            }
        }
    }

    fn set_record(&mut self, record: Record) {
        let record = Signed::sign(record, &self.target.identity).expect("a good record");
        self.record = Some(record.clone());
        self.client.set_record(record, now());
    }

    /// Does what the client wants.
    async fn carry_out(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Connect => {
                    self.tell(What::Tries);
                    let (target, addresses) = (self.target.clone(), self.addresses.clone());
                    self.connecting =
                        Some(Box::pin(async move { connect_to(&target, &addresses, CONNECT_PATIENCE).await }));
                }
                Output::Disconnect => (self.connecting, self.connection) = (None, None),
                Output::Send(call) => {
                    let Some(connection) = &mut self.connection else { continue };
                    if connection.calls.send(&call).await.is_err() {
                        self.connection = None;
                        self.client.lost(now());
                    }
                }
                Output::Event(event) => self.on_event(event),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let what = match event {
            Event::Online { epoch, record, .. } => {
                self.target.epoch = epoch;
                What::Welcome { sequence: record.map_or(0, |record| record.sequence) }
            }
            Event::Offline => What::Offline,
            Event::Registered { sequence } => {
                let is_newest = self.record.as_ref().is_some_and(|record| record.sequence == sequence);
                match self.began.take().filter(|_| is_newest) {
                    Some(began) => What::Registered { began, sequence },
                    None => return,
                }
            }
            Event::NeedsIpv4 { address } => {
                let record = self.record.clone().expect("it was registered").into_value();
                let sequence = record.sequence + 1;
                return self.set_record(Record { ipv4: address, sequence, ..record });
            }
            Event::Synced => What::Synced,
            Event::Found { query, records, .. } => {
                let Some(began) = self.finds.remove(&query) else { return };
                What::Found { began, records: records.len() }
            }
            Event::Record(record) => What::Record { of: record.identity },
            Event::Refused { subject, code } => What::Refused(format!("{subject:?}: {code:?}")),
            Event::TooOld { .. } => What::Refused("too old".to_owned()),
            Event::Presence { .. }
            | Event::Clock { .. }
            | Event::Message { .. }
            | Event::Slot { .. }
            | Event::Entries { .. }
            | Event::Sent { .. }
            | Event::Membership(_)
            | Event::Delivered { .. } => return,
        };
        self.tell(what);
    }

    fn tell(&self, what: What) {
        // At the end of the test nobody listens.
        let _ = self.facts.send(Fact { who: self.who, at: Instant::now(), what });
    }
}

async fn made(connecting: &mut Option<Connecting>) -> Result<Connection, ConnectError> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

/// The next message. `None`: the connection has ended.
async fn received(connection: &mut Option<Connection>) -> Option<FromServer> {
    match connection {
        Some(connection) => connection.messages.next().await.ok(),
        None => std::future::pending().await,
    }
}

/// Waits until a moment that was planned. Returns at once if it is over.
pub(crate) async fn until(at: Instant) {
    let left = at.saturating_duration_since(Instant::now());
    if left > Duration::ZERO {
        tokio::time::sleep(left).await;
    }
}
