//! What people are told of a state that is held, and what they may do about it.

use super::super::explain::CONFIRM as FIX;
use super::super::request::{AgentReply, AgentRequest, Confirmed};
use super::super::time;
use super::super::{Agent, Changed, NOTHING, PEERS};
use super::Stage;
use crate::failure::{ExitKind, Failure};
use crate::warnings::StatusWarning;

const CODE: &str = "restored";

impl Agent {
    /// A person says that this state is the newest one.
    pub(in crate::agent) fn confirm(&mut self, uid: u32) -> (Changed, Result<AgentReply, Failure>) {
        if !self.past.is_held {
            let failure = Failure::new(ExitKind::Conflict, "there is nothing to confirm")
                .with_cause("nothing says that the state of this agent is older than what it has said since");
            return (NOTHING, Err(failure));
        }
        let now = self.moment();
        let open: Vec<_> = self.book.open(now).map(|open| (open.record.identity, open.record.name.clone())).collect();
        tracing::warn!(uid, "a person has confirmed the restored state");
        for (peer, _) in &open {
            self.book.note_decided(*peer);
            self.log_confirmed(peer, uid);
        }
        // Whatever record of ours is shown, a person has said that this state counts.
        self.past.on_disk = None;
        self.past.registered.clear();
        self.past.was_held = false;
        self.meetings.let_all_write(time::now());
        // The rendezvous may not have been heard yet.
        let changed = match self.past.stage {
            Stage::Unheard => {
                self.past.is_held = false;
                if let Err(failure) = self.state.forget_restored() {
                    tracing::error!("{failure}");
                }
                PEERS.and(self.grant_pinned())
            }
            _ => self.release(),
        };
        let peers = open.into_iter().map(|(_, name)| name).collect();
        (changed, Ok(AgentReply::Confirmed(Confirmed { peers })))
    }

    /// Why what this state granted is held, for people. `None`: it counts.
    pub(in crate::agent) fn held(&self) -> Option<String> {
        let why = match self.past.stage {
            _ if !self.past.is_held => return None,
            Stage::Incomplete if !self.past.keeps_entries() => "the rendezvous does not say what was taken back since",
            Stage::Incomplete => "no rendezvous that answers has all that was said since",
            Stage::Unheard | Stage::Reading | Stage::Settled => "the rendezvous is asked what was taken back since",
        };
        Some(why.to_owned())
    }

    /// The warning in `overlay status`, which is also logged.
    pub(crate) fn restored_warning(&self) -> Option<StatusWarning> {
        let why = self.held()?;
        let what = format!("the state of this agent was restored, so what it granted is held: {why}");
        Some(StatusWarning::new(CODE, what, FIX))
    }

    /// Refuses what would give something while it is not known what was taken back.
    pub(in crate::agent) fn refuse_while_held(&self, request: &AgentRequest) -> Result<(), Failure> {
        let gives = matches!(request, AgentRequest::Handshake(_) | AgentRequest::Approve(_) | AgentRequest::Trust(_));
        match self.held().filter(|_| gives) {
            Some(why) => Err(Failure::new(ExitKind::Refused, "the state of this agent was restored")
                .with_cause(format!("what it granted is held: {why}"))
                .with_hint(FIX)),
            None => Ok(()),
        }
    }
}
