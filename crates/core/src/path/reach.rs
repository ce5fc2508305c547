//! Whether a peer answers, and how to ask a peer that has no reason to send whether it is still there.
//!
//! WireGuard owes an answer to three kinds of messages: to data within KEEPALIVE_TIMEOUT (10 s), at least with an empty
//! packet, and to an initiation and a response at once. A peer is *silent* when nothing authentic has arrived since the
//! first such message: for 15 s while a session is alive (the kernel begins a new handshake then, too), and for 5 s
//! without a session. Control is told, resolves the peer's name again, and shows a peer with a session as *suspect*.
//! Anything authentic ends the silence except what a peer also sends while it does not hear us: an initiation,
//! a hello and a probe. Such a message does not take the place of a keepalive either.
//!
//! An empty packet is owed no answer, so a peer that only receives persistent keepalives may be gone for minutes
//! without anyone noticing. In that case a *question* replaces a keepalive: a packet inside the session that the peer
//! answers. A question is asked only where the answer makes a difference and silence alone proves nothing: if the
//! peer's endpoint is a name, if the peer has a persistent keepalive, and if it was not heard from for [`ASK_AFTER`]. A
//! question to an overlay node and its answer are about 190 bytes in 13 s, in place of 32 bytes in 25 s. A peer that is
//! heard from anyway is not asked.
//!
//! A peer that answered its last question within a second is *prompt*. It is asked five times in a row, a second apart,
//! and is silent after 5 s, so that a move is noticed within 19 s of the last sign of life. Other peers answer by
//! WireGuard's own timer after 10 s.
//!
//! Where no question is possible (only WireGuard's own messages may be sent to the peer, or it has no inner address to
//! ask), an initiation takes its place after [`CALL_AFTER`]. A handshake costs each side a millisecond, and a server
//! with ten thousand idle peers that call it every 13 s would do nothing else. The limit is therefore twice the usual
//! number of handshakes, and a move is noticed within 75 s.

use std::time::Duration;

use crate::Instant;
use crate::instant::earlier;

/// How long data waits for an answer: KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, the kernel's rule.
const SILENCE: Duration = Duration::from_secs(15);
/// How long an initiation to a peer without a session, and a question to a prompt peer, wait for an answer.
const PROMPT_SILENCE: Duration = Duration::from_secs(5);
/// How long a peer is not heard from before it is asked. With [`PROMPT_SILENCE`], jitter and a handshake this is less
/// than 20 s.
const ASK_AFTER: Duration = Duration::from_secs(13);
/// The same if the question is a handshake.
const CALL_AFTER: Duration = Duration::from_secs(55);
/// A longer keepalive interval means that the user wants fewer packets. Questions are then equally far apart.
const USUAL_KEEPALIVE: Duration = Duration::from_secs(25);
/// An answer within this time makes a peer prompt.
const PROMPT: Duration = Duration::from_secs(1);
/// The time between questions to a prompt peer, and to other peers. WireGuard's own answer arrives 10 s after the first
/// question. At that time no question of ours is younger than [`PROMPT`].
const PROMPT_INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(7);
/// How many questions are asked in a row before waiting to hear from the peer: for a prompt peer, and for other peers.
const PROMPT_QUESTIONS: u8 = 5;
const QUESTIONS: u8 = 2;

/// The kind of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// A packet inside the session that the peer answers.
    Packet,
    /// An initiation.
    Call,
}

/// What was heard from one peer, and what it owes us.
#[derive(Debug)]
pub(crate) struct Reach {
    /// When something last arrived that shows that the peer hears us.
    heard: Instant,
    /// When we first sent something since then that the peer has to answer.
    owed_since: Option<Instant>,
    is_silent: bool,
    /// How many questions were asked since the peer was last heard from, and when the first and the last were asked.
    asked: u8,
    first_asked: Instant,
    last_asked: Instant,
    is_prompt: bool,
    /// The kind of question to use: [`Question::Packet`] until it turns out to be impossible.
    question: Question,
    /// The jitter added to the time of the next question.
    jitter: Duration,
    /// The ids of our echoes: those of the last row of questions, and of the row before it.
    echo_ids: [Option<u32>; 2],
}

