//! What tests start: the real engine and the real registry, a token server, build services, and proxies that break
//! things: `fault_proxy` requests of a registry, `tcp_proxy` connections.
//!
//! Each guard owns a program, waits until it answers, and takes everything down again when it is dropped: processes,
//! mounts, network links, files. Nothing of the machine's own engine is used or touched, so a developer's containers
//! are safe, and two test runs do not meet.
//!
//! Tests do not start the engine and the common registry themselves. The `with-services` program does, once for a whole
//! run, and tells tests the addresses through the environment: see [`from_environment`]. Registries of other kinds, and
//! what stands in front of them, belong to `tests/registries`, which starts them. Next: `daemon.rs`, then `dockerd.rs`.

mod builder;
pub mod certificates;
mod daemon;
pub mod dockerd;
mod error;
pub mod fault_proxy;
pub mod http;
pub mod image_builder;
pub mod registry;
pub mod runtime_api;
mod stalled_registry;
pub mod tcp_proxy;
pub mod together;
pub mod token_server;

pub use builder::{Builder, LogLine, Received};
pub use certificates::{Certificate, Certificates};
pub use dockerd::{Dockerd, ImageStore};
pub use error::Error;
pub use fault_proxy::{Act, Fault, FaultProxy, Seen};
pub use http::{Answer, Head};
pub use image_builder::ImageBuilder;
pub use registry::{Registry, RegistryOptions};
pub use runtime_api::RuntimeApi;
pub use stalled_registry::StalledRegistry;
pub use tcp_proxy::TcpProxy;
pub use together::Together;
pub use token_server::{Asked, IDENTITY_TOKEN, PASSWORD, TokenHabits, TokenServer, USER};

use std::net::TcpListener;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// Names of the environment variables that carry addresses to the tests.
pub mod variables {
    /// `127.0.0.1:PORT` of the registry, which holds `base/debian:bookworm` and `base/busybox:1`.
    pub const REGISTRY: &str = "WINDLASS_TEST_REGISTRY";
    /// `unix://…` of an engine with the classic image store, which `DOCKER_HOST` names as well.
    pub const DOCKER_HOST: &str = "WINDLASS_TEST_DOCKER_HOST";
    /// `unix://…` of an engine with the containerd image store, the only one that exports OCI archives itself.
    pub const DOCKER_HOST_CONTAINERD: &str = "WINDLASS_TEST_DOCKER_HOST_CONTAINERD";
    /// Directory of the base images as OCI layouts: `debian` with tag `bookworm`, `busybox` with the index `1`.
    pub const BASES: &str = "WINDLASS_TEST_BASES";
    /// A value that only the processes of one run carry: whoever still has it after the run was left behind.
    pub const RUN: &str = "WINDLASS_TEST_RUN";
}

/// A component is not there; what a test that needs it should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// Show the test as ignored, with this reason.
    Ignored(String),
    /// This run promised the component (`CI=true`): fail, with this reason.
    Missing(String),
}

impl Absent {
    /// What a suite is where its services are not: ignored, or failed where they were promised.
    #[must_use]
    pub fn trial(self) -> Trial {
        Trial::ignorable_test("all", move || match self {
            Self::Missing(reason) => Err(reason.into()),
            Self::Ignored(reason) => Ok(Completion::ignored_with(reason)),
        })
    }
}

/// Runs the tests of a suite, as its `main` ends.
///
/// # Panics
/// Where there are none: a suite without tests proves nothing.
pub fn run(arguments: &Arguments, trials: Result<Vec<Trial>, Absent>) -> ExitCode {
    let trials = trials.unwrap_or_else(|absent| vec![absent.trial()]);
    assert!(!trials.is_empty(), "a suite without tests proves nothing");
    libtest_mimic::run(arguments, trials).exit_code()
}

/// Looks up the address that `variable` holds.
///
/// # Errors
/// `Missing` where `CI=true`, else `Ignored`, if the variable is unset or empty.
pub fn from_environment(variable: &str) -> Result<String, Absent> {
    address(variable, std::env::var(variable).ok(), std::env::var("CI").ok())
}

fn address(variable: &str, value: Option<String>, ci: Option<String>) -> Result<String, Absent> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        let reason = format!("`{variable}` is not set: run `tests/run`, which starts it");
        if ci.as_deref() == Some("true") { Absent::Missing(reason) } else { Absent::Ignored(reason) }
    })
}

/// Picks a loopback port that nobody listens on at this moment.
fn free_port() -> Result<u16, Error> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Error::Io { what: "find a free port".into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_component_fails_only_where_it_was_promised() {
        let at = |value: Option<&str>, ci: Option<&str>| {
            address("X", value.map(str::to_owned), ci.map(str::to_owned))
        };
        assert_eq!(at(Some("127.0.0.1:1"), None), Ok("127.0.0.1:1".into()));
        assert!(matches!(at(None, None), Err(Absent::Ignored(_))));
        assert!(matches!(at(Some(""), Some("false")), Err(Absent::Ignored(_))));
        assert!(matches!(at(None, Some("true")), Err(Absent::Missing(_))));
    }
}
