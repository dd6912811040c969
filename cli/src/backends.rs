//! The visible list of backends, one line each, and what is said about them in the surroundings.

use windlass_core::backend_registry::BackendRegistry;
use windlass_core::config::{Offer, Rules};

/// The backends of the `windlass` program.
pub fn backends() -> BackendRegistry {
    BackendRegistry::new()
        .with(windlass_oci::backend_type())
        .with(windlass_docker::backend_type())
        .with(windlass_runtime_api::backend_type())
        .with(windlass_image_builder::backend_type())
}

/// Which of them is meant where nobody names one.
pub(crate) const RULES: Rules<'static> = Rules {
    embedded: "oci",
    together_local: "docker",
    // These count only in a program that registers them. OpenHands has names of its own for two.
    offers: &[
        Offer { type_name: "runtime-api", variables: &["RUNTIME_API_URL", "RUNTIME_API_KEY"] },
        Offer { type_name: "runtime-api", variables: &["RUNTIME_API_URL", "SANDBOX_API_KEY"] },
        Offer { type_name: "runtime-api", variables: &["SANDBOX_REMOTE_RUNTIME_API_URL", "RUNTIME_API_KEY"] },
        Offer { type_name: "runtime-api", variables: &["SANDBOX_REMOTE_RUNTIME_API_URL", "SANDBOX_API_KEY"] },
        Offer { type_name: "image-builder", variables: &["TOGETHER_API_KEY"] },
    ],
};
