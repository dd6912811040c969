//! The `runtime-api` backend: sends the build context to a build service and follows the build there.
//!
//! *What it talks to.* A service of the Runtime API, as OpenHands and its like use it: `POST /build` takes
//! the context as base64 text of a gzip-compressed tar, in JSON or as a multipart form; `GET /build_status`
//! is asked until the build has ended. The service pushes the image to a registry of its own.
//!
//! *What it needs.* An address and a key: `RUNTIME_API_URL` and `RUNTIME_API_KEY`, or the options
//! `url` and `api-key-env`.
//!
//! *What it cannot do* is what the protocol has no words for: platforms, build arguments, labels, a target
//! stage, secrets, named contexts. There is no call that cancels a build.
//!
//! In reading order: `backend` is the protocol, `config` the options, `wire` the messages as they are sent,
//! `names` what images are called there, `submit` the sending, `poll` the waiting, `calls` the other questions,
//! `plan` what a dry run shows.

mod backend;
mod calls;
mod check;
mod config;
mod logs;
mod memory;
mod names;
mod plan;
mod poll;
mod submit;
mod wire;

use std::sync::Arc;

use windlass_core::Result;
use windlass_core::backend::{Backend, Capabilities, Feature};
use windlass_core::backend_registry::{BackendSetup, BackendType};

/// The name of this type of backend.
pub const TYPE: &str = "runtime-api";

/// What to register: `BackendRegistry::new().with(windlass_runtime_api::backend_type())`.
pub fn backend_type() -> BackendType {
    BackendType { name: TYPE, summary: "a build service of the Runtime API", capabilities, factory }
}

/// `Store` and `Push` are the same here: the service's image goes to the service's registry.
fn capabilities() -> Capabilities {
    Capabilities::of([Feature::Run, Feature::RemoteAdd, Feature::Store, Feature::Push])
}

fn factory(setup: BackendSetup) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(backend::RuntimeApi::new(setup)?))
}
