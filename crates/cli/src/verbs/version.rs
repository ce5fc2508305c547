//! `overlay version`: prints the version of this program.

use overlay_daemon::Failure;
use overlay_daemon::api::Version;

use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<(), Failure> {
    let version = Version::current();
    session.output.result(&version, || format!("overlay {}", version.version));
    Ok(())
}
