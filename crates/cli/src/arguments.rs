//! The command line: verbs, arguments, and the text of `--help`.

pub(crate) mod agent;
pub(crate) mod network;
pub(crate) mod probe;
pub(crate) mod relay;
pub(crate) mod rendezvous;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use ipnet::IpNet;
use overlay_daemon::Failure;
use overlay_daemon::agent::STATE_DIR;
use overlay_daemon::client::RUNTIME_DIR;
use overlay_daemon::config::parse_address;
use overlay_daemon::failure::ExitKind;
use overlay_wire::signed::{self, check_name};

/// The network for AI agents: one stable virtual IP each, over WireGuard.
#[derive(Debug, Parser)]
#[command(name = "overlay", version, subcommand_required = true, arg_required_else_help = false)]
#[command(max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options that every verb takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Print JSON with a `schema` field on stdout, errors included
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The folder where daemons keep their sockets, locks and logs
    #[arg(long, global = true, value_name = "DIR", default_value = RUNTIME_DIR)]
    pub(crate) runtime_dir: PathBuf,

    /// The folder where agents keep their identity and whom they trust
    #[arg(long, global = true, value_name = "DIR", default_value = STATE_DIR)]
    pub(crate) state_dir: PathBuf,

    /// Log decisions; given twice, follow packets
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make the identity of an agent, and its config
    ///
    /// Makes new keys in the state folder and writes a config. Prints the identity and the IPv6 address that follows from
    /// it. The IPv4 address is given by the rendezvous at the first `overlay up`. Nothing that exists is replaced.
    Init(Init),
    /// Bring an interface up and carry its traffic until Ctrl-C
    Up(Up),
    /// Take an interface down, and clean up after a killed daemon
    Down(Daemon),
    /// Make an interface that `wg` and `wg-quick` drive, in place of wireguard-go
    ///
    /// Creates a TUN interface and the socket that `wg` talks to, and returns when both exist. The interface is down and
    /// has no key, peers, addresses or routes. The background process ends when the interface is deleted, when the socket
    /// is removed, or on SIGTERM. Set `WG_QUICK_USERSPACE_IMPLEMENTATION=overlay-wg` for wg-quick to use it.
    ///
    /// `overlay-wg IFACE` does the same. The environment variable LOG_LEVEL is `verbose`, `error` or `silent`. When it
    /// is set, the log of the background process goes to stderr.
    #[command(version)]
    Wg(Wg),
    /// Apply a changed config without touching peers that did not change
    Reload(Daemon),
    /// Show an interface and its peers
    Status(Status),
    /// Say why an agent does not work, and what to do about it
    ///
    /// Looks at the daemon, the rendezvous, the clocks, the addresses, the trust and the rights, also if the daemon does not
    /// run. Changes nothing, and ends within 10 seconds. The exit code is 0, or 10 if it finds an error.
    Doctor(Doctor),
    /// Measure the round trip to a peer
    Ping(probe::Ping),
    /// Show how an agent is reached: directly or through a relay, and why
    ///
    /// Shows the path in use, every pair of addresses that was tried, and why packets do not go directly.
    Path(probe::Path),
    /// Show the longest packet to each peer, how it was found and what limits it
    Mtu(probe::Mtu),
    /// Say whether UDP works here, from which addresses this host is seen, and what its NAT does
    ///
    /// Asks the STUN of each rendezvous of a config, or the servers that are given. How the NAT filters can be seen only at a
    /// server with two addresses (RFC 5780). Ends with 10 if UDP does not work.
    Netcheck(probe::Netcheck),
    /// Ask an agent for trust
    ///
    /// A tunnel exists once both sides have agreed: this agent by this verb, the peer by `overlay approve`. The key that
    /// is printed is the one that was asked. Compare it with what `overlay agents` shows there.
    Handshake(agent::Handshake),
    /// Show the requests that wait for a decision
    Pending(agent::On),
    /// Approve a request, or change what a trusted agent may open
    Approve(agent::Approve),
    /// Refuse a request
    Reject(agent::Peer),
    /// Take trust back: the tunnel and what runs in it end at once
    Untrust(agent::Peer),
    /// Trust an agent before it asks, or compare keys with it
    ///
    /// The agent is named by its whole key. When it asks for trust, it gets what is granted here without a further
    /// decision. If it has asked already, or is trusted, that is decided at once, as by `overlay approve`.
    Trust(agent::Trust),
    /// Show this agent, its peers and what each may open; or search the directory
    ///
    /// With any of `--all`, `--tag`, `--service` and `--search`, shows the agents of the network that match all of them and that
    /// this one may see, page by page.
    Agents(agent::Agents),
    /// Say which rule of which side decides whether something may be opened
    ///
    /// Prints the verdict, the side that decides, its rule, and what to type in order to change it. The exit code is 0 if
    /// this side allows it, and 7 if it is refused.
    Explain(agent::Explain),
    /// Show what a peer may open here, and what may be opened there
    Rules(agent::Peer),
    /// Show the decisions about trust, and who made them
    Decisions(agent::Decisions),
    /// Print what happens to trust as it happens, until Ctrl-C
    ///
    /// Begins with the requests that wait for a decision. With `--json`, each line is an object, for programs that decide.
    Events(agent::On),
    /// Look for agents at the rendezvous
    Find(agent::Find),
    /// Say which agent has an address, a name or a key
    Whois(agent::Whois),
    /// Print the virtual IP of an agent, for scripts
    ///
    /// Prints the IPv4 address if the agent has one, and else the IPv6 address: `ssh "$(overlay ip bob)"`.
    Ip(agent::Ip),
    /// Give a running agent a token of its closed network
    ///
    /// Reads the token that the network's operator has handed out, and registers the agent with it. The token itself is not
    /// kept. A new agent takes its token with `overlay init --token`.
    Join(agent::Join),
    /// Make keys, or replace the tunnel key of an agent
    #[command(subcommand, arg_required_else_help = false, disable_help_subcommand = true)]
    Key(Key),
    /// Write, check or describe a config
    #[command(subcommand, arg_required_else_help = false, disable_help_subcommand = true)]
    Config(Config),
    /// Turn a wg-quick config into an overlay config
    Import(Import),
    /// Make or change a network whose key is kept away from its rendezvous
    #[command(subcommand, arg_required_else_help = false, disable_help_subcommand = true)]
    Network(network::Network),
    /// Run a rendezvous, where agents find each other
    #[command(subcommand, arg_required_else_help = false, disable_help_subcommand = true)]
    Rendezvous(rendezvous::Rendezvous),
    /// Run a relay, for agents that cannot reach each other directly
    #[command(subcommand, arg_required_else_help = false, disable_help_subcommand = true)]
    Relay(relay::Relay),
    /// Serve names, as a process of a daemon
    #[command(subcommand, hide = true, disable_help_subcommand = true)]
    Names(Names),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write all of them into a folder
    Man(Man),
    /// Print the version
    Version,
}

