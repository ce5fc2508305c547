//! What `overlay init` does: a new identity with its state on disk, and a config that names it.
//!
//! Everything that can be refused is refused before anything is written. The state is written before the config, because a
//! config can be written again and an identity cannot.

use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay_rendezvous::channel::Pinned;
use overlay_rendezvous::protocol::{Answer, Call, FromServer, Reply, Verb};
use overlay_wire::signed::{JoinToken, Network, PublicKey, SecretKey, Signed, Visibility, ipv6_address};
use zeroize::Zeroizing;

use super::connection::{CONNECT_PATIENCE, ConnectError, Target, connect};
use super::state::{Beginning, State};
use super::time::unix_now;
use super::token;
use crate::config::{
    self, AgentTemplate, Config, Problem, RendezvousUrl, agent_template, argument_for, check_agent_name,
    parse_rendezvous, parse_service, parse_tag,
};
use crate::failure::{ExitKind, Failure};
use crate::files;
use crate::keys::decode_identity;
use crate::permission::denied;

/// The arguments of `overlay init`, as they were typed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The agent's name.
    pub name: String,
    /// `https://HOST:PORT#RVKEY.NETKEY`.
    pub rendezvous: String,
    /// The network's name. Without it, the rendezvous is asked.
    pub network: Option<String>,
    /// What the agent says about itself.
    pub tags: Vec<String>,
    /// What the agent offers, as `tcp/443=https`.
    pub services: Vec<String>,
    /// The agents that may find this one.
    pub visibility: Visibility,
    /// The file with the secret key of an identity that was made before, as `overlay key gen --identity` writes it.
    pub identity: Option<PathBuf>,
    /// The file of a join token, which a closed network asks for. `-` is stdin.
    pub token: Option<PathBuf>,
    /// The new config file.
    pub config: PathBuf,
    /// The folder with the state of all networks.
    pub state_dir: PathBuf,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The name of the interface that the config describes.
    pub interface: String,
    /// The network's name.
    pub network: String,
    /// The new identity.
    pub identity: PublicKey,
    /// The IPv6 address that follows from it.
    pub ipv6: Ipv6Addr,
    /// The folder with the agent's state.
    pub state: PathBuf,
    /// The rendezvous, with its keys.
    pub rendezvous: RendezvousUrl,
    /// Whether the rendezvous answered.
    pub is_in_contact: bool,
    /// Whether the network is closed, and neither a join token nor an identity was given.
    pub needs_token: bool,
}

/// What a rendezvous says of its network.
#[derive(Clone, Debug)]
struct Contact {
    /// The network's name, signed by the network.
    network: String,
    /// Whether it takes nobody without a join token.
    is_closed: bool,
}

/// Makes an identity, its state, and a config that names it.
///
/// # Errors
/// [`ExitKind::Usage`] for a bad argument, [`ExitKind::Conflict`] if the config or the state exists,
/// [`ExitKind::Timeout`] if the network's name is not given and the rendezvous does not tell it.
pub async fn init(wanted: &Wanted) -> Result<Made, Failure> {
    let rendezvous = judge(wanted)?;
    let token = judge_token(wanted, &rendezvous.network)?;
    let identity = wanted.identity.as_deref().map(read_identity).transpose()?;
    refuse_existing(&wanted.config)?;
    let contact = contact(&rendezvous).await;
    let is_in_contact = contact.is_ok();
    // An identity that was made before may be a member already.
    let is_new = token.is_none() && identity.is_none();
    let needs_token = is_new && contact.as_ref().is_ok_and(|contact| contact.is_closed);
    let network = network_name(contact, wanted)?;

    let ipv6_of = |identity| ipv6_address(&rendezvous.network, identity);
    let mut template = AgentTemplate {
        interface: config::interface_name_of(&wanted.config).unwrap_or_else(|| "overlay0".to_owned()),
        name: wanted.name.clone(),
        network: network.clone(),
        rendezvous: rendezvous.to_string(),
        tags: wanted.tags.clone(),
        services: wanted.services.clone(),
        visibility: wanted.visibility,
        // They stand in a comment, so the config can be checked before they exist.
        identity: rendezvous.network,
        ipv6: Ipv6Addr::UNSPECIFIED,
    };
    if let Err(error) = Config::parse(&agent_template(&template), &wanted.config) {
        return Err(error.problems().first().cloned().map_or_else(|| Failure::from(&error), usage));
    }

    let beginning = Beginning { identity, token: token.as_ref() };
    let state = State::create(&wanted.state_dir, &network, beginning)?;
    let identity = state.keys()?.identity.public();
    (template.identity, template.ipv6) = (identity, ipv6_of(&identity));
    files::write_new(&wanted.config, &agent_template(&template)).map_err(|error| {
        let failure = cannot_write(&wanted.config, &error);
        failure.with_hint(format!("remove the new identity before the next attempt: rm -r {}", state.path().display()))
    })?;
    Ok(Made {
        interface: template.interface,
        network,
        identity,
        ipv6: template.ipv6,
        state: state.path().to_owned(),
        rendezvous,
        is_in_contact,
        needs_token,
    })
}

