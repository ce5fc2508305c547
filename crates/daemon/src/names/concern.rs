//! The names of agents, as a concern of `up`: what is named goes in, and the host's programs find it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::answering::Answering;
use super::bound::Bound;
use super::child::{Child, Known, Role};
use super::message::Report;
use super::resolved::{self, Link, Resolved, Standing};
use super::reverse;
use super::shadow::{Owner, Shadows};
use super::zone::{Agent, Origin, SHORT};
use crate::config::Dns;
use crate::hosts_file::HOSTS;
use crate::warnings::StatusWarning;

/// How long a start waits for names.
const SETTLING: Duration = Duration::from_secs(1);
/// The codes of warnings: nobody answers, resolved was not told, the hosts file is not written, two have a name.
pub(crate) const PORT: &str = "names_port";
pub(crate) const RESOLVED_WARNING: &str = "names_not_told";
pub(crate) const HOSTS_WARNING: &str = "names_not_written";
pub(crate) const AMBIGUOUS: &str = "name_ambiguous";

/// The names of agents on this host.
#[derive(Debug)]
pub(crate) struct Names {
    index: u32,
    known: Known,
    bound: Bound,
    answering: Answering,
    way: Way,
    shadows: Shadows,
    /// Names that two agents have, so that neither is found by it.
    ambiguous: Vec<String>,
    /// Short names of agents that mean a different host here, as far as that is known.
    shadowed: BTreeSet<String>,
    /// Those of which the resolver did not say whose they are.
    unknown: BTreeSet<String>,
    /// Whether something has changed since the hosts file was written.
    awaits_write: bool,
}

/// How the host's programs come to ask.
#[derive(Debug)]
enum Way {
    Resolved(Resolved),
    /// The process that keeps the file, and whether it has.
    Hosts(Option<Box<Child>>, Written),
}

/// Whether the hosts file has our names.
#[derive(Debug)]
enum Written {
    NotYet,
    Yes,
    Failed(String),
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum News {
    Answering(io::Result<Report>),
    Keeping(io::Result<Report>),
    Owner(String, Owner),
    Told,
}

/// The names of agents on this host, in `overlay status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// What every name ends with: `lab.overlay.internal`.
    pub domain: String,
    /// How the host's programs find names: `resolved` or `hosts`.
    pub way: String,
    /// The addresses on which a DNS server answers, on port 53.
    pub servers: Vec<IpAddr>,
    /// How many agents have a name here.
    pub agents: usize,
    /// Names that two agents have, so that neither is found by it.
    pub ambiguous: Vec<String>,
    /// Short names of agents that mean a different host here, as far as that is known.
    pub shadowed: Vec<String>,
    /// Questions by what became of them.
    pub questions: BTreeMap<String, u64>,
}

impl Names {
    /// Starts the process that keeps the hosts file, if it may be needed. It must be called before the daemon gives up what
    /// that process needs.
    pub(crate) fn keeper(dns: Dns) -> Option<Child> {
        if !matches!(dns, Dns::Auto | Dns::Hosts) {
            return None;
        }
        Child::start(Role::Hosts, &Known::default())
            .inspect_err(|error| tracing::warn!(%error, "the process that writes {HOSTS} cannot be started"))
            .ok()
    }

    /// Begins to name agents on the interface of this index. `None`: the config does not want names.
    pub(crate) async fn start(dns: Dns, keeper: Option<Child>, (interface, index): (&str, u32)) -> Option<Self> {
        let by_resolved = match dns {
            Dns::Off => return None,
            Dns::Resolved => true,
            Dns::Hosts => false,
            Dns::Auto => asks_resolved() && resolved::is_there(interface).await,
        };
        let way = if by_resolved { Way::Resolved(Resolved::start()) } else { Way::hosts(keeper) };
        Some(Self {
            index,
            known: Known::default(),
            bound: Bound::default(),
            answering: Answering::new(),
            way,
            shadows: Shadows::default(),
            ambiguous: Vec::new(),
            shadowed: BTreeSet::new(),
            unknown: BTreeSet::new(),
            awaits_write: false,
        })
    }