/// What a process of a daemon does.
#[derive(Debug, Subcommand)]
pub(crate) enum Names {
    /// Answer DNS questions
    Answer,
    /// Keep the hosts file
    Hosts,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the agent in its network: 1 to 32 of a-z, 0-9 and hyphens
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Where agents meet: the line that `overlay rendezvous serve` prints, https://HOST:PORT#RVKEY.NETKEY
    #[arg(long, value_name = "URL")]
    pub(crate) rendezvous: String,

    /// Write the config to a new FILE
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Name of the network; by default, the rendezvous is asked
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,

    /// What the agent says about itself, as gpu; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,

    /// What the agent offers, as tcp/8000=http; may be repeated
    #[arg(long = "service", value_name = "PROTO/PORT=NAME")]
    pub(crate) services: Vec<String>,

    /// The agents that may find this one
    #[arg(long, value_enum, default_value = "members")]
    pub(crate) visibility: Visibility,

    /// Join a closed network with the token in FILE, which its operator has handed out; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) token: Option<PathBuf>,

    /// Use the identity in FILE, which `overlay key gen --identity` has made, instead of a new one
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

/// The agents that may find an agent.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Visibility {
    /// Those who know its key
    Hidden,
    /// Every agent of the network
    Members,
    /// Everybody
    Public,
}

impl From<Visibility> for signed::Visibility {
    fn from(visibility: Visibility) -> Self {
        match visibility {
            Visibility::Hidden => Self::Hidden,
            Visibility::Members => Self::Members,
            Visibility::Public => Self::Public,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// A config file, or the NAME of /etc/overlay/NAME.toml; by default, the only config in /etc/overlay
    #[arg(value_name = "CONFIG|NAME")]
    pub(crate) config: Option<String>,

    /// Return when the interface is ready, and continue in the background
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Run an agent whose state was used on a different machine and was moved here for good
    #[arg(long)]
    pub(crate) adopt: bool,

    /// This process is the background half of `--detach`
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) detached_child: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Wg {
    /// Name of the interface to make
    #[arg(value_name = "IFACE")]
    pub(crate) interface: String,

    /// Stay in the foreground, and log to stderr
    #[arg(short, long)]
    pub(crate) foreground: bool,

    /// This process is the background half
    #[arg(long, hide = true, conflicts_with = "foreground")]
    pub(crate) detached_child: bool,
}

/// The daemon that a verb acts on.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Name of the interface, or its config file; by default, the only one that is running
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) daemon: Daemon,

    /// Repeat every SECONDS; without a number, every second
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    pub(crate) watch: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// A config file, or the NAME of an interface or of /etc/overlay/NAME.toml; by default, the only one
    #[arg(value_name = "CONFIG|NAME")]
    pub(crate) config: Option<String>,