impl Reach {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard: now,
            owed_since: None,
            is_silent: false,
            asked: 0,
            first_asked: now,
            last_asked: now,
            is_prompt: false,
            question: Question::Packet,
            jitter: Duration::ZERO,
            echo_ids: [None; 2],
        }
    }

    /// Records that something was sent that the peer has to answer.
    pub(crate) fn on_owed(&mut self, now: Instant) {
        self.owed_since.get_or_insert(now);
    }

    /// Records that the peer hears us. Returns true if the peer was silent.
    pub(crate) fn on_heard(&mut self, now: Instant) -> bool {
        if self.asked > 0 {
            self.is_prompt = self.question == Question::Packet && now.since(self.last_asked) < PROMPT;
            self.asked = 0;
        }
        self.heard = now;
        self.owed_since = None;
        std::mem::take(&mut self.is_silent)
    }

    /// Whether the peer is silent. Control has been told.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Whether [`Reach::silent_at`] is worth calling. Cheap enough to be called for every train.
    #[inline]
    pub(crate) fn may_be_silent(&self, now: Instant) -> bool {
        self.owed_since.is_some_and(|at| now.since(at) >= PROMPT_SILENCE) && !self.is_silent
    }

    /// Returns when the peer becomes silent unless it is heard from. `is_alive` says that there is a session.
    pub(crate) fn silent_at(&self, is_alive: bool) -> Option<Instant> {
        if self.is_silent {
            return None;
        }
        let owed = self.owed_since.map(|at| at + if is_alive { SILENCE } else { PROMPT_SILENCE });
        let asked = (self.is_prompt && self.asked > 0).then(|| self.first_asked + PROMPT_SILENCE);
        earlier(owed, asked)
    }

    pub(crate) fn on_silent(&mut self) {
        self.is_silent = true;
        // The peer may have been prompt by chance.
        self.is_prompt = false;
        self.asked = 0;
    }

    /// Records a new session. A question that was impossible before may be possible now.
    pub(crate) fn on_connected(&mut self) {
        self.question = Question::Packet;
    }

    /// Sets the kind of question that the peer can be asked.
    pub(crate) fn ask_by(&mut self, question: Question) {
        self.question = question;
    }

    /// Returns when to ask next. `keepalive` is the persistent keepalive interval of the peer.
    pub(crate) fn ask_at(&self, keepalive: Duration) -> Option<Instant> {
        if self.is_silent {
            return None;
        }
        let (most, interval) = match self.question {
            Question::Packet if self.is_prompt => (PROMPT_QUESTIONS, PROMPT_INTERVAL),
            Question::Packet => (QUESTIONS, INTERVAL),
            Question::Call => (1, INTERVAL),
        };
        let patience = match self.question {
            Question::Packet if keepalive > USUAL_KEEPALIVE => keepalive,
            Question::Packet => ASK_AFTER,
            Question::Call => CALL_AFTER.max(keepalive),
        };
        match self.asked {
            0 => Some(self.heard + patience + self.jitter),
            asked if asked < most => Some(self.last_asked + interval),
            _ => None,
        }
    }

    /// Records a question. `jitter` is used for the next one.
    pub(crate) fn on_asked(&mut self, now: Instant, jitter: Duration) {
        if self.asked == 0 {
            self.first_asked = now;
        }
        self.asked = self.asked.saturating_add(1);
        self.last_asked = now;
        self.jitter = jitter;
        self.on_owed(now);
    }

    /// Returns the id of the next echo. All questions in a row share an id, and `fresh` becomes the id of a new row.
    pub(crate) fn echo_id(&mut self, fresh: u32) -> u32 {
        if self.asked == 0 {
            self.echo_ids = [Some(fresh), self.echo_ids[0]];
        }
        self.echo_ids[0].unwrap_or(fresh)
    }

    /// Whether an echo reply may be an answer to one of our questions.
    pub(crate) fn has_sent_echoes(&self) -> bool {
        self.echo_ids[0].is_some()
    }

    /// Whether this is the id of one of our echoes.
    pub(crate) fn is_our_echo(&self, id: u32) -> bool {
        self.echo_ids.contains(&Some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPALIVE: Duration = Duration::from_secs(25);

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    fn millis(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    /// Returns the seconds at which a peer is asked that was heard from at 0 and never answers.
    fn questions(reach: &mut Reach, question: Question, keepalive: Duration) -> Vec<u64> {
        let mut asked = Vec::new();
        reach.ask_by(question);
        for second in 0..200 {
            if reach.ask_at(keepalive).is_some_and(|due| due <= at(second)) {
                reach.on_asked(at(second), Duration::ZERO);
                asked.push(second);
            }
        }
        asked
    }

    fn prompt() -> Reach {
        let mut reach = Reach::new(at(0));
        reach.on_asked(at(0), Duration::ZERO);
        reach.on_heard(at(0));
        reach
    }

    #[test]
    fn data_is_owed_an_answer_within_15_seconds_and_an_initiation_without_a_session_within_5() {
        let mut reach = Reach::new(at(0));
        assert_eq!((reach.silent_at(true), reach.silent_at(false)), (None, None), "nothing is owed");
        reach.on_owed(at(100));
        reach.on_owed(at(107));
        assert_eq!((reach.silent_at(true), reach.silent_at(false)), (Some(at(115)), Some(at(105))));
        assert!(!reach.on_heard(at(110)), "in time");
        assert_eq!(reach.silent_at(true), None);
        reach.on_owed(at(120));
        reach.on_silent();
        assert_eq!(reach.silent_at(true), None, "it is said once");
        assert!(reach.on_heard(at(200)));
        assert!(!reach.on_heard(at(201)));
    }

    #[test]
    fn a_peer_that_is_not_known_to_be_prompt_is_asked_twice_and_has_15_seconds() {
        let mut reach = Reach::new(at(0));
        assert_eq!(questions(&mut reach, Question::Packet, KEEPALIVE), [13, 20]);
        assert_eq!(reach.silent_at(true), Some(at(13 + 15)));
    }

    #[test]
    fn a_prompt_peer_is_asked_five_times_in_a_row_and_has_5_seconds() {
        let mut reach = prompt();
        assert_eq!(questions(&mut reach, Question::Packet, KEEPALIVE), [13, 14, 15, 16, 17]);
        assert_eq!(reach.silent_at(true), Some(at(18)));
        reach.on_silent();
        assert_eq!(reach.ask_at(KEEPALIVE), None, "others call it now");
        reach.on_heard(at(30));
        reach.on_asked(at(43), Duration::ZERO);
        assert_eq!(reach.silent_at(true), Some(at(58)), "perhaps it was prompt by chance");
    }

    #[test]
    fn an_answer_by_wireguards_own_timer_does_not_make_a_peer_prompt() {
        let mut reach = Reach::new(at(0));
        reach.on_asked(at(13), Duration::ZERO);
        reach.on_asked(at(20), Duration::ZERO);
        reach.on_heard(millis(23_040));
        assert!(!reach.is_prompt);
        reach.on_asked(at(36), Duration::ZERO);
        reach.on_heard(millis(36_400));
        assert!(reach.is_prompt);
    }

    #[test]
    fn whoever_is_heard_is_not_asked_and_rare_keepalives_mean_rare_questions() {
        let mut reach = Reach::new(at(0));
        reach.on_heard(at(12));
        assert_eq!(reach.ask_at(KEEPALIVE), Some(at(25)));
        assert_eq!(questions(&mut Reach::new(at(0)), Question::Packet, Duration::from_secs(120)), [120, 127]);
        assert_eq!(questions(&mut Reach::new(at(0)), Question::Call, KEEPALIVE), [55]);
        assert_eq!(questions(&mut Reach::new(at(0)), Question::Call, Duration::from_secs(100)), [100]);
    }

    #[test]
    fn the_echoes_of_one_row_share_an_id_and_the_row_before_is_remembered() {
        let mut reach = Reach::new(at(0));
        assert!(!reach.has_sent_echoes() && !reach.is_our_echo(1));
        for (fresh, id) in [(1, 1), (2, 1)] {
            assert_eq!(reach.echo_id(fresh), id);
            reach.on_asked(at(13), Duration::ZERO);
        }
        reach.on_heard(at(14));
        assert_eq!(reach.echo_id(3), 3);
        assert!(reach.is_our_echo(1) && reach.is_our_echo(3) && !reach.is_our_echo(2));
    }
}
