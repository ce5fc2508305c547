//! The machine that a state folder belongs to.
//!
//! A copied folder is the same agent a second time. So the folder holds a hash of the machine's id, and a daemon on a different
//! machine refuses it, unless somebody says that it was moved. Machines without an id, as many containers are, are not told
//! apart.

use std::fs;

use sha2::{Digest as _, Sha256};

use super::*;

/// Where systemd keeps the id of a machine.
const MACHINE_ID: &str = "/etc/machine-id";
const MACHINE: &str = "machine";
/// What is hashed with the id, which is not to be shown to anybody.
const PURPOSE: &[u8] = b"overlay machine v1\0";

impl State {
    /// Refuses a folder that was used on a different machine. With `adopt` it belongs to this one from now on.
    pub(crate) fn check_machine(&self, adopt: bool) -> Result<(), Failure> {
        let Some(machine) = this_machine() else { return Ok(()) };
        match self.machine()? {
            Some(known) if known == machine => Ok(()),
            Some(_) if !adopt => Err(self.foreign()),
            _ => self.replace(MACHINE, machine.as_bytes()),
        }
    }

    /// Why this machine may not run the agent: the folder was used on a different one. `None`: it may. Changes nothing.
    pub(crate) fn refusal_of_machine(&self) -> Result<Option<Failure>, Failure> {
        let known = this_machine().zip(self.machine()?);
        Ok(known.filter(|(this, known)| this != known).map(|_| self.foreign()))
    }

    /// The hash of the machine that the folder belongs to.
    fn machine(&self) -> Result<Option<String>, Failure> {
        let known = read(&self.folder, OsStr::new(MACHINE))?;
        Ok(known.map(|known| String::from_utf8_lossy(&known).into_owned()))
    }

    fn foreign(&self) -> Failure {
        let path = self.folder.path_of(MACHINE);
        Failure::new(ExitKind::Conflict, format!("{} names a different machine", path.display()))
            .with_cause(
                "the state folder was used on a host with a different /etc/machine-id, and two hosts with one identity \
                 disturb each other",
            )
            .with_hint(
                "if the folder was moved here for good, add --adopt; if it is a copy, make a new agent: overlay init",
            )
    }
}

/// The hash of this machine's id. `None`: it has none.
fn this_machine() -> Option<String> {
    let id = fs::read_to_string(MACHINE_ID).ok()?;
    let id = id.trim();
    // systemd writes a word instead of an id while a machine starts for the first time.
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| STANDARD.encode(Sha256::new().chain_update(PURPOSE).chain_update(id).finalize()))
}