/// Checks every argument by itself.
fn judge(wanted: &Wanted) -> Result<RendezvousUrl, Failure> {
    check_agent_name(&wanted.name, "an agent").map_err(usage)?;
    if let Some(network) = &wanted.network {
        check_agent_name(network, "a network").map_err(usage)?;
    }
    let rendezvous = parse_rendezvous(&wanted.rendezvous).map_err(usage)?;
    for tag in &wanted.tags {
        parse_tag(tag).map_err(usage)?;
    }
    for service in &wanted.services {
        parse_service(service).map_err(usage)?;
    }
    Ok(rendezvous)
}

/// Reads the join token, if there is one, and refuses one that cannot be used.
fn judge_token(wanted: &Wanted, network: &PublicKey) -> Result<Option<JoinToken>, Failure> {
    let Some(file) = &wanted.token else { return Ok(None) };
    let token = token::read(file)?;
    token::check(token.token(), network, &wanted.name, unix_now())?;
    Ok(Some(token))
}

/// Reads the secret key of an identity.
fn read_identity(file: &Path) -> Result<SecretKey, Failure> {
    let name = file.display();
    let text = files::read_key(file).map_err(|error| {
        let what = format!("cannot read the identity in `{name}`");
        match error.kind() {
            io::ErrorKind::NotFound => Failure::new(ExitKind::NotFound, what)
                .with_cause("there is no such file")
                .with_hint(format!("overlay key gen --identity -o {}", argument_for(file))),
            io::ErrorKind::PermissionDenied => {
                let denied = denied(file);
                Failure::new(ExitKind::Permission, what).with_cause(denied.cause).with_hint(denied.hint)
            }
            _ => Failure::new(ExitKind::Usage, what).with_cause(error),
        }
    })?;
    decode_identity(&text).map_err(|error| {
        Failure::new(ExitKind::Usage, format!("the identity in `{name}` {error}"))
            .with_hint("overlay key gen --identity makes one; identity.key in the state folder of an agent is one")
    })
}

fn usage(problem: Problem) -> Failure {
    let failure = Failure::new(ExitKind::Usage, problem.message);
    match problem.hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// Refuses a config that exists, or whose folder does not. A dangling link also occupies the name.
fn refuse_existing(config: &Path) -> Result<(), Failure> {
    if config.symlink_metadata().is_ok() {
        return Err(cannot_write(config, &io::ErrorKind::AlreadyExists.into()).with_hint("choose a different file"));
    }
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let failure = Failure::new(ExitKind::NotFound, format!("cannot write `{}`", config.display()));
        return Err(failure
            .with_cause(format!("there is no folder `{}`", folder.display()))
            .with_hint(format!("mkdir -p {}", folder.display())));
    }
    Ok(())
}

fn cannot_write(config: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot write `{}`", config.display());
    match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(ExitKind::Conflict, what).with_cause("it already exists"),
        io::ErrorKind::PermissionDenied => {
            let denied = denied(config);
            Failure::new(ExitKind::Permission, what).with_cause(denied.cause).with_hint(denied.hint)
        }
        _ => Failure::new(ExitKind::Other, what).with_cause(error),
    }
}

