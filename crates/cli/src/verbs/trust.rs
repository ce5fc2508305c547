//! `overlay trust`: trusts an agent before it asks, and compares keys.

use overlay_daemon::Failure;
use overlay_daemon::agent::request;
use overlay_daemon::agent::request::{Confirmed, Verified};
use overlay_daemon::failure::ExitKind;

use crate::arguments::agent::{On, Peer, Trust, TrustVerb};
use crate::session::Session;
use crate::{columns, decided, inert};

pub(crate) fn run(session: &Session, arguments: &Trust) -> Result<(), Failure> {
    match (&arguments.verb, &arguments.peer) {
        (Some(TrustVerb::Verify(peer)), _) => verify(session, peer),
        (Some(TrustVerb::Confirm(on)), _) => confirm(session, on),
        (None, Some(peer)) => trust(session, arguments, peer),
        (None, None) => Err(Failure::new(ExitKind::Usage, "no agent was given").with_hint("overlay trust --help")),
    }
}

fn trust(session: &Session, arguments: &Trust, peer: &str) -> Result<(), Failure> {
    let trust = request::Approve {
        peer: peer.to_owned(),
        allow: decided::granted(&arguments.allow)?,
        seconds: arguments.lifetime,
    };
    let command = format!("sudo overlay trust {peer} -I");
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let answer = session.block_on(client.trust(&trust))?;
    decided::show(session, &answer);
    Ok(())
}

fn verify(session: &Session, arguments: &Peer) -> Result<(), Failure> {
    let command = format!("overlay trust verify {} -I", arguments.peer);
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let answer = session.block_on(client.verify(&arguments.peer))?;
    session.output.result(&answer, || text(&answer.verified));
    let name = inert::text(&answer.verified.own_name);
    session
        .output
        .say(&format!("hint: compare the code with the one of `overlay trust verify {name}` on the other host"));
    Ok(())
}

fn confirm(session: &Session, on: &On) -> Result<(), Failure> {
    let client = session.client(on.interface.as_deref(), "sudo overlay trust confirm -I")?;
    let answer = session.block_on(client.confirm())?;
    session.output.result(&answer, || confirmed(&answer.confirmed));
    Ok(())
}

fn confirmed(confirmed: &Confirmed) -> String {
    let names: Vec<_> = confirmed.peers.iter().map(|name| inert::text(name)).collect();
    let trusted = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    columns::labelled(&[("trusted", trusted)])
}

fn text(verified: &Verified) -> String {
    columns::labelled(&[
        ("peer", columns::agent(&verified.name, &verified.identity)),
        ("key", inert::text(&verified.identity)),
        ("own key", inert::text(&verified.own_identity)),
        ("network", inert::text(&verified.network)),
        ("code", inert::text(&verified.code)),
    ])
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn those_who_are_trusted_again_are_named() {
        let text =
            |peers: &[&str]| confirmed(&Confirmed { peers: peers.iter().map(|&peer| peer.to_owned()).collect() });
        assert_eq!(text(&["bob", "carol\n"]), "trusted    bob, carol\\n");
        assert_eq!(text(&[]), "trusted    nobody");
    }

    #[test]
    fn the_code_stands_below_what_it_is_made_of() {
        let verified = Verified {
            name: "bob\x07".to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            own_name: "alice".to_owned(),
            own_identity: "ahl4qrxso6qbzc3s2v7jgmi5twdkfyenup2x4o7i5s6pdlmgaaaa".to_owned(),
            network: "aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq".to_owned(),
            code: "5a1c1 4da48 c9b16 69be0 4414b 9ab02 8f683 60ca7".to_owned(),
        };
        golden("overlay trust verify bob", text(&verified));
    }
}
