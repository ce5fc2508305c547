//! The rendezvous' end of the handshake.

use std::mem;
use std::sync::Arc;

use overlay_wire::signed::{Auth, PublicKey, Role, SecretKey};

use super::noise::{Handshake, Opener, Sealer};
use super::{Broken, Channel, Expected, Failed, Step, WELCOME, signed};

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct ServerSide {
    /// The key of the network.
    pub network: PublicKey,
    /// The key of the rendezvous.
    pub key: Arc<SecretKey>,
    /// The time, in milliseconds since 1970. It is signed, and nothing else is done with it.
    pub now: u64,
    /// The protocol versions that it speaks, the newest first: [`super::VERSIONS`].
    pub versions: &'static [u16],
}

/// A handshake as the server sees it.
pub struct Server {
    pub(super) side: ServerSide,
    state: State,
}

enum State {
    /// Waits for the client's Noise message.
    Noise(Handshake),
    /// Waits for the client's auth.
    Auth { sealer: Sealer, opener: Opener, hash: [u8; 32] },
    /// There was an error, or the channel is established.
    Over,
}

impl Server {
    /// Begins a handshake. `random` must be 32 bytes that nobody can guess, used for nothing else.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn begin(side: ServerSide, random: &[u8; 32]) -> Result<Self, Broken> {
        Ok(Self { side, state: State::Noise(Handshake::responder(random)?) })
    }

    /// Handles a message of the client.
    ///
    /// # Errors
    /// See [`Failed`]. The handshake is over then.
    pub fn handle(&mut self, message: &[u8]) -> Result<Step, Failed> {
        match mem::replace(&mut self.state, State::Over) {
            State::Noise(mut noise) => {
                noise.read(message)?;
                let answer = noise.write()?;
                let (mut sealer, opener, hash) = noise.finish()?;
                let ours = sealer.seal(&self.auth(hash))?;
                self.state = State::Auth { sealer, opener, hash };
                Ok(Step::send([answer, ours]))
            }
            State::Auth { mut sealer, mut opener, hash } => {
                let rendezvous = self.side.key.public();
                let expected = Expected {
                    role: Role::Client,
                    network: &self.side.network,
                    rendezvous: &rendezvous,
                    hash: &hash,
                    versions: self.side.versions,
                };
                match expected.check(&opener.open(message)?) {
                    Ok((peer, version)) => {
                        let verdict = sealer.seal(&[WELCOME])?;
                        Ok(Step { send: vec![verdict], channel: Some(Channel { peer, version, sealer, opener }) })
                    }
                    Err((refusal, _)) => Err(Failed {
                        reason: Broken::Auth(refusal),
                        farewell: Some(sealer.seal(&[refusal as u8])?),
                        offered: None,
                    }),
                }
            }
            State::Over => Err(Broken::Over.into()),
        }
    }

    fn auth(&self, hash: [u8; 32]) -> Vec<u8> {
        let side = &self.side;
        let auth = Auth {
            role: Role::Server,
            versions: side.versions.to_vec(),
            network: side.network,
            rendezvous: side.key.public(),
            identity: side.key.public(),
            epoch: 0,
            hash,
            issued: side.now,
        };
        signed(auth, &side.key)
    }
}
