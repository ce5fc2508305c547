//! What a rendezvous is: its key, and the network that it serves. The network object is made at the first start, or comes from
//! an operator who keeps the network key elsewhere.

use std::ffi::OsStr;
use std::sync::Arc;

use overlay_rendezvous::now::Now;
use overlay_wire::signed::{MAX_ENVELOPE_LEN, Network, Pool, Rendezvous, SecretKey, Signed};

use super::{NETWORK, NETWORK_KEY, REGISTRY, RENDEZVOUS_KEY, State, make_key, read, temporary};
use crate::failure::{Kind, ServeError};

/// The key and the network of a rendezvous.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) network: Signed<Network>,
    /// Where agents find it: `https://HOST:PORT`.
    pub(crate) url: String,
}

/// What a start wants the network object to say.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// The network's name.
    pub(crate) name: &'a str,
    /// Its IPv4 addresses. `None`: as they are.
    pub(crate) pool: Option<Pool>,
    /// Whether only agents with a token may join. `None`: as it is, and open at first.
    pub(crate) is_closed: Option<bool>,
    /// Where agents find this rendezvous, if the one who signs the object has not said.
    pub(crate) url: &'a str,
    /// Whether the operator has said so, and it is not only where it listens.
    pub(crate) is_url_given: bool,
}

impl State {
    /// Makes the keys and the network object.
    pub(crate) fn make(&self, wanted: &Wanted<'_>, pool: Pool, now: Now) -> Result<Identity, ServeError> {
        let (network_key, key) = (make_key(&self.folder, NETWORK_KEY)?, make_key(&self.folder, RENDEZVOUS_KEY)?);
        let network = Network {
            network: network_key.public(),
            sequence: now.unix.max(1),
            issued: now.unix,
            name: wanted.name.to_owned(),
            pool,
            rendezvous: vec![Rendezvous { url: wanted.url.to_owned(), key: key.public() }],
            is_closed: wanted.is_closed.unwrap_or(false),
        };
        let network = self.sign(network, &network_key)?;
        Ok(Identity { key: Arc::new(key), network, url: wanted.url.to_owned() })
    }

    /// Takes a network object that was signed elsewhere, if it is newer than the one that is known.
    pub(crate) fn take(&self, network: &Signed<Network>, kept: (&str, Option<Pool>)) -> Result<(), ServeError> {
        self.rendezvous_key()?;
        if self.check_successor(network, kept)? { self.write(network) } else { Ok(()) }
    }

    /// Refuses an object that does not name this rendezvous, does not come after the known one, or has a different name or
    /// pool than is wanted (`kept`). Returns whether it is not the known one.
    pub(crate) fn check_successor(
        &self,
        network: &Signed<Network>,
        kept: (&str, Option<Pool>),
    ) -> Result<bool, ServeError> {
        check_kept(network, kept, "the network object")?;
        let key = self.key(RENDEZVOUS_KEY)?.ok_or_else(|| self.missing(RENDEZVOUS_KEY))?.public();
        if !network.rendezvous.iter().any(|known| known.key == key) {
            let failure = ServeError::new(Kind::Config, "the network object does not name this rendezvous");
            return Err(failure.with_cause(format!("its key is {key}")).with_hint(format!(
                "where the network key is: overlay network sign FILE --key KEYFILE --rendezvous https://HOST:PORT#{key}"
            )));
        }
        if !self.has(NETWORK)? {
            // Nothing but our key: the first object. Otherwise one is lost, and no other takes its place.
            let is_first = !self.has(NETWORK_KEY)? && !self.has(REGISTRY)?;
            return if is_first { Ok(true) } else { Err(self.missing(NETWORK)) };
        }
        let known = self.network()?;
        let is_new = known.bytes() != network.bytes();
        if is_new {
            check_successor(&known, network)?;
        }
        Ok(is_new)
    }

    /// Reads the network and the key, and refuses what contradicts them. Writes nothing.
    pub(crate) fn known(&self, name: &str, pool: Option<Pool>) -> Result<(Signed<Network>, SecretKey), ServeError> {
        let network = self.network()?;
        let key = self.key(RENDEZVOUS_KEY)?.ok_or_else(|| self.missing(RENDEZVOUS_KEY))?;
        check_kept(&network, (name, pool), &self.shown(NETWORK))?;
        Ok((network, key))
    }

