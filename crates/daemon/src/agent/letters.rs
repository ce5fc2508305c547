//! Letters that come and go, and what follows from them: first on disk, then in the data plane, then to the peer.

use std::time::Duration;

use overlay_core::PeerKey;
use overlay_os::netlink::Netlink;
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::Slot;
use overlay_wire::signed::{PublicKey, Record, ScopeList, Signed};

use super::time::{now, unix_now};
use super::trust::{Automatic, Chance, Effect, Refusal, Terms};
use super::{Agent, Changed, NOTHING, PEERS, own};

/// How often a peer is returned its word at most, in this time.
const MAX_RETURNED: (u8, Duration) = (4, Duration::from_secs(10));

/// What is said to a peer in its tunnel.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) to: PeerKey,
    pub(crate) word: Box<[u8]>,
    /// Whether a peer without a session is called for it.
    pub(crate) calls: bool,
}

impl Agent {
    pub(super) fn on_message(&mut self, from: PublicKey, id: [u8; 16], sealed: &[u8]) -> Changed {
        self.unsaved = None;
        let changed = match self.post.open_message(&from, &id, sealed) {
            Ok(letter) => self.on_letter(from, &letter),
            Err(_) => {
                self.refusals.count("sealed");
                tracing::debug!(%from, "a message cannot be opened");
                NOTHING
            }
        };
        // What could not be written comes again with the next connection.
        if self.unsaved.take().is_none() && !self.unwritten.contains(&from) {
            self.meetings.acknowledge(from, id, now());
        }
        changed
    }

    pub(super) fn on_slot(&mut self, from: PublicKey, slot: Slot, sealed: &[u8]) -> Changed {
        match self.post.open_slot(&from, slot, sealed) {
            Ok(Letter::Endpoints { endpoints }) => self.on_endpoints(from, &endpoints),
            // A rendezvous shows the latest word again with each connection.
            Ok(letter) if self.book.has_said(&from, &letter) => NOTHING,
            Ok(letter) => self.on_letter(from, &letter),
            Err(_) => {
                self.refusals.count("sealed");
                tracing::debug!(%from, "a slot cannot be opened");
                NOTHING
            }
        }
    }

    /// Handles the latest word of a peer, which came through its tunnel.
    pub(super) fn on_word(&mut self, from: PublicKey, bytes: &[u8]) -> Changed {
        let changed = match Letter::read(bytes) {
            // It has come through the rendezvous, too.
            Ok(letter) if self.book.has_said(&from, &letter) => NOTHING,
            Ok(letter @ (Letter::Grant { .. } | Letter::Revoke { .. })) => self.on_letter(from, &letter),
            Ok(_) | Err(_) => {
                self.refuse(Refusal::Malformed, "word in the tunnel");
                NOTHING
            }
        };
        self.settle(changed)
    }

