//! The `docker` backend: builds with `docker buildx`, and talks to the docker engine.
//!
//! *What it talks to.* `docker buildx build` as a child process does the build, so every builder
//! that buildx knows (the engine's own, a container, a remote or Kubernetes BuildKit) and every
//! option of buildx work. The engine's API answers everything else: is it there, does an image
//! exist, give it another tag. Where docker or buildx is missing but the engine answers, the build
//! goes through the engine's own BuildKit instead.
//!
//! *What it needs.* buildx 0.8 or newer and an engine 18.09 or newer; structured progress comes
//! with buildx 0.13. It changes nothing of the user's docker set-up.
//!
//! *What it cannot do* depends on the builder: the engine's default image store knows neither OCI
//! archives nor several platforms; its containerd image store, and container builders, do.
//!
//! In reading order: `backend` is the protocol, `config` the options, `buildx` the child process,
//! `command` its command line, `input` how the context reaches it, `outputs` where results go,
//! `progress` what it says meanwhile, `engine` the API, `store` its images, `engine_build` the
//! build without buildx, `failure` and `error` what can go wrong.

mod backend;
mod buildx;
mod check;
mod command;
mod config;
mod credentials;
mod endpoint;
mod engine;
mod engine_build;
mod error;
mod failure;
mod image;
mod input;
mod outputs;
mod plan;
mod process;
mod program;
mod progress;
mod store;
mod surroundings;
mod tag;
mod version;
mod wire;

use std::sync::Arc;

use windlass_core::Result;
use windlass_core::backend::{Backend, Capabilities, Feature};
use windlass_core::backend_registry::{BackendSetup, BackendType};

pub use engine::{Engine, EngineVersion};

/// The name of this type of backend.
pub const TYPE: &str = "docker";

/// What to register: `BackendRegistry::new().with(windlass_docker::backend_type())`.
pub fn backend_type() -> BackendType {
    BackendType { name: TYPE, summary: "docker buildx, with any builder it knows", capabilities, factory }
}

fn capabilities() -> Capabilities {
    Capabilities::of(Feature::ALL.iter().copied())
}

fn factory(setup: BackendSetup) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(backend::DockerBackend::new(setup)?))
}
