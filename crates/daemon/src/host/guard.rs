//! The nft guard: it decides who may reach the virtual IPs, and is the second lock of a default route through the
//! tunnel.
//!
//! The guard is installed before anything that it guards, and is removed after it. During a change it first covers both
//! the old and the new state, then the change is made, and then it covers only the new state. Its table is replaced in
//! one step, so that there is never a moment without it.
//!
//! The second lock passes the same traffic as the policy rules, but decides by nft alone, so that neither needs the
//! other. Without the rules nft drops the traffic, and without nft the rules lead it into the tunnel. The guard
//! outlives the daemon: after `kill -9`, nothing covered by the default route leaves this host until the next `up` or
//! `down`.

use overlay_os::nft::{self, Lock, NftError, Shape, Table};

use super::facts::{HostFacts, Part, PutBack};
use super::footprint::{Covered, Footprint, covered};
use super::journal::Journal;
use super::surroundings::{Surroundings, guarded_addresses};
use crate::config::{self, Config, Endpoint};

/// The nft table of one daemon.
#[derive(Debug)]
pub(super) struct Guard {
    interface: String,
    mode: config::Guard,
    /// The table that was installed, and its shape as the kernel listed it then.
    installed: Option<(Table, Shape)>,
    /// Why it could not be installed, as last reported.
    complaint: Option<String>,
}

impl Guard {
    pub(super) fn new(interface: &str, mode: config::Guard) -> Self {
        Self { interface: interface.to_owned(), mode, installed: None, complaint: None }
    }

    /// Whether the config wants a guard.
    pub(super) fn is_wanted(&self) -> bool {
        self.mode != config::Guard::Off
    }

    /// Whether containers of this host may reach the virtual IPs.
    pub(super) fn knows_own_interfaces(&self) -> bool {
        self.mode == config::Guard::Auto
    }

    pub(super) fn mode(&self) -> config::Guard {
        self.mode
    }

    pub(super) fn set_mode(&mut self, mode: config::Guard) {
        self.mode = mode;
    }

    /// Whether the config wants a table that this host does not support.
    pub(super) fn is_missing(&self) -> bool {
        self.is_wanted() && self.installed.is_none()
    }

    /// Why a table that was installed cannot be restored.
    pub(super) fn lost(&self) -> Option<String> {
        self.complaint.clone().filter(|_| self.installed.is_some())
    }

    /// Records why the table could not be installed, or `None` if it was. Returns true if this is news.
    pub(super) fn on_installed(&mut self, complaint: Option<String>) -> bool {
        let is_news = self.complaint != complaint;
        self.complaint = complaint;
        is_news
    }

    /// Installs this table unless it is already in place. Notes in `put_back` if another program had changed it.
    pub(super) async fn install(
        &mut self,
        journal: &mut Journal,
        facts: &HostFacts,
        put_back: &mut PutBack,
        table: Table,
    ) -> Result<(), NftError> {
        if let Some((installed, shape)) = &self.installed {
            let is_intact = nft::shape(&self.interface)?.as_ref() == Some(shape);
            if is_intact && *installed == table {
                return Ok(());
            }
            if !is_intact {
                put_back.note(Part::NftTable);
            }
        }
        if !nft::is_available() {
            return Err(NftError::Missing);
        }
        // A journal that cannot be written is reported when anything else is recorded.
        let _ = journal.record_nft_table(true);
        match nft::install(&table, facts.counted()).await {
            Ok(shape) => {
                self.installed = Some((table, shape));
                Ok(())
            }
            Err(error) => {
                if self.installed.is_none() {
                    let _ = journal.record_nft_table(false);
                }
                Err(error)
            }
        }
    }

    /// Removes the table.
    ///
    /// Errors: a message for the user, if the table is still there.
    pub(super) async fn remove(&mut self, journal: &mut Journal) -> Result<(), String> {
        if self.installed.is_none() {
            return Ok(());
        }
        match nft::remove(&self.interface).await {
            Ok(()) => {
                self.installed = None;
                journal.record_nft_table(false).map_err(|failure| failure.to_string())
            }
            Err(error) => Err(format!("cannot remove the nft table overlay_{}: {error}", self.interface)),
        }
    }
}

