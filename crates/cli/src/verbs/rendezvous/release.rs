//! `overlay rendezvous release`: frees a name that its agent has given up.

use overlay_daemon::Failure;
use overlay_server::operator::protocol::Ask;

use super::order;
use crate::arguments::rendezvous::Release;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: Release) -> Result<(), Failure> {
    order(session, &arguments.on, &Ask::FreeName { name: arguments.name }, "released")
}
