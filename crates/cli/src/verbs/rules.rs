//! `overlay rules`: what a peer may open here, and what may be opened there.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::{Granted, PeerRules};

use crate::arguments::agent::Peer;
use crate::figures::{now, until};
use crate::session::Session;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &Peer) -> Result<(), Failure> {
    let command = format!("overlay rules {} -I", arguments.peer);
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let answer = session.block_on(client.rules(&arguments.peer))?;
    session.output.result(&answer, || text(&answer.rules, now()));
    Ok(())
}

fn text(rules: &PeerRules, now: u64) -> String {
    let mut lines = vec![
        ("peer", columns::agent(&rules.name, &rules.identity)),
        ("key", inert::text(&rules.identity)),
        ("addresses", columns::texts(&rules.addresses)),
        ("state", inert::text(&rules.state)),
    ];
    if let Some(tunnel) = &rules.tunnel {
        lines.push(("tunnel", inert::text(tunnel)));
    }
    if let Some(packets) = &rules.packets {
        let figures = format!("{} received, {} sent, {} dropped", packets.received, packets.sent, packets.dropped);
        lines.push(("packets", figures));
    }
    let row = |whose: &str, granted: &Granted| {
        let date = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), |at| until(at, now));
        [
            whose.to_owned(),
            inert::text(&granted.state),
            granted.allow.as_deref().map_or_else(|| "-".to_owned(), columns::scopes),
            date(granted.since),
            date(granted.expires),
            granted.by.as_deref().map_or_else(|| "-".to_owned(), inert::text),
        ]
    };
    let rows = [row("the peer, here", &rules.here), row("we, there", &rules.there)];
    let header = ["may open", "state", "scopes", "since", "expires", "decided by"];
    format!("{}\n\n{}", columns::labelled(&lines), columns::table(header, rows))
}

#[cfg(test)]
mod tests {
    use overlay_daemon::agent::request::Packets;
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn both_grants_are_shown_and_who_decided() {
        let granted = Granted {
            state: "granted".to_owned(),
            allow: Some(vec!["icmp".to_owned(), "tcp/8000".to_owned()]),
            since: Some(1_795_824_000),
            expires: Some(1_795_910_400),
            by: Some("uid 0".to_owned()),
        };
        let rules = PeerRules {
            name: "bob".to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            addresses: vec!["10.99.0.2".to_owned(), "fd5c:1:2::2".to_owned()],
            state: "trusted".to_owned(),
            here: granted.clone(),
            there: Granted { allow: Some(Vec::new()), expires: None, by: None, ..granted },
            tunnel: Some("connected".to_owned()),
            packets: Some(Packets { received: 12, sent: 7, dropped: 1 }),
        };
        golden("overlay rules bob", text(&rules, 1_795_824_060));
        let nothing = Granted { state: "nothing".to_owned(), ..Granted::default() };
        let bare = PeerRules {
            name: String::new(),
            addresses: Vec::new(),
            state: "asked\x1b[2J".to_owned(),
            there: nothing,
            tunnel: None,
            packets: None,
            ..rules
        };
        golden("a peer that has not answered", text(&bare, 1_795_824_060));
    }
}
