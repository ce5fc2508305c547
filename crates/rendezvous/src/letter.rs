//! What agents write to each other: the plaintext of a sealed message or slot.
//!
//! A letter carries signed envelopes and is itself not signed. The record of the writer goes with a request and an
//! approval, so that the reader needs no look-up, which a registry could refuse or answer with an older record.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use overlay_wire::Malformed;

use crate::protocol::MAX_MESSAGE_LEN;

/// A letter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
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
    pub fn write(&self) -> Vec<u8> {
        crate::protocol::encode(self)
    }

    /// Reads a plaintext.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(plaintext: &[u8]) -> Result<Self, Malformed> {
        if plaintext.len() > MAX_MESSAGE_LEN { Err(Malformed) } else { crate::protocol::decode(plaintext) }
    }
}
