//! `overlay approve`: approves a request, or changes what a trusted agent may open.

use overlay_daemon::Failure;
use overlay_daemon::agent::request;

use crate::arguments::agent::Approve;
use crate::decided;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Approve) -> Result<(), Failure> {
    let approve = request::Approve {
        peer: arguments.peer.clone(),
        allow: decided::granted(&arguments.allow)?,
        seconds: arguments.lifetime,
    };
    let command = format!("sudo overlay approve {} -I", arguments.peer);
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let answer = session.block_on(client.approve(&approve))?;
    decided::show(session, &answer);
    decided::warn_of_name(session, &arguments.peer, &answer.decided);
    Ok(())
}
