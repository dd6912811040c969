//! Archives: the one tar writer, compression, and reading archives safely.

/// How archives and layers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSettings {}