    /// Names this agent and these others from now on, and nobody else.
    pub(crate) fn set(&mut self, origin: Origin, agents: Vec<Agent>) {
        let (agents, ambiguous) = by_name(agents, &origin.me.name);
        self.ambiguous = ambiguous;
        for names in [&mut self.shadowed, &mut self.unknown] {
            names.retain(|name| agents.contains_key(name) || *name == origin.me.name);
        }
        let is_new = self.known.origin.as_ref() != Some(&origin);
        let mut before = std::mem::replace(&mut self.known.agents, agents);
        if is_new {
            let link = Link {
                interface: origin.interface.clone(),
                index: self.index,
                servers: origin.me.addresses.clone(),
                search: format!("{SHORT}.{}", origin.domain),
                routed: routed(&origin),
            };
            if let Way::Resolved(resolved) = &self.way {
                resolved.set(link);
            }
            let is_other = |known: &Origin| known.domain != origin.domain;
            if self.known.origin.as_ref().is_some_and(is_other) {
                // The processes forget everybody.
                before.clear();
            }
            self.known.origin = Some(origin);
            children(&mut self.answering, &mut self.way).for_each(Child::on_origin);
        }
        let names = before.keys().chain(self.known.agents.keys());
        let changed: Vec<_> = names.filter(|name| before.get(*name) != self.known.agents.get(*name)).cloned().collect();
        for name in &changed {
            children(&mut self.answering, &mut self.way).for_each(|child| child.on_agent(name));
        }
        if is_new {
            self.open();
        }
        self.awaits_write |= is_new || !changed.is_empty();
        self.ask_short_names(if is_new { self.all_names() } else { changed });
    }

    /// Waits until the programs of this host can find names, but not for long.
    pub(crate) async fn settle(&mut self) {
        let until = Instant::now() + SETTLING;
        while !self.is_settled() {
            let Ok(news) = timeout_at(until, self.next()).await else { return };
            self.on_news(news);
        }
    }

    fn is_settled(&self) -> bool {
        match &self.way {
            Way::Resolved(resolved) => resolved.standing() != Standing::Trying,
            Way::Hosts(keeper, written) => {
                keeper.is_none() || !self.awaits_write && !matches!(written, Written::NotYet)
            }
        }
    }

    /// Whether names are written to the hosts file.
    pub(crate) fn keeps_hosts(&self) -> bool {
        matches!(self.way, Way::Hosts(Some(_), _))
    }

    /// Takes the names back. Returns whether the hosts file is as it was.
    pub(crate) async fn end(self) -> bool {
        match self.way {
            Way::Resolved(_) => true,
            Way::Hosts(Some(keeper), _) => keeper.end().await,
            Way::Hosts(None, _) => false,
        }
    }

    /// Looks these names up in the search list, which the hosts file needs before they are written. With systemd-resolved, that
    /// is done on demand.
    fn ask_short_names(&mut self, names: Vec<String>) {
        if self.keeps_hosts() {
            names.iter().for_each(|name| self.shadows.ask(name));
        }
    }

    /// The names of all agents, and our own.
    fn all_names(&self) -> Vec<String> {
        let own = self.known.origin.iter().map(|origin| &origin.me.name);
        self.known.agents.keys().chain(own).cloned().collect()
    }

    /// Opens the sockets that are not open yet.
    fn open(&mut self) {
        let Some(origin) = &self.known.origin else { return };
        for address in self.bound.follow(&origin.me.addresses) {
            if let Some(child) = self.answering.child() {
                child.on_bound(address);
            }
        }
    }

    /// Whether an agent here has this name.
    fn is_known(&self, name: &str) -> bool {
        self.known.agents.contains_key(name) || self.known.origin.as_ref().is_some_and(|origin| origin.me.name == name)
    }

    /// Looks for what nothing reports: a port that was taken is free, or the host completes names by different domains.
    pub(crate) fn on_look(&mut self) {
        if self.bound.failed().next().is_some() {
            self.open();
        }
        if self.shadows.has_new_list() {
            self.ask_short_names(self.all_names());
        }
        self.ask_short_names(self.unknown.iter().cloned().collect());
    }

