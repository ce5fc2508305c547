//! What the daemon and the process that answers questions say to each other: a line of JSON each way for each message, over
//! a pair of unix sockets. The sockets to serve come with the message that names them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::shadow::Owner;
use super::zone::{Agent, Origin};

/// The longest line in bytes. The largest record of an agent has half of it.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// What does not belong to an agent. A different domain begins without agents.
    Begin(Origin),
    /// Adds an agent, or replaces the one with its name.
    Put(Agent),
    /// Removes the agent of this name.
    Remove(String),
    /// Serves the two sockets that come with this, UDP and TCP of one address.
    Serve(IpAddr),
    /// The answer to [`Report::Short`].
    Short {
        /// The name in question.
        name: String,
        /// Whose it is.
        owner: Owner,
    },
}

/// What the process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// Somebody wants to know whom this name alone means. Does it belong to a different host?
    Short(String),
    /// What was answered so far.
    Counts(Counts),
    /// The hosts file has our names, or why it has not.
    Hosts(Option<String>),
}

/// How many questions came, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered with records.
    pub answered: u64,
    /// Answered that there is no such name, or no such record.
    pub negative: u64,
    /// Refused: the name is not ours to answer.
    pub foreign: u64,
    /// Refused: it did not come from this host.
    pub stranger: u64,
    /// It could not be read.
    pub malformed: u64,
    /// Dropped, because too many were asked at once.
    pub overrun: u64,
}

impl Counts {
    /// Each count with its name.
    pub(crate) fn named(self) -> [(&'static str, u64); 6] {
        [
            ("answered", self.answered),
            ("negative", self.negative),
            ("foreign", self.foreign),
            ("stranger", self.stranger),
            ("malformed", self.malformed),
            ("overrun", self.overrun),
        ]
    }

    /// The sum of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            negative: self.negative + other.negative,
            foreign: self.foreign + other.foreign,
            stranger: self.stranger + other.stranger,
            malformed: self.malformed + other.malformed,
            overrun: self.overrun + other.overrun,
        }
    }
}

/// Writes a message as a line.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Bytes that came, until they are whole lines.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Adds what came. Returns false if a line is too long, which the other end never writes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> bool {
        self.0.extend_from_slice(bytes);
        self.0.len() <= MAX_LINE || self.0.contains(&b'\n')
    }

    /// Takes the next message. `Some(Err)`: a line that is not one.
    pub(super) fn next<T: for<'a> Deserialize<'a>>(&mut self) -> Option<Result<T, serde_json::Error>> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.0.drain(..=end).collect();
        Some(serde_json::from_slice(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let said = [Report::Short("alice".to_owned()), Report::Counts(Counts { answered: 3, ..Counts::default() })];
        let bytes: Vec<u8> = said.iter().flat_map(line).collect();
        for len in 1..bytes.len() {
            let mut lines = Lines::default();
            let mut heard = Vec::new();
            for part in bytes.chunks(len) {
                assert!(lines.add(part));
                heard.extend(std::iter::from_fn(|| lines.next::<Report>()).map(|report| report.expect("ours")));
            }
            assert_eq!(heard, said);
        }
    }

    #[test]
    fn a_line_without_end_and_a_line_of_something_else_are_told() {
        let mut lines = Lines::default();
        assert!(lines.add(b"{\"short\":1}\n"));
        assert!(lines.next::<Report>().expect("a line").is_err());
        assert!(!lines.add(&[b'x'; MAX_LINE + 1]));
    }
}
