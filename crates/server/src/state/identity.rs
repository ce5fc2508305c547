//! What a rendezvous is: its key, and the network that it serves. The network object is made at the first start, or comes from
//! an operator who keeps the network key elsewhere.

use std::ffi::OsStr;
use std::sync::Arc;

use overlay_rendezvous::channel::parse_url;
use overlay_rendezvous::now::Now;
use overlay_wire::signed::{MAX_ENVELOPE_LEN, Network, Pool, PublicKey, Rendezvous, SecretKey, Signed};

use super::{NETWORK, NETWORK_KEY, REGISTRY, RENDEZVOUS_KEY, State, URL, make_key, read, temporary};
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The network's name.
    pub(crate) name: &'a str,
    /// Its IPv4 addresses. `None`: as they are.
    pub(crate) pool: Option<Pool>,
    /// Whether only agents with a token may join. `None`: as it is, and open at first.
    pub(crate) is_closed: Option<bool>,
    /// Where agents find this rendezvous. `None`: where the operator has said before, and else where it listens.
    pub(crate) url: Option<&'a str>,
    /// Where it listens.
    pub(crate) listens: &'a str,
    /// A network object that was signed elsewhere. `None`: the one that is known.
    pub(crate) object: Option<&'a Signed<Network>>,
}

/// What a rendezvous is from now on, and what has to be written for that.
#[derive(Debug)]
pub(crate) struct Plan {
    identity: Identity,
    is_object_new: bool,
    /// Where the operator has said that agents find it, if that is news.
    said: Option<String>,
}

impl State {
    /// Makes the keys and the network object.
    pub(crate) fn make(&self, wanted: &Wanted<'_>, pool: Pool, now: Now) -> Result<Identity, ServeError> {
        if let Some(url) = wanted.url {
            self.write(URL, format!("{url}\n").as_bytes())?;
        }
        let url = wanted.url.unwrap_or(wanted.listens);
        let (network_key, key) = (make_key(&self.folder, NETWORK_KEY)?, make_key(&self.folder, RENDEZVOUS_KEY)?);
        let network = Network {
            network: network_key.public(),
            sequence: now.unix.max(1),
            issued: now.unix,
            name: wanted.name.to_owned(),
            pool,
            rendezvous: vec![Rendezvous { url: url.to_owned(), key: key.public() }],
            is_closed: wanted.is_closed.unwrap_or(false),
        };
        let network = sign(network, &network_key)?;
        self.write(NETWORK, network.bytes())?;
        Ok(Identity { key: Arc::new(key), network, url: url.to_owned() })
    }

    /// Reads what this rendezvous is, compares it with what is wanted, and refuses what contradicts it. Writes nothing.
    ///
    /// The network object is signed anew if it does not name the wanted URL, or if the operator has closed or opened the
    /// network. Where the network key is elsewhere, the object says where agents find us.
    pub(crate) fn plan(&self, wanted: &Wanted<'_>, now: Now) -> Result<Plan, ServeError> {
        let key = Arc::new(self.key(RENDEZVOUS_KEY)?.ok_or_else(|| self.missing(RENDEZVOUS_KEY))?);
        let (network, is_object_new) = match wanted.object {
            Some(object) if self.check_successor(object, &key.public(), wanted)? => (object.clone(), true),
            _ => (self.network()?, false),
        };
        check_kept(&network, wanted, &self.shown(NETWORK))?;
        let listed = network.rendezvous.iter().find(|known| known.key == key.public()).map(|known| known.url.clone());
        let said = wanted.url.map(str::to_owned).or_else(|| wanted.object.and(listed.clone()));
        let is_closed = wanted.is_closed.unwrap_or(network.is_closed);
        let network_key = self.key(NETWORK_KEY)?;
        let kept = self.said_url()?;
        let url = match &network_key {
            Some(_) => said.as_ref().or(kept.as_ref()).cloned().unwrap_or_else(|| wanted.listens.to_owned()),
            None => wanted.url.or(listed.as_deref()).unwrap_or(wanted.listens).to_owned(),
        };
        let said = said.filter(|said| kept.as_ref() != Some(said));
        let plan = |network, is_object_new| {
            Ok(Plan { identity: Identity { key: Arc::clone(&key), network, url: url.clone() }, is_object_new, said })
        };
        if listed.as_ref() == Some(&url) && network.is_closed == is_closed {
            return plan(network, is_object_new);
        }
        let Some(network_key) = network_key else {
            if network.is_closed != is_closed {
                let what = if is_closed { "close" } else { "open" };
                let failure = self.cannot_sign(format!("cannot {what} the network `{}`", wanted.name));
                return Err(failure.with_hint(elsewhere(if is_closed { "--closed" } else { "--open" })));
            }
            if wanted.url.is_some() {
                let failure = self.cannot_sign(format!("cannot name {url} in the network object"));
                return Err(failure.with_hint(elsewhere(&format!("--rendezvous {url}#{}", key.public()))));
            }
            tracing::warn!(
                "the network object does not name this rendezvous, and {} is not here to sign a new one",
                self.shown(NETWORK_KEY)
            );
            return plan(network, is_object_new);
        };
        if network_key.public() != network.network {
            let failure =
                ServeError::new(Kind::Other, format!("{} is the key of a different network", self.shown(NETWORK_KEY)));
            return Err(failure.with_cause(format!("{} is signed by {}", self.shown(NETWORK), network.network)));
        }
        let mut changed = network.into_value();
        changed.rendezvous.retain(|known| known.key != key.public());
        changed.rendezvous.push(Rendezvous { url: url.clone(), key: key.public() });
        changed.is_closed = is_closed;
        changed.sequence = now.unix.max(changed.sequence + 1);
        changed.issued = now.unix;
        plan(sign(changed, &network_key)?, true)
    }

