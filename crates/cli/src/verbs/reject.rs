//! `overlay reject`: refuses a request. For the agent this is the same as `untrust`.

use overlay_daemon::Failure;

use super::untrust;
use crate::arguments::agent::Peer;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Peer) -> Result<(), Failure> {
    untrust::ask(session, arguments, "reject")
}
