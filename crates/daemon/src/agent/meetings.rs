//! Where this agent meets others: at every rendezvous that the config names, and at those that the network lists beside them.
//!
//! All are used at once, and the same signed bytes go to each, so any of them may be down. A question goes to each, and the
//! first answer that knows something counts. The first rendezvous that is connected says which IPv4 address is ours: two that
//! disagree would change it for ever.

mod meeting;
mod membership;

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use overlay_rendezvous::client::{Client, Event, Outgoing, Output, Query, TooMuch};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::protocol::{Find, Label, Slot};
use overlay_wire::signed::{MAX_RENDEZVOUS, Network, PublicKey, Record, SecretKey, Signed};

use self::meeting::Meeting;
use self::membership::Proof;
use super::connection::ConnectError;
use super::link::{Link, LinkNews};
use super::request::{Meeting as Shown, RendezvousHealth};
use super::standing::{self, Standing};
use super::time::{now, unix_now};
use super::{Agent, BEHIND};
use crate::config::{RendezvousUrl, parse_rendezvous};
use crate::dates::rfc3339;
use crate::failure::{ExitKind, Failure};
use crate::warnings::StatusWarning;

/// The code of the warning about a rendezvous that does not serve us.
const NOT_MET: &str = "rendezvous";

/// The code of the warning about a clock that differs from that of every rendezvous.
const CLOCK: &str = "clock";

/// The key of a rendezvous, which names it.
pub(super) type At = PublicKey;

/// All rendezvous of this agent.
pub(super) struct Meetings {
    network: PublicKey,
    identity: Arc<SecretKey>,
    all: Vec<Meeting>,
    /// Whose news are looked for first: each in its turn, so that one that never stops keeps none of the others waiting.
    first: usize,
    /// Why all connections were ended.
    end: Option<String>,
}

/// What a connection brings that concerns more than this connection.
pub(super) enum Brought {
    Nothing,
    /// The host of the rendezvous has these addresses.
    Resolved(String, Vec<SocketAddr>),
    Failed(ConnectError),
}

impl Meetings {
    /// Meets at the rendezvous of the config, and at those that the known network lists.
    pub(super) fn new(
        places: &[RendezvousUrl],
        network: (PublicKey, Option<&Network>),
        identity: SecretKey,
    ) -> Result<Self, Failure> {
        let mut meetings =
            Self { network: network.0, identity: Arc::new(identity), all: Vec::new(), first: 0, end: None };
        for place in places {
            meetings.add(place.clone())?;
        }
        if let Some(network) = network.1 {
            meetings.on_network(network)?;
        }
        Ok(meetings)
    }

    /// Adds the rendezvous that the network lists. Returns whether there is a new one, which knows nothing of this agent.
    pub(super) fn on_network(&mut self, network: &Network) -> Result<bool, Failure> {
        let mut is_any = false;
        for url in listed(network) {
            match parse_rendezvous(&url) {
                Ok(place) => is_any |= self.add(place)?,
                Err(problem) => tracing::debug!(url, problem.message, "a listed rendezvous is left out"),
            }
        }
        Ok(is_any)
    }

    fn add(&mut self, place: RendezvousUrl) -> Result<bool, Failure> {
        if self.all.len() == MAX_RENDEZVOUS || self.all.iter().any(|known| known.place.rendezvous == place.rendezvous) {
            return Ok(false);
        }
        let mut client = Client::new(self.network, self.identity.public(), seed()?);
        client.hold_writes();
        self.all.push(Meeting {
            place,
            client,
            link: Link::default(),
            standing: Standing::Connecting,
            since: unix_now(),
            epoch: 0,
            seen_from: None,
            resolved: Vec::new(),
            relay: None,
            is_heard: false,
            is_registered: false,
            has_registered: false,
            ahead: None,
            proof: Proof::default(),
        });
        Ok(true)
    }

