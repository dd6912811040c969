//! Together's management API: credentials of its registry, snapshots, aliases.