    /// Waits for news. Can be cancelled.
    pub(crate) async fn next(&mut self) -> News {
        let Self { known, bound, answering, way, shadows, .. } = self;
        tokio::select! {
            report = answering.next(known, bound) => News::Answering(report),
            news = way.next(known, bound) => news,
            (name, owner) = shadows.next() => News::Owner(name, owner),
        }
    }

    /// Handles news.
    pub(crate) fn on_news(&mut self, news: News) {
        match news {
            // The process may be somebody else's by now. It learns of no other names.
            News::Answering(Ok(Report::Short(name))) if self.is_known(&name) => self.shadows.ask(&name),
            News::Answering(Ok(Report::Short(_))) => {}
            News::Answering(Ok(Report::Counts(counts))) => self.answering.on_counts(counts),
            News::Answering(Err(error)) => self.answering.on_ended(&error),
            News::Keeping(Ok(Report::Hosts(failure))) => {
                self.awaits_write = !self.shadows.is_idle();
                if let Way::Hosts(_, last) = &mut self.way {
                    *last = failure.map_or(Written::Yes, Written::Failed);
                }
            }
            News::Keeping(Err(error)) => {
                tracing::warn!(%error, "the process that writes {HOSTS} has ended");
                self.way = Way::Hosts(None, Written::Failed("the process that writes it has ended".to_owned()));
            }
            News::Owner(name, owner) => {
                self.shadows.on_answer(&name);
                if !self.is_known(&name) {
                    return;
                }
                _ = if owner == Owner::Free { self.shadowed.remove(&name) } else { self.shadowed.insert(name.clone()) };
                self.unknown.remove(&name);
                if owner == Owner::Unknown {
                    self.unknown.insert(name.clone());
                }
                children(&mut self.answering, &mut self.way).for_each(|child| child.on_owner(&name, owner));
                self.awaits_write = true;
            }
            News::Answering(Ok(Report::Hosts(_))) | News::Keeping(Ok(_)) | News::Told => {}
        }
    }

    /// What does not work, and what to do about it.
    pub(crate) fn warnings(&self) -> Vec<StatusWarning> {
        let mut warnings = Vec::new();
        if self.answering.is_down() {
            warnings.push(StatusWarning::new(
                PORT,
                "the DNS server does not run: its process has ended, and is started again",
                "the log says why; `overlay status` shows when it runs",
            ));
        }
        for (address, error) in self.bound.failed() {
            warnings.push(StatusWarning::new(
                PORT,
                format!("the DNS server does not run on {address}: port 53 cannot be bound: {error}"),
                "find the program that has it, and bind it to other addresses: sudo ss -lntup 'sport = 53'",
            ));
        }
        match &self.way {
            Way::Resolved(resolved) => {
                if let Standing::Failed(error) = resolved.standing() {
                    warnings.push(StatusWarning::new(
                        RESOLVED_WARNING,
                        format!("systemd-resolved did not accept the DNS settings of this interface: {error}"),
                        "systemctl status systemd-resolved; if access was denied, install polkit and run `make install`: see docs/dns.md",
                    ));
                }
            }
            Way::Hosts(_, Written::Failed(failure)) => warnings.push(StatusWarning::new(
                HOSTS_WARNING,
                format!("names of agents are not in {HOSTS}: {failure}"),
                "under systemd: sudo apt install systemd-resolved polkitd, and restart the service; else see docs/dns.md",
            )),
            Way::Hosts(..) => {}
        }
        for name in &self.ambiguous {
            warnings.push(StatusWarning::new(
                AMBIGUOUS,
                match self.known.origin.as_ref().is_some_and(|origin| origin.me.name == *name) {
                    true => format!("a trusted agent has this agent's own name, `{name}`: the name means this agent"),
                    false => format!("several trusted agents are called `{name}`, so the name does not resolve"),
                },
                "overlay agents shows their keys: use their addresses, or sudo overlay untrust NAME@KEYPREFIX",
            ));
        }
        warnings
    }

