//! Why an object is refused.

/// Why an object is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It does not have the form of an envelope, or of a payload of its kind.
    Malformed,
    /// It is longer than its kind may be.
    TooLong,
    /// It has a key that must be known. The sender is newer than we are.
    UnknownKey,
    /// The signature was not made by the signer that the object names, or not for this kind.
    BadSignature,
    /// The signer's key, or a key in the object, is one that anybody could use.
    WeakKey,
    /// A name or a tag has a form that is not allowed.
    BadName,
    /// An entry of a list of rights is not one.
    BadScope,
    /// A value is outside its range, or contradicts a different one.
    BadValue,
    /// An object inside it is not what it must be.
    BadPart,
}

impl Refused {
    /// The reason as one word, for counters and for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::WeakKey => "weak_key",
            Self::BadName => "bad_name",
            Self::BadScope => "bad_scope",
            Self::BadValue => "bad_value",
            Self::BadPart => "bad_part",
        }
    }
}

impl From<minicbor::decode::Error> for Refused {
    fn from(_: minicbor::decode::Error) -> Self {
        Self::Malformed
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Refused {}
