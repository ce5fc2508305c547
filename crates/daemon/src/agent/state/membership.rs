//! What each rendezvous has signed about this agent's membership.

use overlay_wire::signed::Membership;

use super::*;

const MEMBERSHIPS: &str = "memberships";

impl State {
    /// What was kept. A line that cannot be read is left out: the rendezvous signs it again.
    pub(crate) fn memberships(&self) -> Vec<Signed<Membership>> {
        let bytes = read(&self.folder, OsStr::new(MEMBERSHIPS)).ok().flatten().unwrap_or_default();
        let object = |line: &[u8]| Signed::open(&STANDARD.decode(line).ok()?).ok();
        bytes.split(|byte| *byte == b'\n').filter_map(object).collect()
    }

    pub(crate) fn set_memberships<'a>(
        &self,
        memberships: impl Iterator<Item = &'a Signed<Membership>>,
    ) -> Result<(), Failure> {
        let lines: String = memberships.map(|membership| STANDARD.encode(membership.bytes()) + "\n").collect();
        self.replace(MEMBERSHIPS, lines.as_bytes())
    }
}
