//! What a request amounts to, as one hash.