    /// Reads what was made at the first start. The network object is signed again if it does not name the wanted URL, or if
    /// the operator has closed or opened the network.
    pub(crate) fn load(&self, wanted: &Wanted<'_>, now: Now) -> Result<Identity, ServeError> {
        let (network, key) = self.known(wanted.name, wanted.pool)?;
        let key = Arc::new(key);
        let ours = Rendezvous { url: wanted.url.to_owned(), key: key.public() };
        let is_closed = wanted.is_closed.unwrap_or(network.is_closed);
        if network.rendezvous.contains(&ours) && network.is_closed == is_closed {
            return Ok(Identity { key, network, url: ours.url });
        }
        let Some(network_key) = self.key(NETWORK_KEY)? else {
            if network.is_closed != is_closed {
                let what = if is_closed { "close" } else { "open" };
                let failure = ServeError::new(Kind::NotFound, format!("cannot {what} the network `{}`", wanted.name));
                let failure = failure.with_cause(format!("{} is not here to sign that", self.shown(NETWORK_KEY)));
                return Err(failure.with_hint(format!(
                    "where the network key is: overlay network sign FILE --key KEYFILE --{}",
                    if is_closed { "closed" } else { "open" }
                )));
            }
            let listed = network.rendezvous.iter().find(|known| known.key == ours.key);
            if wanted.is_url_given && listed.is_none_or(|listed| listed.url != ours.url) {
                let failure =
                    ServeError::new(Kind::NotFound, format!("cannot name {} in the network object", ours.url));
                let failure = failure.with_cause(format!("{} is not here to sign that", self.shown(NETWORK_KEY)));
                return Err(failure.with_hint(format!(
                    "where the network key is: overlay network sign FILE --key KEYFILE --rendezvous {}#{}",
                    ours.url, ours.key
                )));
            }
            let url = listed.map(|listed| listed.url.clone()).unwrap_or_else(|| {
                tracing::warn!(
                    "the network object does not name this rendezvous, and {} is not here to sign a new one",
                    self.shown(NETWORK_KEY)
                );
                ours.url
            });
            return Ok(Identity { key, network, url });
        };
        if network_key.public() != network.network {
            let failure =
                ServeError::new(Kind::Other, format!("{} is the key of a different network", self.shown(NETWORK_KEY)));
            return Err(failure.with_cause(format!("{} is signed by {}", self.shown(NETWORK), network.network)));
        }
        let mut changed = network.into_value();
        changed.rendezvous.retain(|known| known.key != ours.key);
        changed.rendezvous.push(ours);
        changed.is_closed = is_closed;
        changed.sequence = now.unix.max(changed.sequence + 1);
        changed.issued = now.unix;
        let network = self.sign(changed, &network_key)?;
        Ok(Identity { key, network, url: wanted.url.to_owned() })
    }

    fn network(&self) -> Result<Signed<Network>, ServeError> {
        let bytes = match read(&self.folder, NETWORK)? {
            Some(bytes) => bytes,
            // Only the key of the rendezvous was made, for an operator who signs the object elsewhere.
            None if !self.has(NETWORK_KEY)? && !self.has(REGISTRY)? => {
                let failure = ServeError::new(Kind::NotFound, format!("{} is missing", self.shown(NETWORK)));
                return Err(failure.with_hint("give the signed network object: --network-file FILE"));
            }
            None => return Err(self.missing(NETWORK)),
        };
        Signed::open(&bytes[..bytes.len().min(MAX_ENVELOPE_LEN + 1)]).map_err(|refused| match bytes.len() {
            0 => self.damaged(NETWORK, "it is empty"),
            _ => self.damaged(NETWORK, &format!("it is not a signed network object: {refused}")),
        })
    }

    fn sign(&self, network: Network, key: &SecretKey) -> Result<Signed<Network>, ServeError> {
        let signed = Signed::sign(network, key)
            .map_err(|refused| ServeError::new(Kind::Config, "cannot sign the network object").with_cause(refused))?;
        self.write(&signed)?;
        Ok(signed)
    }

    fn write(&self, network: &Signed<Network>) -> Result<(), ServeError> {
        self.folder
            .replace(OsStr::new(NETWORK), &temporary(NETWORK), network.bytes(), 0o600)
            .map_err(|error| ServeError::of_file("write", &self.folder.path_of(NETWORK), &error))
    }
}

/// Refuses a name or a pool that the network does not have.
fn check_kept(network: &Network, (name, pool): (&str, Option<Pool>), shown: &str) -> Result<(), ServeError> {
    if network.name != name {
        let failure = ServeError::new(Kind::Config, format!("{shown} is not of `{name}`"));
        let failure = failure.with_cause(format!("it is of the network `{}`", network.name));
        return Err(failure.with_hint(format!("give the folder the name `{}` and use `--network {0}`", network.name)));
    }
    if pool.is_some_and(|pool| pool != network.pool) {
        let known = shown_pool(network.pool);
        let failure = ServeError::new(Kind::Config, "the pool of a network cannot be changed");
        let failure = failure.with_cause(format!("agents of `{}` have addresses in {known}", network.name));
        return Err(failure.with_hint(format!("leave `--pool` out, or write `--pool {known}`")));
    }
    Ok(())
}

/// Refuses an object that does not come after the known one.
fn check_successor(known: &Network, network: &Network) -> Result<(), ServeError> {
    let refused = |kind, error: &str, cause: String| Err(ServeError::new(kind, error).with_cause(cause));
    if known.network != network.network {
        let cause = format!("this rendezvous serves the network {}", known.network);
        return refused(Kind::Config, "the network object is of a different network", cause);
    }
    if known.pool != network.pool {
        let cause = format!("agents of `{}` have addresses in {}", known.name, shown_pool(known.pool));
        return refused(Kind::Config, "the network object has a different pool", cause);
    }
    if known.sequence >= network.sequence {
        let cause = format!("it has the sequence {}, and the known one {}", network.sequence, known.sequence);
        return refused(
            Kind::Conflict,
            "the network object is older than the known one, or a different one of its age",
            cause,
        );
    }
    Ok(())
}

fn shown_pool(pool: Pool) -> String {
    format!("{}/{}", pool.address(), pool.prefix_len())
}
