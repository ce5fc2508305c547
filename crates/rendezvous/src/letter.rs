//! What agents write to each other: the plaintext of a sealed message or slot.
//!
//! A letter carries signed envelopes and is itself not signed. The record of the writer goes with a request and an
//! approval, so that the reader needs no look-up, which a registry could refuse or answer with an older record.

use std::fmt;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use overlay_wire::Malformed;
use zeroize::Zeroizing;

use crate::protocol::MAX_MESSAGE_LEN;

/// A letter. Its envelopes hold secrets, so only their lengths are printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Letter {
    /// A wish to be trusted.
    #[n(0)]
    Request {
        /// An envelope of kind `request`.
        #[n(0)]
        request: ByteVec,
        /// The writer's record.
        #[n(1)]
        record: ByteVec,
    },
    /// The answer to a request.
    #[n(1)]
    Approval {
        /// An envelope of kind `approval`.
        #[n(0)]
        approval: ByteVec,
        /// The writer's record.
        #[n(1)]
        record: ByteVec,
    },
    /// A grant that replaces an earlier one.
    #[n(2)]
    Grant {
        /// An envelope of kind `grant`.
        #[n(0)]
        grant: ByteVec,
    },
    /// The end of a grant. To a request, it is a refusal.
    #[n(3)]
    Revoke {
        /// An envelope of kind `revoke`.
        #[n(0)]
        revoke: ByteVec,
    },
    /// Where the writer can be reached.
    #[n(4)]
    Endpoints {
        /// An envelope of kind `endpoints`.
        #[n(0)]
        endpoints: ByteVec,
    },
}

impl Letter {
    /// The plaintext to be sealed.
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(crate::protocol::encode(self))
    }

    /// Reads a plaintext.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(plaintext: &[u8]) -> Result<Self, Malformed> {
        if plaintext.len() > MAX_MESSAGE_LEN { Err(Malformed) } else { crate::protocol::decode(plaintext) }
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, envelope, bytes, record) = match self {
            Self::Request { request, record } => ("Request", "request", request, Some(record)),
            Self::Approval { approval, record } => ("Approval", "approval", approval, Some(record)),
            Self::Grant { grant } => ("Grant", "grant", grant, None),
            Self::Revoke { revoke } => ("Revoke", "revoke", revoke, None),
            Self::Endpoints { endpoints } => ("Endpoints", "endpoints", endpoints, None),
        };
        let mut shown = f.debug_struct(kind);
        shown.field(envelope, &format_args!("{} bytes", bytes.len()));
        if let Some(record) = record {
            shown.field("record", &format_args!("{} bytes", record.len()));
        }
        shown.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kind_and_the_lengths_of_a_letter_are_printed() {
        let bytes = |len| ByteVec::from(vec![0xab; len]);
        for (letter, expected) in [
            (
                Letter::Request { request: bytes(40), record: bytes(7) },
                "Request { request: 40 bytes, record: 7 bytes }",
            ),
            (
                Letter::Approval { approval: bytes(41), record: bytes(8) },
                "Approval { approval: 41 bytes, record: 8 bytes }",
            ),
            (Letter::Grant { grant: bytes(3) }, "Grant { grant: 3 bytes }"),
            (Letter::Revoke { revoke: bytes(4) }, "Revoke { revoke: 4 bytes }"),
            (Letter::Endpoints { endpoints: bytes(5) }, "Endpoints { endpoints: 5 bytes }"),
        ] {
            assert_eq!(format!("{letter:?}"), expected);
        }
    }
}
