//! What all tests of a run share: the addresses of the services, the program, and what build services build with.

use std::sync::{Arc, OnceLock};

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use windlass_tests::place::Program;
use windlass_tests::service::{Absent, Builder, from_environment, variables};

use crate::registry::Registry;
use crate::rig::Case;

/// The surroundings of the whole run.
#[derive(Debug)]
pub(crate) struct World {
    /// The registry, which holds `base/debian:bookworm` and `base/busybox:1`.
    pub(crate) registry: Registry,
    /// The engine with the classic image store.
    pub(crate) engine: String,
    pub(crate) program: Arc<Program>,
    builder: OnceLock<Builder>,
    directory: TempDir,
}

impl World {
    /// Looks around.
    pub(crate) fn new() -> Result<Arc<Self>, Absent> {
        Ok(Arc::new(Self {
            registry: Registry::at(from_environment(variables::REGISTRY)?),
            engine: from_environment(variables::DOCKER_HOST)?,
            program: Arc::default(),
            builder: OnceLock::new(),
            directory: tempfile::tempdir().expect("a temporary directory"),
        }))
    }

    /// What the build services build with.
    pub(crate) fn builder(&self) -> &Builder {
        self.builder.get_or_init(|| Builder::new(&self.directory.path().join("services")).expect("a builder"))
    }

    /// A test of this name, which is also that of its repositories.
    pub(crate) fn trial(
        self: &Arc<Self>,
        name: impl Into<String>,
        test: impl FnOnce(&Case) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let (world, name) = (self.clone(), name.into());
        Trial::test(name.clone(), move || test(&Case::new(world, &name)?))
    }
}
