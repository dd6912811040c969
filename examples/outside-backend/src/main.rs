//! The `windlass` program with one more backend: everything else is as it was.

mod audited;

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_cli::run(
        windlass_core::backend_registry::BackendRegistry::new()
            .with(windlass_oci::backend_type())
            .with(windlass_docker::backend_type())
            .with(audited::backend_type()),
    )
}
