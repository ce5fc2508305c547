//! An agent's state folder, read and copied from outside the program.
//!
//! The program has no verb that shows these secrets, so the files are read as `docs/agents.md` lists them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minicbor::Decoder;
use minicbor::data::Type;
use overlay_sim::initiator::Initiator;
use overlay_wire::signed::{Grant, Membership, Request, Signed};

use super::agents::{Agent, config, state};
use super::{Host, SHORTLY, within};

/// The network of [`super::Agents`].
const NETWORK: &str = "lab";

/// Where each entry of a peer's file is.
const MINE: u64 = 3;
const THEIRS: u64 = 4;
const PRESHARED_KEY: u64 = 5;
const PENDING: u64 = 7;
const ENDPOINTS: u64 = 11;
const FORMER_PRESHARED_KEY: u64 = 13;

/// The state folder of an agent, or a copy of it.
#[derive(Clone, Debug)]
pub struct StateFolder(PathBuf);

/// What a state folder holds of one peer.
pub struct PeerFile(Vec<u8>);

impl StateFolder {
    /// The state folder of an agent.
    pub fn of(agent: &Agent) -> StateFolder {
        StateFolder(state(&agent.host))
    }

    /// The tunnel key: private and public.
    #[track_caller]
    pub fn tunnel_key(&self) -> ([u8; 32], [u8; 32]) {
        let text = fs::read_to_string(self.0.join(NETWORK).join("tunnel.key")).expect("the tunnel key");
        let private: [u8; 32] =
            BASE64_STANDARD.decode(text.trim()).expect("base64").try_into().expect("a key of 32 bytes");
        (private, Initiator::new(private, [0; 32], 0).public_key())
    }

    /// What each rendezvous has signed about the agent's membership.
    #[track_caller]
    pub fn memberships(&self) -> Vec<Signed<Membership>> {
        let text = fs::read_to_string(self.0.join(NETWORK).join("memberships")).expect("the memberships");
        let open = |line| Signed::open(&BASE64_STANDARD.decode(line).expect("base64")).expect("a signed object");
        text.lines().map(open).collect()
    }

    /// Puts a new tunnel key in the place of the present one. The agent must not run.
    #[track_caller]
    pub fn replace_tunnel_key(&self) {
        let key = Command::new("wg").arg("genkey").output().expect("wg genkey").stdout;
        fs::write(self.0.join(NETWORK).join("tunnel.key"), key).expect("the state folder");
    }

    /// What is known of the peer with this identity, if anything.
    pub fn peer(&self, identity: &str) -> Option<PeerFile> {
        fs::read(self.0.join(NETWORK).join("peers").join(identity)).ok().map(PeerFile)
    }

    /// Copies the state folder and the config of an agent, which may run. [`Agent::of_copy`] makes an agent of the copy.
    #[track_caller]
    pub fn copy(agent: &Agent, to: &Path) -> StateFolder {
        within(SHORTLY, "a moment in which no file is being written", || {
            let _ = fs::remove_dir_all(to);
            let copied = Command::new("cp").arg("-a").arg(state(&agent.host)).arg(to).output().expect("cp");
            copied.status.success().then_some(())
        });
        let config = fs::read_to_string(config(&agent.host)).expect("what init wrote");
        fs::write(to.join("config.toml"), config.replace(agent.host.interface(), "INTERFACE")).expect("our own folder");
        StateFolder(to.into())
    }
}

impl Agent {
    /// Puts a copy in the place of this agent's state folder, as somebody does who restores a backup. The daemon must not run.
    #[track_caller]
    pub fn restore(&self, copy: &StateFolder) {
        fs::remove_dir_all(state(&self.host)).expect("our own folder");
        let copied = Command::new("cp").arg("-a").arg(&copy.0).arg(state(&self.host)).output().expect("cp");
        assert!(copied.status.success(), "{copied:?}");
    }

    /// Forgets all peers, as after a loss of everything but the keys. The daemon must not run.
    #[track_caller]
    pub fn lose_trust(&self) {
        let peers = state(&self.host).join(NETWORK).join("peers");
        for peer in fs::read_dir(peers).expect("the state folder").flatten() {
            fs::remove_file(peer.path()).expect("our own file");
        }
    }

    /// An agent on `host` that has this copy of a state folder. It does not run yet.
    #[track_caller]
    pub fn of_copy(host: &Host, copy: &StateFolder) -> Agent {
        let copied = Command::new("cp").arg("-a").arg(&copy.0).arg(state(host)).output().expect("cp");
        assert!(copied.status.success(), "{copied:?}");
        let text = fs::read_to_string(copy.0.join("config.toml")).expect("a copy has a config");
        fs::write(config(host), text.replace("INTERFACE", host.interface())).expect("the host's folder");
        Agent::of(host)
    }
}

impl PeerFile {
    /// The preshared key.
    pub fn preshared_key(&self) -> Option<[u8; 32]> {
        self.entry(PRESHARED_KEY)?.bytes().ok()?.try_into().ok()
    }

    /// The preshared key before, if the peer has not proven the present one.
    pub fn former_preshared_key(&self) -> Option<[u8; 32]> {
        self.entry(FORMER_PRESHARED_KEY)?.bytes().ok()?.try_into().ok()
    }

    /// Whether the agent knows where the peer is.
    pub fn has_endpoints(&self) -> bool {
        self.entry(ENDPOINTS).is_some()
    }

    /// Whether there is a grant of the agent for the peer that has not expired at this time, and one of the peer for the
    /// agent. The latter may have come with a request that is not decided yet.
    pub fn grants(&self, now: u64) -> [bool; 2] {
        let is_current = |grant: &Signed<Grant>| grant.expires.is_none_or(|expires| now < expires);
        let pending = self.entry(PENDING).and_then(|mut entry| Signed::<Request>::open(entry.bytes().ok()?).ok());
        let pending = pending.and_then(|request| request.grant().ok());
        let theirs = self.word(THEIRS).or(pending);
        [self.word(MINE).as_ref().is_some_and(is_current), theirs.as_ref().is_some_and(is_current)]
    }

    /// The latest word of a side, if it is a grant and not the end of one.
    fn word(&self, key: u64) -> Option<Signed<Grant>> {
        let mut entry = self.entry(key)?;
        entry.array().ok()?;
        let is_grant = entry.u8().ok()? == 0;
        entry.array().ok()?;
        is_grant.then(|| Signed::open(entry.bytes().ok()?).ok())?
    }

    /// The value of this key, unless it is absent or null.
    fn entry(&self, key: u64) -> Option<Decoder<'_>> {
        let mut decoder = Decoder::new(&self.0);
        for _ in 0..decoder.map().ok()?? {
            if decoder.u64().ok()? == key {
                return (decoder.datatype().ok()? != Type::Null).then_some(decoder);
            }
            decoder.skip().ok()?;
        }
        None
    }
}
