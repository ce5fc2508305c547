//! Endpoints by host name: tells the resolver whether their peers answer, and receives its addresses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{Event, PeerKey};
use tokio::sync::mpsc;

use crate::resolve::{self, Answer, Families, NamedEndpoint, Resolver};

/// How many answers of the resolver may wait for their turn.
const MAX_ANSWERS: usize = 64;

/// The resolver and its answers.
pub(super) struct Resolving {
    resolver: Resolver,
    answers: mpsc::Receiver<Answer>,
}

impl Resolving {
    /// Starts to look up names. Returns the addresses that came within `patience`.
    pub(super) async fn start(
        names: Vec<NamedEndpoint>,
        families: Families,
        patience: Duration,
    ) -> (Self, HashMap<PeerKey, Vec<SocketAddr>>) {
        let (answering, mut answers) = mpsc::channel(MAX_ANSWERS);
        let resolver = resolve::spawn(names.clone(), families, answering);
        let resolved = resolve::first_answers(&names, &mut answers, patience).await;
        (Self { resolver, answers }, resolved)
    }

    /// Waits for the next answer. Can be cancelled.
    pub(super) async fn next(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Tells the resolver whether a peer answers.
    pub(super) fn on_event(&self, peer: PeerKey, event: &Event) {
        match event {
            Event::HandshakeCompleted(..) => self.resolver.on_handshake_completed(peer),
            Event::HandshakeFailed(_) => self.resolver.on_handshake_failed(peer),
            Event::Answering(_, answers) => self.resolver.on_answering(peer, *answers),
            Event::EndpointChanged(..)
            | Event::PathMtu(..)
            | Event::Word(..)
            | Event::Parcel(..)
            | Event::Unreachable(_)
            | Event::PresharedKeyProven(_)
            | Event::KnowsPresentKey(_) => {}
        }
    }

    /// Makes these the names that are looked up, and no others.
    pub(super) fn on_names(&self, names: Vec<NamedEndpoint>) {
        self.resolver.set_peers(names);
    }
}
