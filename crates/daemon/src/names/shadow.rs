//! Which names alone belong to a different host here.
//!
//! `ssh alice` may mean `alice.corp.example`, because this host completes names with the domains of its search list. It meant
//! that before there was an agent of that name, and goes on to. So a short name is ours only if no other domain of the list
//! has it. The host's own resolver is asked: on demand with systemd-resolved, for the name of every peer with the hosts file.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;

use overlay_os::host_name::host_name;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::hosts_file::SUFFIX;

/// Where the search list stands.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How many names are looked up at once. Each takes a thread, which a resolver may keep after nobody waits any more.
const MAX_LOOKUPS: usize = 4;
/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest search list that is followed, as in the C library.
const MAX_DOMAINS: usize = 32;

/// Whose a short name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Owner {
    /// No other host's, so it is the agent's.
    Free,
    /// A different host has it.
    Taken,
    /// The resolver did not say. It may be somebody else's, so it is not ours.
    Unknown,
}

/// The look-ups that are in progress, and those that wait.
#[derive(Debug)]
pub(super) struct Shadows {
    running: JoinSet<(String, Owner)>,
    threads: Arc<Semaphore>,
    queue: VecDeque<String>,
    /// Every name that is running or queued.
    asked: BTreeSet<String>,
    /// The text of resolv.conf, as it was at the last look.
    resolv_conf: String,
}

impl Default for Shadows {
    fn default() -> Self {
        Self {
            running: JoinSet::new(),
            threads: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            queue: VecDeque::new(),
            asked: BTreeSet::new(),
            resolv_conf: resolv_conf(),
        }
    }
}

impl Shadows {
    /// Asks whose a short name is. The caller bounds the names.
    pub(super) fn ask(&mut self, name: &str) {
        if self.asked.insert(name.to_owned()) {
            self.queue.push_back(name.to_owned());
        }
        self.fill();
    }

    /// Whether nothing is being looked up.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// Waits for the next answer. Can be cancelled.
    pub(super) async fn next(&mut self) -> (String, Owner) {
        loop {
            match self.running.join_next().await {
                Some(Ok((name, owner))) => return (name, owner),
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Notes an answer that [`Shadows::next`] gave, and begins the next look-up.
    pub(super) fn on_answer(&mut self, name: &str) {
        self.asked.remove(name);
        self.fill();
    }

    /// Whether the search list may have changed since the last time.
    pub(super) fn has_new_list(&mut self) -> bool {
        let text = resolv_conf();
        text != std::mem::replace(&mut self.resolv_conf, text.clone())
    }

    fn fill(&mut self) {
        while self.running.len() < MAX_LOOKUPS {
            let Some(name) = self.queue.pop_front() else { return };
            let domains = search_list(&resolv_conf(), &host_name());
            let threads = Arc::clone(&self.threads);
            self.running.spawn(async move {
                let owner = owner(&name, &domains, &threads).await;
                (name, owner)
            });
        }
    }
}

fn resolv_conf() -> String {
    std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()
}

async fn owner(name: &str, domains: &[String], threads: &Arc<Semaphore>) -> Owner {
    let mut owner = Owner::Free;
    for domain in domains {
        // With the dot at its end, the name is not completed again.
        match look_up(format!("{name}.{domain}."), threads).await {
            Owner::Free => {}
            Owner::Taken => return Owner::Taken,
            Owner::Unknown => owner = Owner::Unknown,
        }
    }
    owner
}

/// Looks up one full name. The thread keeps its place until the resolver has answered.
async fn look_up(name: String, threads: &Arc<Semaphore>) -> Owner {
    let looked_up = async {
        let place = Arc::clone(threads).acquire_owned().await.ok()?;
        let look = move || {
            let found = (name.as_str(), 0).to_socket_addrs().map(|mut addresses| addresses.next().is_some());
            drop(place);
            found
        };
        tokio::task::spawn_blocking(look).await.ok()
    };
    match timeout(PATIENCE, looked_up).await {
        Ok(Some(Ok(true))) => Owner::Taken,
        Ok(Some(Ok(false))) => Owner::Free,
        Ok(Some(Err(error))) if is_denied(&error) => Owner::Free,
        _ => Owner::Unknown,
    }
}

/// Whether the resolver says that there is no such name, or that it has no address (EAI_NONAME, EAI_NODATA). The standard library
/// shows the code in the words of the C library alone, which are English in a program that sets no locale.
fn is_denied(error: &io::Error) -> bool {
    let said = error.to_string();
    said.contains("Name or service not known") || said.contains("No address associated with hostname")
}

/// The domains by which this host completes names, apart from those of overlays: `search` or `domain` of resolv.conf, whichever
/// comes last, else the domain of the host's name.
fn search_list(resolv_conf: &str, host_name: &str) -> Vec<String> {
    let mut list: Option<Vec<String>> = None;
    for line in resolv_conf.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("search") => list = Some(words.map(str::to_owned).collect()),
            Some("domain") => list = Some(words.take(1).map(str::to_owned).collect()),
            _ => {}
        }
    }
    let of_host = || host_name.split_once('.').map(|(_, domain)| domain.to_owned()).into_iter().collect();
    let domains = list.unwrap_or_else(of_host).into_iter();
    let domains = domains.map(|domain| domain.trim_end_matches('.').to_ascii_lowercase());
    domains.filter(|domain| !domain.is_empty() && !domain.ends_with(SUFFIX)).take(MAX_DOMAINS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_list_is_that_of_the_c_library_without_our_own() {
        for (text, host, expected) in [
            ("", "box", &[][..]),
            ("", "box.corp.example", &["corp.example"]),
            ("nameserver 127.0.0.53\nsearch corp.example Eu.Example.\n", "box", &["corp.example", "eu.example"]),
            ("search first.example\ndomain second.example\n", "box.third.example", &["second.example"]),
            ("search .\n", "box.corp.example", &[]),
            ("search corp.example short.lab.overlay.internal short.b.overlay.internal", "box", &["corp.example"]),
            ("search overlay.internal.example", "box", &["overlay.internal.example"]),
        ] {
            assert_eq!(search_list(text, host), expected, "{text:?} on {host}");
        }
    }

    #[tokio::test]
    async fn a_name_is_free_only_if_that_is_known() {
        let threads = Arc::new(Semaphore::new(1));
        assert_eq!(look_up("127.0.0.1".to_owned(), &threads).await, Owner::Taken);
        assert_eq!(owner("alice", &[], &threads).await, Owner::Free);
        // A resolver that still holds the only thread says nothing.
        let _held = Arc::clone(&threads).acquire_owned().await.expect("it is open");
        assert_eq!(look_up("127.0.0.1".to_owned(), &threads).await, Owner::Unknown);
    }
}
