//! The client for image registries.

/// The client for image registries.
#[derive(Clone, Debug)]
pub struct RegistryClient {}
