//! A relay: it carries datagrams between two agents that cannot reach each other directly, and knows neither what is in
//! them nor who trusts whom.
//!
//! ```text
//! agent:    stranger --hello--> (nothing is kept) --bind--> bound --60 s, or no room--> stranger
//! channel:  none --open, with a permit--> open --close, the end of a permit or of a binding--> none
//! ```
//!
//! * **Admission.** A hello is answered with a cookie, for which nothing is kept and no signature is checked. A bind that
//!   repeats it shows that the agent receives at its address. It is signed, and comes with a proof that a rendezvous knows the
//!   agent, unless the relay is for everybody. A bind holds for [`BOUND_FOR`]. From a new address the agent binds again; its
//!   channels go with it.
//! * **Consent.** A channel from A to B needs a permit that B signed. What B closes or takes back stays closed until B signs
//!   a newer permit, so a relay cannot be used to send to somebody who does not want it.
//! * **Forwarding.** A channel has the same number on both legs, so whole trains go on byte for byte. Bytes count against
//!   the agent that sends them, and each agent has a queue of its own (`fair`).
//!
//! Nothing here is longer than what it answers, and what is not understood gets silence. All tables are bounded, and a full
//! one refuses newcomers: nobody evicts somebody else.
//!
//! The caller puts in trains ([`Relay::handle_datagrams`]) and the time ([`Relay::handle_timeout`]), and then takes all
//! outputs ([`Relay::poll_output`]). It says when the next call is due ([`Relay::poll_timeout`]). A long train need not be copied
//! if nothing waits: see [`Relay::way_of`].
//!
//! [`client`] is the agent's side. `overlay_wire::relay` has the bytes.
//!
//! Left out: sockets, and DF. The shell learns from the kernel what is too long for a leg, and tells it ([`Relay::on_too_long`]).

mod admission;
mod bindings;
mod bucket;
mod channels;
pub mod client;
mod config;
mod cookie;
mod datagrams;
mod fair;
mod forward;
mod narrow;
mod opening;
mod prefixes;
mod stats;
#[cfg(test)]
mod tests;
mod usage;

pub use config::{BOUND_FOR, Config, Limits, Members};
pub use datagrams::{Leg, Train, Transmit};
pub use stats::Stats;

use std::collections::VecDeque;
use std::time::Duration;

use overlay_wire::relay::{Channel, ECHO_LEN, Kind, Reason, Reply, Request, UNBOUND_LEN, kind};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::now::Now;
use bindings::Bindings;
use channels::Channels;
use cookie::Cookies;
use fair::Fair;
use narrow::NarrowLegs;
use prefixes::Prefixes;
use usage::Usage;

/// The most answers that wait to be sent.
const MAX_REPLIES: usize = 1_024;
/// How often what is over is taken away.
const SWEEP: Duration = Duration::from_secs(1);

/// The relay. See the module's text.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    rng: ChaCha8Rng,
    cookies: Cookies,
    prefixes: Prefixes,
    bindings: Bindings,
    channels: Channels,
    usage: Usage,
    fair: Fair,
    narrow: NarrowLegs,
    replies: VecDeque<Transmit>,
    next_sweep: Option<Duration>,
    stats: Stats,
}

