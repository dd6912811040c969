//! Images on disk: the store, OCI layouts, docker archives.
