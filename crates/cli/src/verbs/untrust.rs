//! `overlay untrust`: takes trust back.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::Named;

use crate::arguments::agent::Peer;
use crate::decided;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Peer) -> Result<(), Failure> {
    let command = format!("sudo overlay untrust {} -I", arguments.peer);
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let answer = session.block_on(client.untrust(&Named { peer: arguments.peer.clone() }))?;
    decided::show(session, &answer);
    Ok(())
}