    /// What to say to peers through the tunnel, before the data plane follows: it may end that tunnel.
    pub(crate) fn take_words(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.words)
    }

    pub(super) fn on_letter(&mut self, from: PublicKey, letter: &Letter) -> Changed {
        let chance = chance();
        let automatic = self.automatic(&from);
        let effects = self.book.on_letter(&from, letter, &self.record, automatic, self.moment(), chance);
        let is_low = matches!(effects, Err(Refusal::Replayed));
        let changed = self.follow(effects, "letter");
        if is_low {
            self.return_word(from, letter);
        }
        if matches!(letter, Letter::Request { .. }) { changed.and(self.confirm_tags(from)) } else { changed }
    }

    /// Returns the latest word of a peer that has said one which is not above it: its state was lost, or its clock is slower.
    fn return_word(&mut self, to: PublicKey, letter: &Letter) {
        let now = tokio::time::Instant::now();
        let (most, time) = MAX_RETURNED;
        self.returned.retain(|_, (since, _)| *since + time > now);
        let Some(word) = self.book.to_return(&to, letter) else { return };
        let (_, count) = self.returned.entry(to).or_insert((now, 0));
        if *count < most {
            *count += 1;
            self.send(to, chance().id, &word);
        }
    }

    /// Asks an agent that the config trusts, if it was not asked yet. If it trusts us, too, the requests cross.
    pub(super) fn ask_pinned(&mut self, record: &Signed<Record>) -> Changed {
        let now = self.moment();
        let Some(trust) = self.config.trust.iter().find(|trust| trust.key == record.identity) else { return NOTHING };
        let relation = self.book.relation(&record.identity);
        let is_done =
            relation.is_some_and(|relation| relation.is_open(now) || relation.asked.is_some() || relation.is_withdrawn);
        if is_done || !self.past.is_settled() || trust.expires.is_some_and(|at| at <= now.latest) {
            return NOTHING;
        }
        let terms = Terms { allow: Some(trust.allow.clone()), expires: trust.expires };
        let what = (String::new(), ScopeList::default(), terms);
        match self.book.ask(record, &self.record, what, now, chance()) {
            Ok(effects) => self.carry_out(effects),
            Err(error) => {
                tracing::warn!(peer = %record.identity, ?error, "an agent that the config trusts cannot be asked");
                NOTHING
            }
        }
    }

    /// Gives trusted agents what the config says of them now.
    pub(super) fn grant_pinned(&mut self) -> Changed {
        let now = self.moment();
        let mut changed = NOTHING;
        for trust in self.config.trust.clone() {
            let terms = Terms { allow: Some(trust.allow), expires: trust.expires };
            match self.book.pin(&trust.key, terms, now) {
                Ok(effects) => changed = changed.and(self.carry_out(effects)),
                Err(error) => tracing::warn!(peer = %trust.key, ?error, "what the config grants cannot be granted"),
            }
        }
        changed
    }

    /// What the config grants to this agent without asking. Approval by a tag comes later: see `attested`.
    fn automatic(&self, peer: &PublicKey) -> Option<Automatic> {
        if let Some(trust) = self.config.trust.iter().find(|trust| trust.key == *peer) {
            if trust.expires.is_some_and(|at| at <= self.moment().latest) {
                return None;
            }
            return Some(Automatic::Terms(Terms { allow: Some(trust.allow.clone()), expires: trust.expires }));
        }
        if let Some(terms) = self.granted_beforehand(peer) {
            return Some(Automatic::Terms(terms));
        }
        self.config.auto_approves(peer, &[]).then(|| Automatic::Within(self.config.allow.clone()))
    }

    /// Does what follows from a letter. A refused one is counted by its name.
    pub(super) fn follow(&mut self, effects: Result<Vec<Effect>, Refusal>, what: &str) -> Changed {
        match effects {
            Ok(effects) => self.carry_out(effects),
            Err(refusal) => {
                self.refuse(refusal, what);
                NOTHING
            }
        }
    }

    /// Writes what changed, then sends what follows from it.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Changed {
        let mut changed = NOTHING;
        for effect in effects {
            match effect {
                Effect::Changed(peer) => {
                    changed = PEERS;
                    self.book.settle_ipv4(&peer);
                    if !self.save(&peer) {
                        return changed;
                    }
                    self.note(&peer);
                    self.keep_in_ledger(&peer);
                    if self.book.relation(&peer).is_some_and(|relation| !relation.is_stranger()) {
                        self.watch(&[peer]);
                    }
                }
                Effect::Send { to, id, letter } => self.send(to, id, &letter),
                Effect::Keep { to, letter } => self.keep_new_word(to, &letter),
                Effect::Asked(peer) => {
                    let name = self.book.relation(&peer).and_then(|relation| relation.name()).unwrap_or_default();
                    tracing::info!("{name} asks for trust: sudo overlay pending");
                }
            }
        }
        changed
    }

    /// Writes what is known of a peer. Returns whether it is on disk. What could not be written opens nothing, and what
    /// was taken back stays closed.
    pub(super) fn save(&mut self, peer: &PublicKey) -> bool {
        let Some(relation) = self.book.relation(peer) else { return true };
        let Err(failure) = self.state.set_relation(relation) else {
            self.unwritten.remove(peer);
            return true;
        };
        tracing::error!("{failure}");
        if relation.is_revoked() {
            self.unwritten.insert(*peer);
        } else {
            match self.state.relation(peer) {
                Ok(before) => self.book.put_back(peer, before),
                Err(failure) => {
                    tracing::error!("{failure}");
                    self.book.close(peer);
                    self.unwritten.insert(*peer);
                }
            }
        }
        self.unsaved = Some(failure);
        false
    }

    /// What follows from a relation that is not on disk yet, once it is.
    pub(super) fn repeat_unwritten(&mut self, peer: &PublicKey) -> Vec<Effect> {
        let letters = self.book.relation(peer).map(|relation| relation.repeat(&self.record, self.moment()));
        std::iter::once(Effect::Changed(*peer)).chain(letters.into_iter().flatten()).collect()
    }

    /// Writes what could not be written before.
    pub(super) fn write_again(&mut self) -> Changed {
        let unwritten: Vec<_> = self.unwritten.iter().copied().collect();
        let mut changed = NOTHING;
        for peer in unwritten {
            let effects = self.repeat_unwritten(&peer);
            changed = changed.and(self.carry_out(effects));
        }
        changed
    }

    /// Ends what strangers cost once nothing more is expected of them.
    fn forget_strangers(&mut self) {
        for stranger in self.book.forget(self.moment()) {
            self.watchers.forget(&stranger);
            if let Err(failure) = self.state.forget_relation(&stranger) {
                tracing::error!("{failure}");
            }
        }
    }

    /// Sends a letter. Until it is known how old this state is, nothing is sent: what is to be sent is on disk.
    pub(super) fn send(&mut self, to: PublicKey, id: [u8; 16], letter: &Letter) {
        if !self.past.is_settled() {
            return;
        }
        let Some(record) = self.book.relation(&to).and_then(|relation| relation.newest_record()) else { return };
        let Ok(sealed) = self.post.seal_message(record, &id, letter) else { return };
        if self.meetings.send(to, id, &sealed, now()).is_err() {
            tracing::warn!(%to, "a letter is too long, or too many wait");
        }
    }

    pub(super) fn keep(&mut self, to: PublicKey, slot: Slot, letter: &Letter) {
        let Some(record) = self.book.relation(&to).and_then(|relation| relation.newest_record()) else { return };
        if let (Slot::Word, Some(key)) = (slot, record.tunnel_keys.first()) {
            self.words.push(Said { to: PeerKey(key.0), word: letter.write().as_slice().into(), calls: false });
        }
        if !self.past.is_settled() {
            return;
        }
        let Ok(sealed) = self.post.seal_slot(record, slot, letter) else { return };
        if self.meetings.put_slot(to, slot, &sealed, now()).is_err() {
            tracing::warn!(%to, "what is kept for a peer is too long, or is kept for too many");
        }
    }

    /// Keeps a word that is new, and calls the peer to say it.
    fn keep_new_word(&mut self, to: PublicKey, letter: &Letter) {
        let before = self.words.len();
        self.keep(to, Slot::Word, letter);
        self.words.iter_mut().skip(before).for_each(|said| said.calls = true);
    }

    /// After a start: what was not answered is asked again, and the latest word of each relation is kept again.
    pub(super) fn repeat_letters(&mut self) {
        for effect in self.book.repeat(&self.record, self.moment()) {
            match effect {
                Effect::Send { to, id, letter } => self.send(to, id, &letter),
                Effect::Keep { to, letter } => self.keep(to, Slot::Word, &letter),
                Effect::Changed(_) | Effect::Asked(_) => {}
            }
        }
    }

    /// Watches these agents, if there is room.
    pub(super) fn watch(&mut self, identities: &[PublicKey]) {
        if self.meetings.watch(identities, now()).is_err() {
            tracing::warn!("there are too many agents: not all that were added are looked for");
        }
    }

    pub(super) async fn look_around(&mut self, netlink: &Netlink, port: u16) -> Changed {
        self.look_at_host(netlink, port).await;
        self.lan.try_again();
        self.settle_places();
        if !own::is_current(&self.record, &self.config, &self.keys, self.attestation.as_ref(), unix_now()) {
            self.sign_record(self.record.ipv4);
        }
        self.forget_strangers();
        self.write_again()
    }
}

/// Random bytes for one step of the book.
pub(super) fn chance() -> Chance {
    let mut chance = Chance { id: [0; 16], share: [0; 32] };
    for bytes in [&mut chance.id[..], &mut chance.share[..]] {
        if overlay_os::random::fill(bytes).is_err() {
            // Without randomness nothing secret can be made.
            std::process::abort();
        }
    }
    chance
}
