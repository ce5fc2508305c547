//! A network's key and its signed object as files of their own, which no rendezvous needs to have.
//!
//! An operator who keeps the network key away from the Internet makes both on a different machine, and takes only the object to
//! the hosts of the rendezvous: `overlay network`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use overlay_os::folder::Folder;
use overlay_wire::signed::{MAX_ENVELOPE_LEN, MAX_RENDEZVOUS, Network, Pool, PublicKey, Rendezvous, SecretKey, Signed};

use crate::clock::now;
use crate::failure::{Kind, ServeError};
use crate::state::{State, key_in, make_key, random_pool, read, temporary};

/// What is changed in a network.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Rendezvous that are added, or whose URL changes.
    pub rendezvous: Vec<Rendezvous>,
    /// Keys of rendezvous that are taken out.
    pub removed: Vec<PublicKey>,
    /// Whether only agents with a token may join. `None`: as it was, and open at first.
    pub is_closed: Option<bool>,
}

/// Parses `https://HOST:PORT`, and returns it in full.
///
/// # Errors
/// What is wrong with it.
pub fn parse_url(url: &str) -> Result<String, String> {
    overlay_rendezvous::channel::parse_url(url).map_err(|reason| format!("{reason}; write https://HOST:PORT"))
}

/// Parses `https://HOST:PORT#KEY`: where a rendezvous is, and its key.
///
/// # Errors
/// What is wrong with it.
pub fn parse_rendezvous(text: &str) -> Result<Rendezvous, String> {
    const WANTED: &str =
        "write https://HOST:PORT#KEY; on the host of the rendezvous, `overlay rendezvous key` shows the key";
    let (url, key) = text.split_once('#').ok_or_else(|| format!("it has no key; {WANTED}"))?;
    let key = key.parse().map_err(|_| format!("what follows `#` is not a key; {WANTED}"))?;
    Ok(Rendezvous { url: parse_url(url)?, key })
}

/// Makes the key of a new network and its signed object. `pool`: `None` draws a /16.
///
/// # Errors
/// A file exists, cannot be written, or the object would be refused.
pub async fn init(
    name: &str,
    (key_file, object_file): (&Path, &Path),
    pool: Option<Pool>,
    change: &Change,
) -> Result<Signed<Network>, ServeError> {
    let (key_place, object_place) = (Place::of(key_file)?, Place::of(object_file)?);
    for (place, what) in [(&key_place, "key"), (&object_place, "object")] {
        if place.path.symlink_metadata().is_ok() {
            let failure = ServeError::new(Kind::Conflict, format!("`{}` exists", place.path.display()));
            return Err(failure.with_hint(format!("name a different file for the {what}, or move that one away")));
        }
    }
    let pool = match pool {
        Some(pool) => pool,
        None => random_pool().await?,
    };
    let key = make_key(&key_place.folder, &key_place.name)?;
    let now = now().unix;
    let network = Network {
        network: key.public(),
        sequence: now.max(1),
        issued: now,
        name: name.to_owned(),
        pool,
        rendezvous: Vec::new(),
        is_closed: false,
    };
    let written = signed(changed(network, change), &key).and_then(|network| {
        object_place.write(network.bytes())?;
        Ok(network)
    });
    written.inspect_err(|_| {
        // Nobody knows it yet.
        let _ = key_place.folder.remove(&key_place.name);
    })
}

/// Signs a network anew, with a change, in place of the object that the file holds.
///
/// # Errors
/// A file is missing or damaged, the key is that of a different network, or the object would be refused.
pub fn sign(object_file: &Path, key_file: &Path, change: &Change) -> Result<Signed<Network>, ServeError> {
    let network = open(object_file)?;
    let key = key(key_file)?;
    if key.public() != network.network {
        let failure =
            ServeError::new(Kind::Config, format!("`{}` is the key of a different network", key_file.display()));
        return Err(failure.with_cause(format!("`{}` is of {}", object_file.display(), network.network)));
    }
    let known = |key: &PublicKey| network.rendezvous.iter().any(|known| known.key == *key);
    if let Some(unknown) = change.removed.iter().find(|key| !known(key)) {
        let failure = ServeError::new(Kind::NotFound, format!("the network has no rendezvous with the key {unknown}"));
        return Err(failure.with_hint(format!("overlay network show {}", object_file.display())));
    }
    let mut network = network.into_value();
    network.issued = now().unix;
    network.sequence = network.issued.max(network.sequence + 1);
    let network = signed(changed(network, change), &key)?;
    Place::of(object_file)?.replace(network.bytes())?;
    Ok(network)
}

