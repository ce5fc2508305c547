//! `overlay network`: makes, signs and shows the object of a network, where no rendezvous runs.

use std::path::{Path, PathBuf};

use overlay_daemon::Failure;
use overlay_server::network::{self, Change};
use overlay_wire::signed::{Network, PublicKey};
use serde::Serialize;

use super::rendezvous::failure;
use crate::arguments::network::{self as arguments, Content};
use crate::background::path_from_root;
use crate::figures::date;
use crate::session::Session;
use crate::{columns, inert};

/// What an object says.
#[derive(Serialize)]
struct Shown<'a> {
    schema: &'static str,
    file: &'a Path,
    name: &'a str,
    /// The network's key.
    network: String,
    pool: String,
    is_closed: bool,
    sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    issued: u64,
    rendezvous: Vec<Place<'a>>,
}

#[derive(Serialize)]
struct Place<'a> {
    url: &'a str,
    key: String,
    /// What agents are given.
    pinned: String,
}

pub(crate) fn run(session: &Session, verb: &arguments::Network) -> Result<(), Failure> {
    match verb {
        arguments::Network::Init(arguments) => init(session, arguments),
        arguments::Network::Sign(arguments) => sign(session, arguments),
        arguments::Network::Show(arguments) => {
            let file = path_from_root(&arguments.file)?;
            show(session, &file, &*network::open(&file).map_err(failure)?);
            Ok(())
        }
    }
}

fn init(session: &Session, arguments: &arguments::Init) -> Result<(), Failure> {
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.network", arguments.name)));
    let (key, file) = (path_from_root(&arguments.key)?, path_from_root(&output)?);
    let change = change(&arguments.content, Vec::new(), false);
    let making =
        async { network::init(&arguments.name, (&key, &file), arguments.pool, &change).await.map_err(failure) };
    let made = session.block_on(making)?;
    show(session, &file, &made);
    session.output.say(&format!("{} signs for the network: keep it where nobody else can read it", key.display()));
    Ok(())
}

fn sign(session: &Session, arguments: &arguments::Sign) -> Result<(), Failure> {
    let (key, file) = (path_from_root(&arguments.key)?, path_from_root(&arguments.file)?);
    let change = change(&arguments.content, arguments.remove.clone(), arguments.open);
    let signed = network::sign(&file, &key, &change).map_err(failure)?;
    show(session, &file, &signed);
    Ok(())
}

fn change(content: &Content, removed: Vec<PublicKey>, open: bool) -> Change {
    let is_closed = (content.closed || open).then_some(content.closed);
    Change { rendezvous: content.rendezvous.clone(), removed, is_closed }
}

fn show(session: &Session, file: &Path, network: &Network) {
    let rendezvous = network.rendezvous.iter().map(|place| Place {
        url: &place.url,
        key: place.key.to_string(),
        pinned: format!("{}#{}.{}", place.url, place.key, network.network),
    });
    let shown = Shown {
        schema: "overlay.network.v1",
        file,
        name: &network.name,
        network: network.network.to_string(),
        pool: format!("{}/{}", network.pool.address(), network.pool.prefix_len()),
        is_closed: network.is_closed,
        sequence: network.sequence,
        issued: network.issued,
        rendezvous: rendezvous.collect(),
    };
    session.output.result(&shown, || text(&shown));
}

fn text(shown: &Shown<'_>) -> String {
    let mut lines = vec![
        ("network", inert::text(shown.name)),
        ("key", shown.network.clone()),
        ("pool", shown.pool.clone()),
        ("agents", if shown.is_closed { "those with a token may join" } else { "any may join" }.to_owned()),
        ("signed", date(shown.issued / 1_000)),
    ];
    let place = |place: &Place<'_>| ("rendezvous", inert::text(&place.pinned));
    lines.extend(shown.rendezvous.iter().map(place));
    if shown.rendezvous.is_empty() {
        lines.push(("rendezvous", "not named yet".to_owned()));
    }
    columns::labelled(&lines)
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn an_object_is_shown_with_what_agents_are_given() {
        let shown = |rendezvous| Shown {
            schema: "overlay.network.v1",
            file: Path::new("lab.network"),
            name: "lab",
            network: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            pool: "10.66.0.0/16".to_owned(),
            is_closed: true,
            sequence: 1_795_780_800_000,
            issued: 1_795_780_800_000,
            rendezvous,
        };
        let place = |url| Place { url, key: "key".to_owned(), pinned: format!("{url}#key.netkey") };
        let places = vec![place("https://rv1.example.net:7447"), place("https://rv2.example.net:7447")];
        golden("overlay network show", text(&shown(places)));
        golden("a network without a rendezvous", text(&Shown { is_closed: false, ..shown(Vec::new()) }));
    }
}
