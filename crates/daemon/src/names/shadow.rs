//! Which names alone belong to a different host here.
//!
//! `ssh alice` may mean `alice.corp.example`, because this host completes names with the domains of its search list. It meant
//! that before there was an agent of that name, and goes on to. So a name alone is ours only if no other domain of the list
//! has it. The host's own resolver is asked, and only for names that somebody uses.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use overlay_os::host_name::host_name;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Where the search list stands.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How many names are looked up at once. Each takes a thread.
const MAX_LOOKUPS: usize = 4;
/// How many names may wait for that.
const MAX_QUEUED: usize = 4_096;
/// How long a resolver may take. If it takes longer, it has no answer for anybody.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest search list that is followed, as in the C library.
const MAX_DOMAINS: usize = 32;

/// The look-ups that are in progress, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    running: JoinSet<(String, bool)>,
    queue: VecDeque<String>,
    /// All of both.
    asked: BTreeSet<String>,
    /// The text of resolv.conf, as it was at the last look.
    resolv_conf: String,
}

impl Shadows {
    /// Asks whether a name alone belongs to a different host. `own`: the domain of our names, which does not count.
    pub(super) fn ask(&mut self, name: &str, own: &str) {
        if self.asked.len() < MAX_QUEUED && self.asked.insert(name.to_owned()) {
            self.queue.push_back(name.to_owned());
        }
        self.fill(own);
    }

    /// Waits for the next answer. Can be cancelled.
    pub(super) async fn next(&mut self) -> (String, bool) {
        loop {
            match self.running.join_next().await {
                Some(Ok((name, is_shadowed))) => return (name, is_shadowed),
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Notes an answer that [`Shadows::next`] gave, and begins the next look-up.
    pub(super) fn on_answer(&mut self, name: &str, own: &str) {
        self.asked.remove(name);
        self.fill(own);
    }

    /// Whether the search list may have changed since the last time.
    pub(super) fn has_new_list(&mut self) -> bool {
        let text = resolv_conf();
        text != std::mem::replace(&mut self.resolv_conf, text.clone())
    }

    fn fill(&mut self, own: &str) {
        while self.running.len() < MAX_LOOKUPS {
            let Some(name) = self.queue.pop_front() else { return };
            let domains = search_list(&resolv_conf(), &host_name(), own);
            self.running.spawn(async move {
                let is_shadowed = is_shadowed(&name, &domains).await;
                (name, is_shadowed)
            });
        }
    }
}

fn resolv_conf() -> String {
    std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()
}

async fn is_shadowed(name: &str, domains: &[String]) -> bool {
    for domain in domains {
        // With the dot at its end, the name is not completed again.
        let full = format!("{name}.{domain}.");
        let found = timeout(PATIENCE, tokio::net::lookup_host((full, 0))).await;
        if let Ok(Ok(mut addresses)) = found
            && addresses.next().is_some()
        {
            return true;
        }
    }
    false
}

/// The domains by which this host completes names, apart from our own: `search` or `domain` of resolv.conf, whichever comes
/// last, else the domain of the host's name.
fn search_list(resolv_conf: &str, host_name: &str, own: &str) -> Vec<String> {
    let mut list: Option<Vec<String>> = None;
    for line in resolv_conf.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("search") => list = Some(words.map(str::to_owned).collect()),
            Some("domain") => list = Some(words.take(1).map(str::to_owned).collect()),
            _ => {}
        }
    }
    let list =
        list.unwrap_or_else(|| host_name.split_once('.').map(|(_, domain)| domain.to_owned()).into_iter().collect());
    let is_own = |domain: &str| domain == own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.'));
    let domains = list.into_iter().map(|domain| domain.trim_end_matches('.').to_ascii_lowercase());
    domains.filter(|domain| !domain.is_empty() && !is_own(domain)).take(MAX_DOMAINS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_list_is_that_of_the_c_library_without_our_own() {
        let own = "lab.overlay.internal";
        for (text, host, expected) in [
            ("", "box", &[][..]),
            ("", "box.corp.example", &["corp.example"]),
            ("nameserver 127.0.0.53\nsearch corp.example Eu.Example.\n", "box", &["corp.example", "eu.example"]),
            ("search first.example\ndomain second.example\n", "box.third.example", &["second.example"]),
            ("search .\n", "box.corp.example", &[]),
            ("search corp.example short.lab.overlay.internal lab.overlay.internal", "box", &["corp.example"]),
            ("search notlab.overlay.internal", "box", &["notlab.overlay.internal"]),
        ] {
            assert_eq!(search_list(text, host, own), expected, "{text:?} on {host}");
        }
    }
}