/// Asks the rendezvous for its network, under an identity that is forgotten afterwards.
async fn contact(rendezvous: &RendezvousUrl) -> Result<Contact, Failure> {
    let mut secret = Zeroizing::new([0; 32]);
    overlay_os::random::fill(&mut *secret)
        .map_err(|error| Failure::new(ExitKind::Other, "cannot get randomness from the kernel").with_cause(error))?;
    let pinned = Pinned {
        host: rendezvous.host.clone(),
        port: rendezvous.port,
        rendezvous: rendezvous.rendezvous,
        network: rendezvous.network,
    };
    let identity = Arc::new(SecretKey::from_bytes(&secret));
    let target = Target { rendezvous: pinned, identity, epoch: 0, ca_file: None };
    let mut connection = connect(&target).await.map_err(|error| no_contact(rendezvous, &error))?;
    let silent = |cause: String| {
        Failure::new(ExitKind::Timeout, format!("the rendezvous {} does not answer", rendezvous.url)).with_cause(cause)
    };
    let call = Call { id: 1, verb: Verb::Hello };
    connection.calls.send(&call).await.map_err(|lost| silent(lost.to_string()))?;
    let answer = tokio::time::timeout(CONNECT_PATIENCE, connection.messages.next()).await;
    let answer = answer.map_err(|_| silent("no answer in time".to_owned()))?;
    let network = match answer.map_err(|lost| silent(lost.to_string()))? {
        FromServer::Answer(Answer { reply: Reply::Welcome { network, .. }, .. }) => network,
        _ => return Err(silent("it does not say which network it serves".to_owned())),
    };
    connection.calls.close().await;
    let network = Signed::<Network>::open(&network).ok().filter(|network| network.network == rendezvous.network);
    let contact = |network: Signed<Network>| Contact { network: network.name.clone(), is_closed: network.is_closed };
    network.map(contact).ok_or_else(|| {
        Failure::new(ExitKind::Refused, format!("the rendezvous {} cannot be trusted", rendezvous.url))
            .with_cause("what it says of its network is not signed with the key in the URL")
    })
}

fn no_contact(rendezvous: &RendezvousUrl, error: &ConnectError) -> Failure {
    let (code, hint) = match error {
        ConnectError::WrongRendezvous { .. } | ConnectError::BadAuth(_) | ConnectError::Denied(_) => {
            (ExitKind::Refused, Some("copy the whole line that `overlay rendezvous serve` prints"))
        }
        ConnectError::Local(_) => (ExitKind::Other, None),
        ConnectError::Unreachable(_) | ConnectError::NotARendezvous(_) | ConnectError::Silent(_) => {
            (ExitKind::Timeout, None)
        }
    };
    let failure = Failure::new(code, format!("no contact with the rendezvous {}", rendezvous.url)).with_cause(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// The network's name: as given, or as the rendezvous says.
fn network_name(contact: Result<Contact, Failure>, wanted: &Wanted) -> Result<String, Failure> {
    match (contact, &wanted.network) {
        (Ok(contact), Some(given)) if contact.network != *given => {
            Err(Failure::new(ExitKind::Refused, format!("the network is not called `{given}`"))
                .with_cause(format!("the rendezvous says that it is called `{}`", contact.network))
                .with_hint(format!("--network {}", contact.network)))
        }
        (Ok(contact), _) => Ok(contact.network),
        (Err(failure), Some(given)) if failure.code == ExitKind::Timeout => {
            tracing::debug!(%failure, "the network's name is taken as given");
            Ok(given.clone())
        }
        (Err(failure), None) if failure.code == ExitKind::Timeout => Err(failure.with_hint(format!(
            "give the network's name: overlay init {} --network NAME --rendezvous {} -o {}",
            wanted.name,
            wanted.rendezvous,
            argument_for(&wanted.config)
        ))),
        (Err(failure), _) => Err(failure),
    }
}

#[cfg(test)]
mod tests;
