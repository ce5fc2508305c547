//! `overlay handshake`: asks an agent for trust.

use overlay_daemon::Failure;
use overlay_daemon::agent::request;

use crate::arguments::agent::Handshake;
use crate::decided;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Handshake) -> Result<(), Failure> {
    let handshake = request::Handshake {
        peer: arguments.peer.clone(),
        reason: arguments.reason.clone(),
        want: decided::bounded("--want", &arguments.want)?,
        allow: decided::granted(&arguments.allow)?,
        seconds: arguments.lifetime,
    };
    let command = format!("sudo overlay handshake {} -I", arguments.peer);
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let answer = session.block_on(client.handshake(&handshake))?;
    decided::show(session, &answer);
    decided::warn_of_name(session, &arguments.peer, &answer.decided);
    Ok(())
}
