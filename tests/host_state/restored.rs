//! What somebody else takes away comes back, at a measured pace, and what somebody else puts in its place stays.
