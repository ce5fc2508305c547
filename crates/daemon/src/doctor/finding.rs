//! What the doctor finds: a stable code, what is wrong, why, and what to do about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// What a finding is about, in the order in which findings are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// What this user and the daemon may do.
    Permissions,
    /// The config, the state folder and the daemon itself.
    Daemon,
    /// Whether the rendezvous answers, and takes this agent.
    Rendezvous,
    /// Whether the clocks agree.
    Clock,
    /// Whether the virtual IPs can be had on this host.
    Addresses,
    /// Whether the programs of this host find agents by name.
    Names,
    /// Whether both sides agree on a tunnel, and the peers answer.
    Trust,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Permissions, Self::Daemon, Self::Rendezvous, Self::Clock, Self::Addresses, Self::Names, Self::Trust];

    /// The name in JSON and on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Permissions => "permissions",
            Self::Rendezvous => "rendezvous",
            Self::Clock => "clock",
            Self::Addresses => "addresses",
            Self::Names => "names",
            Self::Trust => "trust",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The agent does not work, or the peer that was asked about has no tunnel.
    Error,
    /// The agent works, but not with everybody, or not with everything.
    Warning,
}

impl Severity {
    /// The name in JSON and on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($variant:ident, $name:literal, $check:ident, $meaning:literal;)*) => {
        /// What is wrong, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum Code {
            $(#[doc = $meaning] #[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in JSON and on the screen.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it is about.
            pub const fn check(self) -> Check {
                match self { $(Self::$variant => Check::$check,)* }
            }

            /// A sentence that says what it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    MayNotLook, "may_not_look", Permissions, "This user may not ask the daemon, or may not read its files.";
    NoNetAdmin, "no_net_admin", Permissions, "This process may not create a network interface.";
    NoTun, "no_tun", Permissions, "`/dev/net/tun` is missing.";
    StatePermissions, "state_permissions", Permissions, "The owner or the mode of the state folder, or of a file in it, is wrong.";
    NoDaemon, "no_daemon", Daemon, "The daemon does not run.";
    DaemonSilent, "daemon_silent", Daemon, "The daemon runs, but does not answer.";
    Config, "config", Daemon, "The config is missing or wrong.";
    NoIdentity, "no_identity", Daemon, "The state folder has no identity.";
    StateDamaged, "state_damaged", Daemon, "A file of the state folder is missing or damaged.";
    ForeignState, "foreign_state", Daemon, "The state folder was used on a different machine.";
    KeyClone, "key_clone", Daemon, "A different host runs with the identity of this agent.";
    CannotStart, "cannot_start", Daemon, "Something on this host is in the way of a start: a name, a port, an address or a route is taken.";
    DaemonWarning, "daemon_warning", Daemon, "`overlay status` has a warning for which the doctor has no code of its own.";
    RendezvousName, "rendezvous_name", Rendezvous, "The name of the rendezvous has no address.";
    RendezvousUnreachable, "rendezvous_unreachable", Rendezvous, "Nobody answers where the rendezvous should be.";
    RendezvousSilent, "rendezvous_silent", Rendezvous, "Something accepts the connection, but does not speak.";
    NotARendezvous, "not_a_rendezvous", Rendezvous, "What answers is not a rendezvous.";
    WrongRendezvousKey, "wrong_rendezvous_key", Rendezvous, "The rendezvous has a different key than the config says.";
    WrongNetworkKey, "wrong_network_key", Rendezvous, "The rendezvous serves a different network than the config says.";
    RendezvousIntercepted, "rendezvous_intercepted", Rendezvous, "Somebody between this host and the rendezvous opens the connection.";
    RendezvousVersion, "rendezvous_version", Rendezvous, "The rendezvous speaks no version of the protocol that this program speaks.";
    RendezvousRefuses, "rendezvous_refuses", Rendezvous, "The rendezvous refuses the connection.";
    NotConnected, "not_connected", Rendezvous, "The rendezvous answers, but the daemon has no connection.";
    RendezvousStalls, "rendezvous_stalls", Rendezvous, "The rendezvous is connected, but keeps nothing: calls have waited for 10 s and longer.";
    NameTaken, "name_taken", Rendezvous, "A different agent has the name of this one.";
    NotAMember, "not_a_member", Rendezvous, "The network is closed, and this agent has no token that counts.";
    RecordRefused, "record_refused", Rendezvous, "The rendezvous refuses the record of this agent for a different reason.";
    Clock, "clock", Clock, "The clock of this host is wrong.";
    RendezvousClock, "rendezvous_clock", Clock, "The clock of the rendezvous is wrong.";
    ClockMark, "clock_mark", Clock, "This agent has reached a later time than the clock shows, and grants end by that one.";
    Ipv6Off, "ipv6_off", Addresses, "IPv6 is switched off on this host, so that this agent has IPv4 only.";
    PoolTaken, "pool_taken", Addresses, "An address, a route or a name of this host lies inside the network's prefix, so that this agent goes on without that family.";
    NoFamily, "no_family", Addresses, "This agent can have neither IPv4 nor IPv6.";
    NamesPort, "names_port", Names, "A different program has port 53 of a virtual IP, so nobody answers names there.";
    NamesNotTold, "names_not_told", Names, "systemd-resolved does not know who answers the names of agents.";
    NamesNotWritten, "names_not_written", Names, "The names of agents are not in `/etc/hosts`.";
    NamesNotFound, "names_not_found", Names, "A program that looks up the name of this agent does not find it.";
    NameAmbiguous, "name_ambiguous", Names, "Two trusted agents have the same name, so neither is found by it.";
    Asked, "asked", Trust, "The peer was asked for trust, and has not answered.";
    Pending, "pending", Trust, "The peer has asked for trust, and nobody has decided here: one side has agreed.";
    Beforehand, "beforehand", Trust, "The peer is trusted here, and has not asked yet: one side has agreed.";
    OneSided, "one_sided", Trust, "One side has granted, and the other one has not.";
    GrantExpired, "grant_expired", Trust, "A grant has ended.";
    Revoked, "revoked", Trust, "A side took trust back, or refused a request.";
    NoSharedKey, "no_shared_key", Trust, "Both sides have granted, but share no preshared key.";
    UnknownPeer, "unknown_peer", Trust, "This agent knows nothing of the peer that was asked about.";
    PeerUnreachable, "peer_unreachable", Trust, "The peer is trusted, but does not answer.";
    PeerWithoutEndpoint, "peer_without_endpoint", Trust, "The peer is trusted, but it is not known where it is.";
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What is wrong, for programs.
    pub code: Code,
    /// What it is about.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub what: String,
    /// Why, in one line.
    pub cause: String,
    /// What to do about it, in one line: a command or a line of config where there is one.
    pub fix: String,
    /// The key of the peer that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

impl Finding {
    pub(super) fn new(
        code: Code,
        severity: Severity,
        what: impl Into<String>,
        cause: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (what, cause, fix) = (what.into(), cause.into(), fix.into());
        Self { code, check: code.check(), severity, what, cause, fix, peer: None }
    }

    /// Takes over the words of a failure. The code's own sentence stands in for a cause that is missing.
    pub(super) fn of(code: Code, severity: Severity, failure: &Failure, fix: &str) -> Self {
        let cause = failure.cause.clone().unwrap_or_else(|| as_a_cause(code.meaning()));
        Self::new(code, severity, failure.error.clone(), cause, failure.hint.clone().unwrap_or_else(|| fix.to_owned()))
    }

    pub(super) fn about(self, peer: &str) -> Self {
        Self { peer: Some(peer.to_owned()), ..self }
    }
}

/// A sentence in the form of a cause: without its capital and its full stop.
fn as_a_cause(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
