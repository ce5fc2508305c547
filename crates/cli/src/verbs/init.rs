//! `overlay init`: a new agent, as an identity in the state folder and a config.

use std::net::Ipv6Addr;
use std::path::Path;

use overlay_daemon::Failure;
use overlay_daemon::agent::init::{Made, Wanted};
use overlay_daemon::{agent, config};
use serde::Serialize;

use crate::arguments::Init;
use crate::session::Session;

#[derive(Serialize)]
struct Begun<'a> {
    schema: &'static str,
    name: &'a str,
    network: &'a str,
    /// 52 characters.
    identity: String,
    ipv6: Ipv6Addr,
    config: &'a Path,
    interface: &'a str,
    /// The folder with the keys.
    state: &'a Path,
    /// Without its keys.
    rendezvous: &'a str,
    /// Whether the rendezvous answered.
    contact: bool,
    /// Whether the network is closed, and neither a join token nor an identity was given.
    needs_token: bool,
}

pub(crate) fn run(session: &Session, arguments: &Init) -> Result<(), Failure> {
    let wanted = Wanted {
        name: arguments.name.clone(),
        rendezvous: arguments.rendezvous.clone(),
        network: arguments.network.clone(),
        tags: arguments.tags.clone(),
        services: arguments.services.clone(),
        visibility: arguments.visibility.into(),
        identity: arguments.identity.clone(),
        token: arguments.token.clone(),
        config: arguments.output.clone(),
        state_dir: session.state_dir.clone(),
    };
    let made = session.block_on(agent::init(&wanted))?;
    let begun = begun(&wanted, &made);
    session.output.result(&begun, || shown(&begun));
    session.output.say(&next_steps(&begun, &session.state_dir));
    Ok(())
}

fn begun<'a>(wanted: &'a Wanted, made: &'a Made) -> Begun<'a> {
    Begun {
        schema: "overlay.init.v1",
        name: &wanted.name,
        network: &made.network,
        identity: made.identity.to_string(),
        ipv6: made.ipv6,
        config: &wanted.config,
        interface: &made.interface,
        state: &made.state,
        rendezvous: &made.rendezvous.url,
        contact: made.is_in_contact,
        needs_token: made.needs_token,
    }
}

fn shown(begun: &Begun<'_>) -> String {
    format!("identity  {}\nipv6      {}", begun.identity, begun.ipv6)
}

fn next_steps(begun: &Begun<'_>, state_dir: &Path) -> String {
    let Begun { name, network, config: file, interface, state, rendezvous, .. } = begun;
    let mut text = format!("wrote {}, and the keys of {name} in {}\n", file.display(), state.display());
    if config::interface_name_of(file).is_none() {
        text += &format!("the interface is named {interface}, since the file's own name cannot be an interface's\n");
    }
    if !begun.contact {
        text += &format!("the rendezvous {rendezvous} did not confirm that its network is called {network}\n");
    }
    if begun.needs_token {
        text += &format!(
            "the network {network} is closed: ask its operator for a token; once the agent runs: sudo overlay join FILE\n"
        );
    }
    text += "the IPv4 address comes with the first contact to the rendezvous\n";
    text += &format!("hint: sudo overlay up {}", config::argument_for(file));
    if state_dir != Path::new(agent::STATE_DIR) {
        text += &format!(" --state-dir {}", state_dir.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    fn example(contact: bool, file: &'static str) -> Begun<'static> {
        Begun {
            schema: "overlay.init.v1",
            name: "alice",
            network: "lab",
            identity: "7ri43dtcdcq2hdnep3iaemhqlaebn3itxizqhlc55oirkseqqasq".to_owned(),
            ipv6: "fd12:3456::7".parse().expect("an address"),
            config: Path::new(file),
            interface: "alice",
            state: Path::new("/var/lib/overlay/lab"),
            rendezvous: "https://rv.example.net:7447",
            contact,
            needs_token: false,
        }
    }

    #[test]
    fn a_new_agent_is_told_what_it_is_and_what_comes_next() {
        let told = |begun: &Begun<'_>| next_steps(begun, Path::new(agent::STATE_DIR));
        let begun = example(true, "alice.toml");
        golden("in contact", format!("{}\n{}", shown(&begun), told(&begun)));
        golden("without contact", told(&example(false, "/etc/overlay/alice.toml")));
        golden("a long file name", told(&Begun { interface: "overlay0", ..example(true, "sixteen-letters0.toml") }));
        golden("a closed network", told(&Begun { needs_token: true, ..example(true, "alice.toml") }));
        golden("a state folder of its own", next_steps(&begun, Path::new("/srv/agents")));
    }

    #[test]
    fn the_json_of_a_new_agent_is_as_documented() {
        golden("overlay.init.v1", serde_json::to_string_pretty(&example(true, "alice.toml")).expect("plain data"));
    }
}
