//! The agent's end of the handshake.

use std::mem;
use std::sync::Arc;

use overlay_wire::signed::{Auth, PublicKey, Role, SecretKey, Signed};

use super::noise::{Handshake, Opener, Sealer};
use super::{Broken, Channel, Expected, Failed, Refusal, Step, VERSIONS, WELCOME, signed};

/// What the client says of itself, and whom it expects.
#[derive(Clone, Debug)]
pub struct ClientSide {
    /// The pinned key of the network.
    pub network: PublicKey,
    /// The pinned key of the rendezvous.
    pub rendezvous: PublicKey,
    /// Our own key.
    pub identity: Arc<SecretKey>,
    /// The value that the last connection handed out. 0: none.
    pub epoch: u64,
    /// The time, in milliseconds since 1970. It is signed, and nothing else is done with it.
    pub now: u64,
}

/// A handshake as the client sees it.
pub struct Client {
    side: ClientSide,
    state: State,
}

enum State {
    /// Waits for the server's Noise message.
    Noise(Handshake),
    /// Waits for the server's auth.
    Auth { sealer: Sealer, opener: Opener, hash: [u8; 32] },
    /// Waits for the verdict on ours.
    Verdict { sealer: Sealer, opener: Opener, peer: Signed<Auth>, version: u16 },
    /// There was an error, or the channel is established.
    Over,
}

impl Client {
    /// Begins a handshake, and returns the first message. `random` must be 32 bytes that nobody can guess, used for nothing
    /// else.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn begin(side: ClientSide, random: &[u8; 32]) -> Result<(Self, Vec<u8>), Broken> {
        let mut noise = Handshake::initiator(random)?;
        let first = noise.write()?;
        Ok((Self { side, state: State::Noise(noise) }, first))
    }

    /// Handles a message of the server.
    ///
    /// # Errors
    /// See [`Failed`]. The handshake is over then.
    pub fn handle(&mut self, message: &[u8]) -> Result<Step, Failed> {
        match mem::replace(&mut self.state, State::Over) {
            State::Noise(mut noise) => {
                noise.read(message)?;
                let (sealer, opener, hash) = noise.finish()?;
                self.state = State::Auth { sealer, opener, hash };
                Ok(Step::default())
            }
            State::Auth { mut sealer, mut opener, hash } => {
                let side = &self.side;
                let expected = Expected {
                    role: Role::Server,
                    network: &side.network,
                    rendezvous: &side.rendezvous,
                    hash: &hash,
                    versions: VERSIONS,
                };
                // A server that is refused is told nothing, not even why.
                let checked = expected.check(&opener.open(message)?);
                let (peer, version) = checked.map_err(|(refusal, offered)| Failed {
                    reason: Broken::Auth(refusal),
                    farewell: None,
                    offered,
                })?;
                let ours = sealer.seal(&self.auth(hash))?;
                self.state = State::Verdict { sealer, opener, peer, version };
                Ok(Step::send([ours]))
            }
            State::Verdict { sealer, mut opener, peer, version } => match opener.open(message)?[..] {
                [WELCOME] => Ok(Step { send: Vec::new(), channel: Some(Channel { peer, version, sealer, opener }) }),
                [verdict] => Err(Broken::Denied(Refusal::of_verdict(verdict)).into()),
                _ => Err(Broken::Malformed.into()),
            },
            State::Over => Err(Broken::Over.into()),
        }
    }

    fn auth(&self, hash: [u8; 32]) -> Vec<u8> {
        let side = &self.side;
        let auth = Auth {
            role: Role::Client,
            versions: VERSIONS.to_vec(),
            network: side.network,
            rendezvous: side.rendezvous,
            identity: side.identity.public(),
            epoch: side.epoch,
            hash,
            issued: side.now,
        };
        signed(auth, &side.identity)
    }
}
