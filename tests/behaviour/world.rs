//! What all tests of a run share: the addresses of the services, a directory, the threads of the library.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use windlass_tests::scenario::Places;
use windlass_tests::service::{
    Absent, Builder, ImageBuilder, RuntimeApi, from_environment, image_builder, runtime_api, variables,
};

/// The surroundings of the whole run.
#[derive(Debug)]
pub(crate) struct World {
    /// `127.0.0.1:PORT` of the registry.
    pub registry: String,
    /// The engine with the classic image store.
    pub classic: String,
    /// The engine with the containerd image store.
    pub containerd: String,
    /// The base images as OCI layouts.
    pub bases: PathBuf,
    /// Where the library's asynchronous code runs.
    pub runtime: Runtime,
    remote: OnceLock<Remote>,
    directory: TempDir,
}

/// The build services, which really build.
#[derive(Debug)]
pub(crate) struct Remote {
    /// The one of the backend `runtime-api`.
    pub runtime_api: RuntimeApi,
    /// The one of the backend `image-builder`.
    pub image_builder: ImageBuilder,
}

impl World {
    /// Looks around.
    pub(crate) fn new() -> Result<Arc<Self>, Absent> {
        Ok(Arc::new(Self {
            registry: from_environment(variables::REGISTRY)?,
            classic: from_environment(variables::DOCKER_HOST)?,
            containerd: from_environment(variables::DOCKER_HOST_CONTAINERD)?,
            bases: from_environment(variables::BASES)?.into(),
            runtime: Runtime::new().expect("threads"),
            remote: OnceLock::new(),
            directory: tempfile::tempdir().expect("a temporary directory"),
        }))
    }

    /// The build services, started by the first test that needs one.
    pub(crate) fn remote(&self) -> &Remote {
        self.remote.get_or_init(|| {
            let builder = Builder::new(&self.directory("services")).expect("a builder");
            let runtime_api = RuntimeApi::start(runtime_api::Habits::building(&builder, &self.registry));
            let image_builder =
                ImageBuilder::start(image_builder::Habits::building(&builder, &self.registry));
            Remote {
                runtime_api: runtime_api.expect("a port"),
                image_builder: image_builder.expect("a port"),
            }
        })
    }

    /// A directory of its own for one test, removed with the rest at the end of the run.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name.replace("::", "/"));
        std::fs::create_dir_all(&path).expect("a directory below the temporary one");
        path
    }

    /// A test that is no scenario: it gets the world and a directory of its own.
    pub(crate) fn trial(
        self: &Arc<Self>,
        name: impl Into<String>,
        test: impl FnOnce(&Self, &Path) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let (world, name) = (self.clone(), name.into());
        Trial::test(name.clone(), move || test(&world, &world.directory(&name)))
    }

    /// What placeholders mean for a test in this directory.
    pub(crate) fn places(&self, root: &Path) -> Places {
        Places {
            registry: self.registry.clone(),
            bases: self.bases.to_string_lossy().into_owned(),
            root: root.to_string_lossy().into_owned(),
        }
    }
}