/// Reads a signed object.
///
/// # Errors
/// The file is missing, or holds something else.
pub fn open(file: &Path) -> Result<Signed<Network>, ServeError> {
    let place = Place::of(file)?;
    let bytes = read(&place.folder, &place.name)?.ok_or_else(|| missing(file))?;
    Signed::open(&bytes[..bytes.len().min(MAX_ENVELOPE_LEN + 1)]).map_err(|refused| {
        ServeError::new(Kind::Config, format!("`{}` is not a signed network object", file.display()))
            .with_cause(refused)
            .with_hint("`overlay network init` makes one, and a rendezvous keeps its own in its state folder")
    })
}

/// The key of the rendezvous of a network on this host. It is made if it does not exist.
///
/// # Errors
/// The state folder cannot be used.
pub fn rendezvous_key(state_dir: &Path, network: &str) -> Result<PublicKey, ServeError> {
    if let Some(known) = State::look(state_dir, network)?.known_rendezvous_key()? {
        return Ok(known);
    }
    State::open(state_dir, network)?.rendezvous_key()
}

/// Reads a key file. One that others may open is refused.
pub(crate) fn key(file: &Path) -> Result<SecretKey, ServeError> {
    let place = Place::of(file)?;
    let damaged = |problem: &str| {
        let failure = ServeError::new(Kind::Other, format!("`{}` cannot be used", file.display()));
        failure.with_cause(problem).with_hint("restore it from a backup: no other key signs for this network")
    };
    key_in(&place.folder, &place.name, damaged)?.ok_or_else(|| missing(file))
}

fn missing(file: &Path) -> ServeError {
    ServeError::new(Kind::NotFound, format!("`{}` is missing", file.display()))
}

fn changed(mut network: Network, change: &Change) -> Network {
    network.rendezvous.retain(|known| !change.removed.contains(&known.key));
    for rendezvous in &change.rendezvous {
        match network.rendezvous.iter_mut().find(|known| known.key == rendezvous.key) {
            Some(known) => known.url.clone_from(&rendezvous.url),
            None => network.rendezvous.push(rendezvous.clone()),
        }
    }
    network.is_closed = change.is_closed.unwrap_or(network.is_closed);
    network
}

fn signed(network: Network, key: &SecretKey) -> Result<Signed<Network>, ServeError> {
    if network.rendezvous.len() > MAX_RENDEZVOUS {
        let failure = ServeError::new(Kind::Config, format!("a network names {MAX_RENDEZVOUS} rendezvous at most"));
        return Err(failure.with_cause(format!("there would be {}", network.rendezvous.len())));
    }
    Signed::sign(network, key)
        .map_err(|refused| ServeError::new(Kind::Config, "such a network is refused").with_cause(refused))
}

/// A file in a folder that nobody else can change.
struct Place {
    folder: Folder,
    name: String,
    path: PathBuf,
}

impl Place {
    fn of(path: &Path) -> Result<Self, ServeError> {
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name.ok_or_else(|| ServeError::new(Kind::Config, format!("`{}` is not a file", path.display())))?;
        let above = match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        let folder = Folder::trusted(above, &[]).map_err(|error| ServeError::of_trust("use", above, error))?;
        Ok(Self { folder, name: name.to_owned(), path: path.to_owned() })
    }

    fn write(&self, content: &[u8]) -> Result<(), ServeError> {
        let written = self.folder.write_new(OsStr::new(&self.name), &temporary(&self.name), content, 0o644);
        written.map_err(|error| ServeError::of_file("write", &self.path, &error))
    }

    fn replace(&self, content: &[u8]) -> Result<(), ServeError> {
        let written = self.folder.replace(OsStr::new(&self.name), &temporary(&self.name), content, 0o644);
        written.map_err(|error| ServeError::of_file("write", &self.path, &error))
    }
}

#[cfg(test)]
mod tests;