impl Relay {
    /// A relay that nobody is bound to.
    pub fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Self {
            rng,
            cookies: Cookies::new(seed),
            prefixes: Prefixes::default(),
            bindings: Bindings::default(),
            channels: Channels::default(),
            usage: Usage::default(),
            fair: Fair::new(config.limits.rate),
            narrow: NarrowLegs::default(),
            replies: VecDeque::new(),
            next_sweep: None,
            stats: Stats::default(),
            config,
        }
    }

    /// Takes in datagrams that arrived together.
    pub fn handle_datagrams(&mut self, train: Train<'_>, from: Leg, now: Now) {
        let stride = train.stride.max(1);
        let mut rest = train.contents;
        // One hint for a train: what comes behind it in the train is lost for the same reason.
        let mut was_told = false;
        while !rest.is_empty() {
            let (first, behind) = rest.split_at(stride.min(rest.len()));
            match kind(first) {
                Kind::Data => {
                    let (run, behind) = rest.split_at(forward::run_len(rest, stride));
                    if !self.forward((run, stride, train.ecn), from, now) {
                        self.stats.dropped_unbound += run.len().div_ceil(stride) as u64;
                        was_told = was_told || self.tell_unbound(first, from);
                    }
                    rest = behind;
                    continue;
                }
                Kind::Control => self.handle_control(first, from, now),
                Kind::Other => self.stats.dropped_foreign += 1,
            }
            rest = behind;
        }
        if self.next_sweep.is_none() && !self.prefixes.is_empty() {
            self.next_sweep = Some(now.monotonic + SWEEP);
        }
    }

    fn handle_control(&mut self, datagram: &[u8], from: Leg, now: Now) {
        match Request::parse(datagram) {
            Ok(Request::Hello { identity, nonce }) => self.challenge((identity, nonce), from, now),
            Ok(Request::Bind { identity, nonce, cookie, envelope }) => {
                self.bind((identity, nonce, cookie), envelope, from, now);
            }
            Ok(Request::Open { token, request, permit }) => match self.bindings.with_token(&token, from) {
                Some(slot) => self.open(slot, request, permit, now),
                None => drop(self.tell_unbound(datagram, from)),
            },
            Ok(Request::Close { channel, token }) => {
                if let Some(slot) = self.bindings.with_token(&token, from) {
                    self.close(slot, channel);
                }
                // Closed now, or not there: the same for who asks.
                self.tell_unbound(datagram, from);
            }
            Err(_) => self.stats.dropped_malformed += 1,
        }
    }

    /// Takes away what is over. Call it when [`Self::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.next_sweep.is_none_or(|at| now.monotonic < at) {
            return;
        }
        for slot in self.bindings.lapsed(now.monotonic) {
            self.unbind(slot);
            self.stats.lapsed += 1;
        }
        for channel in self.channels.expired(now.monotonic) {
            self.remove_channel(channel);
            self.stats.withdrawn += 1;
        }
        self.prefixes.forget(now.monotonic);
        self.next_sweep = (!self.prefixes.is_empty()).then(|| now.monotonic + SWEEP);
    }

    /// What to send next: answers first, then the trains of those whose turn it is.
    pub fn poll_output(&mut self, now: Now) -> Option<Transmit> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        let transmit = self.fair.pop(now.monotonic, &mut self.stats)?;
        self.stats.forwarded += transmit.datagrams() as u64;
        self.stats.forwarded_bytes += transmit.contents.len() as u64;
        Some(transmit)
    }

    /// Takes the buffer of an output back, once it was sent.
    pub fn recycle(&mut self, transmit: Transmit) {
        self.fair.recycle(transmit.contents);
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_output`] again, if nothing comes in before, by the monotonic
    /// clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        [self.next_sweep, self.fair.ready_at()].into_iter().flatten().min()
    }

    /// Its counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How many agents are bound.
    pub fn bindings(&self) -> usize {
        self.bindings.len()
    }

    /// How many channels are open.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// How many bytes wait to be sent on.
    pub fn queued_bytes(&self) -> usize {
        self.fair.bytes()
    }

    /// Ends a binding with its channels and all that it has queued.
    fn unbind(&mut self, slot: usize) {
        let Some(binding) = self.bindings.remove(slot) else { return };
        self.prefixes.on_unbound(binding.leg.remote.ip());
        for channel in binding.channels {
            self.remove_channel(channel);
        }
        self.fair.remove(slot);
    }

    fn remove_channel(&mut self, channel: Channel) {
        let Some(ends) = self.channels.remove(channel) else { return };
        for slot in [ends.from, ends.to] {
            if let Some(binding) = self.bindings.at_mut(slot) {
                binding.channels.remove(&channel);
                binding.opened -= usize::from(slot == ends.from);
            }
        }
    }

    /// Repeats the beginning of a datagram that nothing could be done with. Returns whether it was long enough for that.
    fn tell_unbound(&mut self, datagram: &[u8], from: Leg) -> bool {
        let Some(echo) = datagram.first_chunk::<ECHO_LEN>().filter(|_| datagram.len() >= UNBOUND_LEN) else {
            return false;
        };
        self.stats.unbound += 1;
        self.reply(&Reply::Unbound { echo: *echo }, from);
        true
    }

    fn refuse(&mut self, answers: [u8; 16], (reason, wait): (Reason, Duration), to: Leg) {
        self.stats.on_refused(reason);
        self.reply(&Reply::Refused { answers, reason, wait }, to);
    }

    fn reply(&mut self, reply: &Reply, to: Leg) {
        self.answer(reply.datagram(), to);
    }

    /// Sends an answer among the relay's own. The port has a second protocol: STUN.
    pub fn answer(&mut self, contents: Vec<u8>, to: Leg) {
        if self.replies.len() >= MAX_REPLIES {
            self.stats.dropped_replies += 1;
            return;
        }
        self.replies.push_back(Transmit { leg: to, stride: contents.len(), contents, ecn: 0 });
    }
}
