//! The agent by itself, with a peer that answers or does not.
