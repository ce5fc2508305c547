//! The file of the attestation: a join token that was bound to this identity, in CBOR. It holds no secret.
//!
//! A rendezvous of a closed network asks for it once, and peers read from it which tags the network's operator vouches for.
//! A damaged one is refused: without it, the agent would silently lose its tags.

use overlay_wire::signed::{Attestation, JoinToken};

use super::begin::random;
use super::*;

impl State {
    /// Binds a token to the identity of this state, and keeps that.
    pub(super) fn join(&self, token: &JoinToken, identity: &PublicKey) -> Result<(), Failure> {
        let attestation = token.attest(identity, *random()?).map_err(|refused| {
            Failure::new(ExitKind::Other, "the join token cannot be bound to this identity").with_cause(refused)
        })?;
        self.set_attestation(&attestation)
    }

    /// Keeps an attestation instead of the one before. It is on disk when this returns.
    pub(crate) fn set_attestation(&self, attestation: &Attestation) -> Result<(), Failure> {
        self.replace(ATTESTATION, &minicbor::to_vec(attestation).unwrap_or_default())
    }

    /// The attestation of this identity in this network. `None` if no token was given.
    pub(crate) fn attestation(
        &self,
        network: &PublicKey,
        identity: &PublicKey,
    ) -> Result<Option<Attestation>, Failure> {
        let Some(bytes) = read(&self.folder, OsStr::new(ATTESTATION))? else { return Ok(None) };
        let mut decoder = minicbor::Decoder::new(&bytes);
        let attestation = decoder.decode::<Attestation>().ok().filter(|_| decoder.position() == bytes.len());
        let attestation = attestation.filter(|attestation| attestation.token(network, identity).is_ok());
        attestation.map(Some).ok_or_else(|| bad_attestation(&self.folder.path_of(ATTESTATION)))
    }

    /// Removes what an interrupted attempt has left.
    pub(super) fn forget_attestation(&self) -> Result<(), Failure> {
        let path = self.folder.path_of(ATTESTATION);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(&path, error)),
            _ => Ok(()),
        }
    }
}

fn bad_attestation(path: &Path) -> Failure {
    Failure::new(ExitKind::Config, format!("{} is damaged", path.display()))
        .with_cause("it is cut off, was changed by hand, or belongs to a different identity or network")
        .with_hint(
            "move it away and start the agent; with a new token from the network's operator: sudo overlay join FILE",
        )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use overlay_wire::signed::{Signed, Token};

    use super::*;
    use crate::agent::token::sample;

    #[test]
    fn a_token_is_kept_without_its_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let token = sample::token(|_| {});
        let beginning = Beginning { token: Some(&token), ..Beginning::default() };
        let state = State::create(folder.path(), "lab", beginning).expect("a new state");
        let me = state.keys().expect("keys").identity.public();
        let network = sample::network().public();
        let attestation = state.attestation(&network, &me).expect("readable").expect("there");
        assert_eq!(attestation.token(&network, &me).expect("it is ours").tags, ["ops"]);
        let path = state.path().join(ATTESTATION);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        for entry in fs::read_dir(state.path()).expect("a folder").map(|entry| entry.expect("an entry")) {
            if entry.file_type().expect("a type").is_file() {
                let bytes = fs::read(entry.path()).expect("our own file");
                assert!(!bytes.windows(32).any(|part| part == sample::SECRET), "{:?}", entry.path());
            }
        }
    }

    #[test]
    fn without_a_token_there_is_no_file_whatever_an_earlier_attempt_has_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let token = sample::token(|_| {});
        let beginning = Beginning { token: Some(&token), ..Beginning::default() };
        let state = State::create(folder.path(), "lab", beginning).expect("a new state");
        fs::remove_file(state.path().join(IDENTITY)).expect("the file that is written last");
        let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
        assert!(!state.path().join(ATTESTATION).exists());
        let me = state.keys().expect("keys").identity.public();
        assert_eq!(state.attestation(&sample::network().public(), &me), Ok(None));
    }

    #[test]
    fn a_damaged_one_is_refused_by_name_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
        let me = state.keys().expect("keys").identity.public();
        let network = sample::network().public();
        let path = state.path().join(ATTESTATION);
        state.join(&sample::token(|_| {}), &me).expect("written");
        let good = fs::read(&path).expect("there");
        let changed = good.iter().enumerate().map(|(at, byte)| if at == 40 { byte ^ 1 } else { *byte }).collect();
        let foreign = minicbor::to_vec(sample::token(|_| {}).attest(&network, [0; 16]).expect("a good key"));
        let foreign = foreign.expect("plain data");
        for bytes in [Vec::new(), good[..good.len() - 1].to_vec(), [&good[..], &[0]].concat(), changed, foreign] {
            fs::write(&path, bytes).expect("our own file");
            let failure = state.attestation(&network, &me).expect_err("damaged");
            assert_eq!(failure.code, ExitKind::Config);
            let hint = failure.hint.expect("what to do");
            assert!(failure.error.contains("/attestation is damaged") && hint.contains("operator"), "{hint}");
        }
        fs::write(&path, good).expect("our own file");
        assert!(state.attestation(&network, &me).expect("readable").is_some());
        let other = SecretKey::from_bytes(&[9; 32]).public();
        state.attestation(&other, &me).expect_err("a different network");
        // The envelope alone is not an attestation.
        fs::write(&path, Signed::<Token>::bytes(sample::token(|_| {}).token())).expect("our own file");
        state.attestation(&network, &me).expect_err("a token");
    }
}