    /// Waits for news of a connection. Can be cancelled.
    pub(super) async fn next(&mut self) -> (At, LinkNews) {
        poll_fn(|context| {
            let count = self.all.len();
            for at in (0..count).map(|turn| (self.first + turn) % count) {
                let meeting = &mut self.all[at];
                if let Poll::Ready(news) = meeting.link.poll_next(context) {
                    self.first = at + 1;
                    return Poll::Ready((meeting.place.rendezvous, news));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// When something of a client is due, by the monotonic clock.
    pub(super) fn deadline(&self) -> std::time::Duration {
        self.all.iter().map(|meeting| meeting.client.deadline()).min().unwrap_or(std::time::Duration::MAX)
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.all.iter_mut().for_each(|meeting| meeting.client.handle_timeout(now));
    }

    /// Handles news of a connection.
    pub(super) fn on_link(&mut self, at: &At, news: LinkNews, now: Now) -> Brought {
        let Some(meeting) = self.at(at) else { return Brought::Nothing };
        match news {
            LinkNews::Resolved(addresses) => {
                meeting.resolved.clone_from(&addresses);
                meeting.client.on_resolved(&addresses);
                return Brought::Resolved(meeting.place.host.clone(), addresses);
            }
            LinkNews::Connected(version) => meeting.client.connected(version, now),
            LinkNews::Received(message) => meeting.client.received(*message, now),
            LinkNews::Lost(cause) => {
                tracing::info!(url = meeting.place.url, "the connection to the rendezvous ended: {cause}");
                meeting.stand(Standing::failed(standing::LOST, cause));
                meeting.client.lost(now);
            }
            LinkNews::Failed(error) => {
                tracing::debug!(url = meeting.place.url, "no connection to the rendezvous: {error}");
                meeting.stand(Standing::failed(error.code(), error.to_string()));
                meeting.client.lost(now);
                return Brought::Failed(error);
            }
        }
        Brought::Nothing
    }

    /// Does what the clients want, until one of them has something to tell.
    pub(super) fn next_event(&mut self) -> Option<(At, Event)> {
        let is_over = self.end.is_some();
        for meeting in &mut self.all {
            while let Some(output) = meeting.client.poll_output() {
                match output {
                    Output::Connect if is_over => {}
                    Output::Connect => meeting.connect(&self.network, &self.identity),
                    Output::Disconnect => meeting.link.disconnect(),
                    Output::Send(call) => {
                        if !meeting.link.send(call) {
                            meeting.link.disconnect();
                            meeting.client.lost(now());
                        }
                    }
                    Output::Event(event) => {
                        meeting.on_event(&event);
                        return Some((meeting.place.rendezvous, event));
                    }
                }
            }
        }
        None
    }

    /// The clients, whose refusals are counted.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.all.iter().map(|meeting| &meeting.client)
    }

    /// This rendezvous has shown what it knows of us, so it is given our records from now on.
    pub(super) fn hear(&mut self, at: &At) {
        if let Some(meeting) = self.at(at) {
            meeting.is_heard = true;
        }
    }

    /// What was said to peers, and what is kept for ourselves, goes to this rendezvous from now on: its ledger was read.
    pub(super) fn let_write(&mut self, at: &At, now: Now) {
        if let Some(meeting) = self.at(at) {
            meeting.client.let_write(now);
        }
    }

    /// Nothing of that goes to it until its ledger was read.
    pub(super) fn hold_writes(&mut self, at: &At) {
        if let Some(meeting) = self.at(at) {
            meeting.client.hold_writes();
        }
    }

    pub(super) fn let_all_write(&mut self, now: Now) {
        self.all.iter_mut().for_each(|meeting| meeting.client.let_write(now));
    }

    /// The rendezvous that were heard.
    pub(super) fn heard(&self) -> impl Iterator<Item = At> {
        self.all.iter().filter(|meeting| meeting.is_heard).map(|meeting| meeting.place.rendezvous)
    }

    /// Registers a record wherever a rendezvous was heard.
    pub(super) fn set_record(&mut self, record: &Signed<Record>, now: Now) {
        let heard = self.all.iter_mut().filter(|meeting| meeting.is_heard);
        heard.for_each(|meeting| meeting.client.set_record(record.clone(), now));
    }

    /// Keeps something for ourselves everywhere. `kept_at`: where these bytes are kept already. Returns whether it replaces a
    /// different entry.
    pub(super) fn put_entry(
        &mut self,
        label: Label,
        sealed: &[u8],
        kept_at: Option<At>,
        now: Now,
    ) -> Result<bool, TooMuch> {
        let put = self.all.iter_mut().map(|meeting| {
            let is_kept = kept_at == Some(meeting.place.rendezvous);
            meeting.client.put_entry(label, sealed.to_vec(), is_kept, now)
        });
        let put: Vec<_> = put.collect();
        match put.iter().all(Result::is_err) {
            true => Err(TooMuch),
            false => Ok(put.into_iter().flatten().any(|is_replaced| is_replaced)),
        }
    }

    /// Asks a rendezvous for a page of what is kept there for ourselves.
    pub(super) fn read_entries(&mut self, at: &At, after: Option<Label>, now: Now) {
        if let Some(meeting) = self.at(at) {
            meeting.client.read_entries(after, now);
        }
    }

    /// Whether such a page is awaited.
    pub(super) fn is_reading(&self, at: &At) -> bool {
        self.all.iter().any(|meeting| meeting.place.rendezvous == *at && meeting.client.is_reading())
    }

    /// Whether this rendezvous has said welcome on a connection that is up.
    pub(super) fn is_online(&self, at: &At) -> bool {
        self.all.iter().any(|meeting| meeting.place.rendezvous == *at && meeting.client.is_online())
    }

    /// Whether any of them serves us.
    pub(super) fn is_any_online(&self) -> bool {
        self.all.iter().any(|meeting| meeting.client.is_online())
    }

    /// The keys of all rendezvous.
    pub(super) fn keys(&self) -> impl Iterator<Item = &At> {
        self.all.iter().map(|meeting| &meeting.place.rendezvous)
    }

    /// Ends a connection. The next one is made in its turn.
    pub(super) fn disconnect(&mut self, at: &At, now: Now) {
        if let Some(meeting) = self.at(at) {
            meeting.link.disconnect();
            meeting.client.lost(now);
        }
    }

    /// Says that a message is safe. The others learn it, too: they may have it as well.
    pub(super) fn acknowledge(&mut self, from: PublicKey, id: [u8; 16], now: Now) {
        for meeting in &mut self.all {
            // What is not acknowledged comes again with the next connection.
            let _ = meeting.client.acknowledge(from, id, now);
        }
    }

    /// Sends a message everywhere.
    pub(super) fn send(&mut self, to: PublicKey, id: [u8; 16], sealed: &[u8], now: Now) -> Result<(), TooMuch> {
        self.each(|client| client.send(to, id, Outgoing { sealed: sealed.to_vec(), permit: None }, now))
    }

    /// Keeps something for another agent everywhere.
    pub(super) fn put_slot(&mut self, to: PublicKey, slot: Slot, sealed: &[u8], now: Now) -> Result<(), TooMuch> {
        self.each(|client| client.put_slot(to, slot, sealed.to_vec(), now))
    }

    /// Watches agents everywhere.
    pub(super) fn watch(&mut self, identities: &[PublicKey], now: Now) -> Result<(), TooMuch> {
        self.each(|client| client.watch(identities, now))
    }

    /// Does something at each. It has failed if it has failed everywhere.
    fn each(&mut self, mut act: impl FnMut(&mut Client) -> Result<(), TooMuch>) -> Result<(), TooMuch> {
        let acted: Vec<_> = self.all.iter_mut().map(|meeting| act(&mut meeting.client)).collect();
        if acted.iter().any(Result::is_ok) { Ok(()) } else { Err(TooMuch) }
    }

    /// Looks for records wherever this agent is registered. Each answers by itself.
    pub(super) fn find(&mut self, by: &Find, after: Option<PublicKey>, now: Now) -> Result<Vec<(At, Query)>, TooMuch> {
        let registered = self.all.iter_mut().filter(|meeting| meeting.is_registered);
        let asked: Vec<_> = registered
            .map(|meeting| Ok((meeting.place.rendezvous, meeting.client.find(by.clone(), after, now)?)))
            .collect();
        match asked.first() {
            Some(Err(too_much)) if asked.iter().all(Result::is_err) => Err(*too_much),
            _ => Ok(asked.into_iter().flatten().collect()),
        }
    }

    /// Whether this agent is registered anywhere.
    pub(super) fn is_registered(&self) -> bool {
        self.all.iter().any(|meeting| meeting.is_registered)
    }

    /// Whether our record was registered here since the start.
    pub(super) fn has_registered(&self, at: &At) -> bool {
        self.all.iter().any(|meeting| meeting.place.rendezvous == *at && meeting.has_registered)
    }

    /// Whether this rendezvous says which IPv4 address is ours: the first one that is connected.
    pub(super) fn decides(&self, at: &At) -> bool {
        let first = self.all.iter().find(|meeting| meeting.client.is_online());
        first.is_some_and(|first| first.place.rendezvous == *at)
    }

    /// Notes that this rendezvous refuses our record. Returns whether that is news.
    pub(super) fn on_refused(&mut self, at: &At, reason: &'static str, cause: String) -> bool {
        let Some(meeting) = self.at(at) else { return false };
        let standing = Standing::refused(reason, cause);
        let is_news = meeting.standing != standing;
        meeting.stand(standing);
        is_news
    }

    /// Why no rendezvous answers questions. `None`: one does, or may soon.
    pub(super) fn failure(&self) -> Option<String> {
        if self.end.is_some() {
            return self.end.clone();
        }
        let causes = self.all.iter().map(|meeting| meeting.standing.cause().map(str::to_owned));
        causes.collect::<Option<Vec<_>>>()?.into_iter().next()
    }

    /// The addresses that this host is seen from.
    pub(super) fn seen_from(&self) -> Vec<IpAddr> {
        let mut seen = Vec::new();
        for address in self.all.iter().filter_map(|meeting| meeting.seen_from) {
            if !seen.contains(&address) {
                seen.push(address);
            }
        }
        seen
    }

    /// The relays beside rendezvous: the key of the rendezvous, that of the relay, and its addresses, those of the family first
    /// by which the rendezvous itself is reached.
    pub(super) fn relays(&self) -> impl Iterator<Item = (At, PublicKey, Vec<SocketAddr>)> {
        self.all.iter().filter_map(|meeting| {
            let relay = meeting.relay.as_ref()?;
            let mut addresses = relay.addresses(&meeting.resolved);
            if let Some(seen_from) = meeting.seen_from {
                addresses.sort_by_key(|address| address.is_ipv4() != seen_from.is_ipv4());
            }
            Some((meeting.place.rendezvous, relay.key, addresses))
        })
    }

    /// Connects anew everywhere, because this process was copied while it ran.
    pub(super) fn renew(&mut self, now: Now) -> Result<(), Failure> {
        for meeting in &mut self.all {
            (meeting.is_heard, meeting.has_registered) = (false, false);
            meeting.client.hold_writes();
            meeting.client.renew(seed()?, now);
        }
        Ok(())
    }

    /// Ends all connections for good.
    pub(super) fn stop(&mut self, code: &'static str, cause: String, now: Now) {
        for meeting in &mut self.all {
            meeting.stand(Standing::failed(code, cause.clone()));
            meeting.is_registered = false;
            meeting.link.disconnect();
            meeting.client.lost(now);
        }
        self.end = Some(cause);
    }

    /// How each stands, for people.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let shown = |meeting: &Meeting| Shown {
            url: meeting.place.url.clone(),
            state: meeting.standing.text(),
            since: meeting.since / 1_000,
            member_until: meeting.proof.until().map(|at| at / 1_000),
        };
        self.all.iter().map(shown).collect()
    }

    /// The rendezvous with this key, as people write it.
    pub(super) fn url(&self, at: &At) -> Option<String> {
        self.all.iter().find(|meeting| meeting.place.rendezvous == *at).map(|meeting| meeting.place.url.clone())
    }

    /// How each stands, for programs.
    pub(super) fn health(&self, now: Now) -> Vec<RendezvousHealth> {
        let health = |meeting: &Meeting| RendezvousHealth {
            url: meeting.place.to_string(),
            connection: meeting.standing.code().to_owned(),
            cause: meeting.standing.cause().map(str::to_owned),
            refused_record: meeting.standing.refused_record().map(str::to_owned),
            unanswered_for: meeting.client.waits(now).map(|waits| waits.as_secs()),
            ahead_ms: meeting.ahead,
        };
        self.all.iter().map(health).collect()
    }

    /// The warnings in `overlay status`. A connection that was ended on purpose has a warning of its own.
    fn warnings(&self) -> impl Iterator<Item = StatusWarning> {
        let served = self.all.iter().filter(|_| self.end.is_none());
        let failed = served.filter_map(|meeting| Some((meeting, meeting.standing.cause()?)));
        failed.map(|(Meeting { place, since, .. }, cause)| {
            let since = rfc3339(*since);
            let what = format!("the rendezvous {} has not served this agent since {since}: {cause}", place.url);
            StatusWarning::new(NOT_MET, what, "tunnels go on without it; `overlay doctor` looks for the cause")
        })
    }

    /// How they stand together, in one word or with the cause.
    pub(super) fn standing(&self) -> String {
        let is = |standing: &Standing| self.all.iter().any(|meeting| meeting.standing == *standing);
        if let Some(cause) = self.failure() {
            return cause;
        }
        if is(&Standing::Connected) { Standing::Connected.text() } else { Standing::Connecting.text() }
    }

    /// Pretends that this rendezvous told an event.
    #[cfg(test)]
    pub(super) fn on_event(&mut self, at: &At, event: &Event) {
        self.at(at).expect("it is known").on_event(event);
    }

    /// Pretends that each has registered our record.
    #[cfg(test)]
    pub(super) fn assume_registered(&mut self) {
        self.all.iter_mut().for_each(|meeting| meeting.is_registered = true);
    }

    fn at(&mut self, at: &At) -> Option<&mut Meeting> {
        self.all.iter_mut().find(|meeting| meeting.place.rendezvous == *at)
    }
}

impl Agent {
    /// The warnings in `overlay status` about rendezvous.
    pub(crate) fn rendezvous_warnings(&self) -> Vec<StatusWarning> {
        self.meetings.warnings().collect()
    }

    /// The warning in `overlay status` about a clock that differs from that of every rendezvous.
    pub(crate) fn clock_warning(&self) -> Option<StatusWarning> {
        let nearest = self.meetings.all.iter().filter_map(|meeting| meeting.ahead).map(i64::unsigned_abs).min()?;
        let what = "the clock of this host and that of the rendezvous differ by more than ten minutes";
        let hint = "overlay doctor says which one is wrong, and by how much";
        (nearest > BEHIND).then(|| StatusWarning::new(CLOCK, what, hint))
    }
}

/// The URLs of the rendezvous that a network lists, with their keys.
pub(super) fn listed(network: &Network) -> impl Iterator<Item = String> {
    network.rendezvous.iter().map(|listed| format!("{}#{}.{}", listed.url, listed.key, network.network))
}

/// Randomness for one client.
fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    overlay_os::random::fill(&mut seed)
        .map_err(|error| Failure::new(ExitKind::Other, "cannot get randomness from the kernel").with_cause(error))?;
    Ok(seed)
}