    /// What `overlay status` shows.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let origin = self.known.origin.as_ref()?;
        Some(Shown {
            domain: origin.domain.clone(),
            way: if matches!(self.way, Way::Resolved(_)) { "resolved" } else { "hosts" }.to_owned(),
            servers: self.bound.addresses().collect(),
            agents: self.known.agents.len(),
            ambiguous: self.ambiguous.clone(),
            shadowed: self.shadowed.iter().cloned().collect(),
            questions: self.answering.total().named().map(|(name, count)| (name.to_owned(), count)).into(),
        })
    }
}

impl Way {
    fn hosts(keeper: Option<Child>) -> Self {
        match keeper {
            Some(keeper) => Self::Hosts(Some(Box::new(keeper)), Written::NotYet),
            None => Self::Hosts(None, Written::Failed("the process that writes it cannot be started".to_owned())),
        }
    }

    async fn next(&mut self, known: &Known, bound: &Bound) -> News {
        match self {
            Self::Resolved(resolved) => {
                resolved.changed().await;
                News::Told
            }
            Self::Hosts(Some(keeper), _) => News::Keeping(keeper.next(known, bound).await),
            Self::Hosts(None, _) => std::future::pending().await,
        }
    }
}

/// The processes that run.
fn children<'a>(answering: &'a mut Answering, way: &'a mut Way) -> impl Iterator<Item = &'a mut Child> {
    let keeper = match way {
        Way::Hosts(keeper, _) => keeper.as_deref_mut(),
        Way::Resolved(_) => None,
    };
    answering.child().into_iter().chain(keeper)
}

/// The agents by name, and the names that several have. Our own name is ours.
fn by_name(agents: Vec<Agent>, own: &str) -> (BTreeMap<String, Agent>, Vec<String>) {
    let (mut named, mut ambiguous) = (BTreeMap::new(), Vec::new());
    for agent in agents {
        if agent.name == own || named.contains_key(&agent.name) {
            ambiguous.push(agent.name);
        } else {
            named.insert(agent.name.clone(), agent);
        }
    }
    ambiguous.sort_unstable();
    ambiguous.dedup();
    for name in &ambiguous {
        named.remove(name);
    }
    (named, ambiguous)
}

/// The domains that are asked on our interface alone.
fn routed(origin: &Origin) -> Vec<String> {
    let reverse = origin.pools.iter().flat_map(reverse::zones);
    let reverse = reverse.map(|zone| zone.to_ascii().trim_end_matches('.').to_owned());
    std::iter::once(origin.domain.clone()).chain(reverse).collect()
}

/// Whether this host's programs ask systemd-resolved.
fn asks_resolved() -> bool {
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    names_the_stub(&resolv_conf)
}

/// Whether the first name server is resolved's own.
fn names_the_stub(resolv_conf: &str) -> bool {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().map(str::to_owned)).flatten()
    };
    let first = resolv_conf.lines().find_map(server);
    first.is_some_and(|server| matches!(server.as_str(), "127.0.0.53" | "127.0.0.54"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, host: u8) -> Agent {
        Agent {
            name: name.to_owned(),
            addresses: vec![[10, 99, 0, host].into()],
            tags: Vec::new(),
            services: Vec::new(),
        }
    }

    #[test]
    fn a_name_that_two_agents_have_is_nobodys_and_our_own_is_ours() {
        let (named, ambiguous) = by_name(
            vec![agent("bob", 1), agent("carol", 2), agent("bob", 3), agent("bob", 4), agent("alice", 5)],
            "alice",
        );
        assert_eq!(named.keys().collect::<Vec<_>>(), ["carol"]);
        assert_eq!(ambiguous, ["alice", "bob"]);
    }

    #[test]
    fn resolved_is_asked_where_resolv_conf_says_so() {
        for (text, expected) in [
            ("# managed\nnameserver 127.0.0.53\noptions edns0\n", true),
            ("nameserver 127.0.0.54\n", true),
            ("nameserver 192.0.2.1\nnameserver 127.0.0.53\n", false),
            ("#nameserver 127.0.0.53\n", false),
            ("", false),
        ] {
            assert_eq!(names_the_stub(text), expected, "{text:?}");
        }
    }
}