/// Whether a guard that an earlier daemon left stays unchanged until this config's guard replaces it. False if an
/// endpoint is a name: the guard then has to let DNS queries out.
pub(crate) fn takes_over_guard(config: &Config) -> bool {
    let is_named = |peer: &config::Peer| matches!(peer.endpoint, Some(Endpoint::Name { .. }));
    fails_closed(config) && !config.peers.iter().any(is_named)
}

/// Whether the guard stays when a daemon with this config fails.
pub(crate) fn fails_closed(config: &Config) -> bool {
    config.interface.guard != config::Guard::Off && covered(config).is_any()
}

/// The table that guards all of these footprints.
pub(super) fn table(interface: &str, footprints: &[&Footprint], around: &Surroundings) -> Table {
    let mut addresses = Vec::new();
    let (mut covered, mut marks) = (Covered::default(), Vec::new());
    for footprint in footprints {
        for ip in guarded_addresses(&footprint.own_addresses()) {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        covered.v4 |= footprint.covered.v4;
        covered.v6 |= footprint.covered.v6;
        if let Some(marked) = footprint.marked
            && !marks.contains(&marked.mark)
        {
            marks.push(marked.mark);
        }
    }
    let lock = covered.is_any().then(|| Lock { v4: covered.v4, v6: covered.v6, marks, direct: around.direct.clone() });
    Table { interface: interface.to_owned(), addresses, own: around.own.clone(), lock }
}

#[cfg(test)]
mod tests {
    use super::super::footprint::tests::config;
    use super::*;
    use crate::config::MtuRange;

    fn plan(addresses: &[&str], allowed: &[&str], more: &str) -> Footprint {
        Footprint::plan(&config(addresses, &[allowed], more), MtuRange::fixed(1420), true, 51820)
    }

    #[test]
    fn a_left_guard_stays_where_no_name_has_to_be_asked_for() {
        let rows: &[(&[&str], &str, bool)] = &[
            (&["0.0.0.0/0"], "", true),
            (&["::/0"], "guard = \"strict\"", true),
            (&["10.0.0.0/8"], "", false),
            (&["0.0.0.0/0"], "guard = \"off\"", false),
            (&["0.0.0.0/0"], "table = 7", false),
            (&["0.0.0.0/0"], "table = \"off\"", false),
        ];
        for (allowed, more, is_closed) in rows {
            let mut config = config(&["10.77.0.1/24"], &[allowed], more);
            assert_eq!(
                (fails_closed(&config), takes_over_guard(&config)),
                (*is_closed, *is_closed),
                "{allowed:?} {more}"
            );
            config.peers[0].endpoint = Some(Endpoint::Name { host: "b.example.net".to_owned(), port: 1 });
            assert_eq!((fails_closed(&config), takes_over_guard(&config)), (*is_closed, false), "{allowed:?} {more}");
        }
    }

    #[test]
    fn while_things_change_what_was_and_what_will_be_are_guarded() {
        let before = plan(&["10.77.0.1/24"], &["0.0.0.0/0"], "fwmark = 7");
        let after = plan(&["10.77.0.9/24", "fd77::1/64"], &["::/0"], "fwmark = 8");
        let around = Surroundings { own: vec![3], ..Surroundings::default() };
        let both = table("ov0", &[&before, &after], &around);
        let addresses: Vec<String> = both.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.77.0.1", "10.77.0.255", "10.77.0.9", "fd77::1"]);
        let lock = both.lock.expect("both are locked");
        assert_eq!((lock.v4, lock.v6, lock.marks, both.own), (true, true, vec![7, 8], vec![3]));
        let only = table("ov0", &[&after], &around);
        assert_eq!(only.lock.map(|lock| (lock.v4, lock.v6, lock.marks)), Some((false, true, vec![8])));
        let none = table("ov0", &[&plan(&["10.77.0.1/24"], &["10.0.0.0/8"], "")], &around);
        assert_eq!(none.lock, None);
    }
}