    /// Takes the network object that a different process of this rendezvous has left for it, if that is the newer one.
    pub(crate) fn adopt(&self, object: &Signed<Network>) -> Result<(), ServeError> {
        // At the first start there is nothing to compare it with.
        if !self.has(NETWORK)? {
            return Ok(());
        }
        let known = self.network()?;
        match object.network == known.network && object.sequence > known.sequence {
            true => self.write(NETWORK, object.bytes()),
            false => Ok(()),
        }
    }

    /// Writes what a plan says.
    pub(crate) fn carry_out(&self, plan: Plan) -> Result<Identity, ServeError> {
        if plan.is_object_new {
            self.write(NETWORK, plan.identity.network.bytes())?;
        }
        if let Some(said) = plan.said {
            self.write(URL, format!("{said}\n").as_bytes())?;
        }
        Ok(plan.identity)
    }

    /// Refuses an object that does not name this rendezvous, does not come after the known one, or has a different name or
    /// pool than is wanted. Returns whether it is not the known one.
    fn check_successor(
        &self,
        network: &Signed<Network>,
        key: &PublicKey,
        wanted: &Wanted<'_>,
    ) -> Result<bool, ServeError> {
        check_kept(network, wanted, "the network object")?;
        if !network.rendezvous.iter().any(|known| known.key == *key) {
            let failure = ServeError::new(Kind::Config, "the network object does not name this rendezvous");
            let failure = failure.with_cause(format!("its key is {key}"));
            return Err(failure.with_hint(elsewhere(&format!("--rendezvous https://HOST:PORT#{key}"))));
        }
        if !self.has(NETWORK)? {
            // Nothing but our key: the first object. Otherwise one is lost, and no other takes its place.
            let is_first = !self.has(NETWORK_KEY)? && !self.has(REGISTRY)?;
            return if is_first { Ok(true) } else { Err(self.missing(NETWORK)) };
        }
        let known = self.network()?;
        let is_new = known.bytes() != network.bytes();
        if is_new {
            check_successor(&known, network, &self.shown(NETWORK))?;
        }
        Ok(is_new)
    }

    /// Where the operator has said that agents find us.
    fn said_url(&self) -> Result<Option<String>, ServeError> {
        let Some(bytes) = read(&self.folder, URL)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let url = text.filter(|text| parse_url(text).is_ok_and(|url| url == *text));
        url.map(|url| Some(url.to_owned())).ok_or_else(|| {
            let failure = ServeError::new(Kind::Other, format!("{} cannot be used", self.shown(URL)));
            let failure = failure.with_cause("it is not the URL of a rendezvous");
            failure.with_hint(format!("rm {}, and say once more where agents find it: --url", self.shown(URL)))
        })
    }

    fn cannot_sign(&self, what: String) -> ServeError {
        ServeError::new(Kind::NotFound, what)
            .with_cause(format!("{} is not here to sign that", self.shown(NETWORK_KEY)))
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

    fn write(&self, name: &str, content: &[u8]) -> Result<(), ServeError> {
        self.folder
            .replace(OsStr::new(name), &temporary(name), content, 0o600)
            .map_err(|error| ServeError::of_file("write", &self.folder.path_of(name), &error))
    }
}

fn sign(network: Network, key: &SecretKey) -> Result<Signed<Network>, ServeError> {
    Signed::sign(network, key)
        .map_err(|refused| ServeError::new(Kind::Config, "cannot sign the network object").with_cause(refused))
}

/// What to do where the network key is.
fn elsewhere(change: &str) -> String {
    format!("where the network key is: overlay network sign FILE --key KEYFILE {change}")
}

/// Refuses a name or a pool that the network does not have.
fn check_kept(network: &Network, wanted: &Wanted<'_>, shown: &str) -> Result<(), ServeError> {
    let Wanted { name, pool, .. } = *wanted;
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
fn check_successor(known: &Network, network: &Network, shown: &str) -> Result<(), ServeError> {
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
        let error = "the network object is older than the known one, or a different one of its age";
        let failure = ServeError::new(Kind::Conflict, error).with_cause(cause);
        return Err(failure.with_hint(format!(
            "leave `--network-file` out to go on with the known one; a change is signed on a copy of {shown}"
        )));
    }
    Ok(())
}

fn shown_pool(pool: Pool) -> String {
    format!("{}/{}", pool.address(), pool.prefix_len())
}