    /// Say why there is no tunnel to this peer, and leave the others out
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a private key
    Gen {
        /// Make the identity of an agent, for `overlay init --identity`, instead of a WireGuard key
        #[arg(long)]
        identity: bool,

        /// Write the key to a new FILE with mode 0600, and print the public key instead
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read a private key from stdin and print its public key
    Pub {
        /// Read the identity of an agent instead of a WireGuard key
        #[arg(long)]
        identity: bool,
    },
    /// Make a preshared key
    Psk {
        /// Write the key to a new FILE with mode 0600
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Replace the tunnel key of a running agent
    ///
    /// The identity, the addresses and the trust stay, and so do connections. The former key is still answered until every
    /// trusted peer has used the new one, for 30 days at most. The new key is on disk when the command returns.
    Rotate {
        /// Answer the former key no more, because others know it: every session ends at once
        ///
        /// A peer has no tunnel until it learns the new key from the rendezvous.
        #[arg(long)]
        compromised: bool,

        #[command(flatten)]
        on: agent::On,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print a commented config
    Init {
        /// Write the config to a new FILE, and a private key beside it unless one exists
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,

        /// A virtual IP of this host with its prefix, instead of 10.77.0.1/24; may be repeated
        #[arg(long = "address", value_name = "CIDR", value_parser = address)]
        addresses: Vec<IpNet>,
    },
    /// Check a config, and say what is wrong with it
    Check {
        /// A config file, or the NAME of /etc/overlay/NAME.toml
        #[arg(value_name = "CONFIG|NAME")]
        config: Option<String>,
    },
    /// Print the JSON schema of a config
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A wg-quick config; its file name becomes the name of the interface
    #[arg(value_name = "WG.conf")]
    pub(crate) file: PathBuf,

    /// The folder for the config and the key files
    #[arg(short, long, value_name = "DIR", default_value = overlay_daemon::config::CONFIG_FOLDER)]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell to write the script for
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write one page for each verb into DIR
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// The program name that implies the verb `wg`. It is a link to this program.
const WG_PROGRAM: &str = "overlay-wg";

/// The command line with its verb made explicit: under the name `overlay-wg` the verb is `wg`.
pub(crate) fn by_program_name(mut line: Vec<OsString>) -> Vec<OsString> {
    if line.first().and_then(|program| Path::new(program).file_name()).is_some_and(|name| name == WG_PROGRAM) {
        line.splice(..1, ["overlay".into(), "wg".into()]);
    }
    line
}

/// The command line as a `clap` command, for completions and manual pages.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Parses a number of seconds, possibly a fraction, from one millisecond to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds between 0.001 and 86400".to_owned()),
    }
}

/// Parses a virtual IP of this host.
fn address(text: &str) -> Result<IpNet, String> {
    parse_address(text).map_err(|problem| match problem.hint {
        Some(hint) => format!("{}; {hint}", problem.message),
        None => problem.message,
    })
}

/// Checks the name of a network.
fn network_name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|reason| reason.to_string())
}

/// Turns clap's error into the three lines of a [`Failure`].
pub(crate) fn failure(error: &clap::Error, line: &[OsString]) -> Failure {
    let (typed, command) = as_far_as_known(line);
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // The first paragraph is the error itself. The tip and the usage follow.
    let what: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let is_top = typed == command.get_name();
    let what = match error.kind() {
        ErrorKind::MissingSubcommand if is_top => "no verb was given".to_owned(),
        ErrorKind::MissingSubcommand => format!("no verb was given after `{typed}`"),
        _ => what.join(" ").replace('\'', "`"),
    };
    let is_verb_missing = error.kind() != ErrorKind::MissingRequiredArgument;
    let verbs = command.get_subcommands().filter(|_| is_verb_missing);
    let verbs: Vec<String> = verbs.map(|verb| format!("{typed} {}", verb.get_name())).collect();
    let hint = match (suggestion(error), verbs.as_slice()) {
        (Some(word), _) => format!("did you mean `{word}`?"),
        (None, [only]) if !is_top => only.clone(),
        (None, [others @ .., last]) if !is_top => format!("{} or {last}", others.join(", ")),
        (None, _) => format!("{typed} --help"),
    };
    Failure::new(ExitKind::Usage, what).with_hint(hint)
}

/// The verb as far as it was recognised, for example `overlay key gen`, and its description.
fn as_far_as_known(line: &[OsString]) -> (String, clap::Command) {
    let mut command = Arguments::command();
    let mut typed = command.get_name().to_owned();
    for word in line.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(verb) = command.find_subcommand(word).cloned() {
            typed = format!("{typed} {}", verb.get_name());
            command = verb;
        }
    }
    (typed, command)
}

/// The word that was most likely meant. The parser finds it similar, and it differs by a typing error or is not complete.
fn suggestion(error: &clap::Error) -> Option<String> {
    let pairs = [
        (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ];
    pairs.into_iter().find_map(|(invalid, suggested)| {
        let Some(ContextValue::String(typed)) = error.get(invalid) else { return None };
        let words = match error.get(suggested)? {
            ContextValue::String(word) => vec![word.clone()],
            ContextValue::Strings(words) => words.clone(),
            _ => Vec::new(),
        };
        words.into_iter().find(|word| {
            word.starts_with(typed) || strsim::damerau_levenshtein(word, typed) <= (word.len() / 4).clamp(1, 3)
        })
    })
}

#[cfg(test)]
mod tests;
