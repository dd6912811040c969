//! The `image-builder` backend: sends the build context to Together's image-builder and follows its log; and
//! what makes a Together snapshot of an image: [`together`].
//!
//! *What it talks to.* `POST /builds` takes a multipart form with the context as a gzip-compressed tar;
//! `GET /builds/{id}/logs` is the log as server-sent events; `GET /builds/{id}` says how the build is, and
//! alone is believed; `DELETE /builds/{id}` stops it. The service pushes the image to a registry of its own.
//!
//! *What it needs.* A key: `TOGETHER_API_KEY`. Where the service is follows from `TOGETHER_BASE_URL`.
//!
//! *What it cannot do* is what the protocol has no words for: platforms, labels, a target stage, secrets,
//! named contexts, several names; and nobody can ask whether an image exists.
//!
//! In reading order: `backend` is the protocol, `config` the options, `wire` the messages as they are sent,
//! `names` what images and caches are called there, `plan` what is sent and refused, `submit` the sending,
//! `follow` the waiting, with `log_stream` one reading of the log, `history` what of it was shown already,
//! `lines` what is passed on of it, and
//! `status` the one place that is believed.

mod backend;
mod check;
mod config;
mod follow;
mod history;
mod lines;
mod log_stream;
mod names;
mod plan;
mod status;
mod submit;
pub mod together;
mod wire;

use std::sync::Arc;

use windlass_core::Result;
use windlass_core::backend::{Backend, Capabilities, Feature};
use windlass_core::backend_registry::{BackendSetup, BackendType};

/// The name of this type of backend.
pub const TYPE: &str = "image-builder";

/// What to register: `BackendRegistry::new().with(windlass_image_builder::backend_type())`.
pub fn backend_type() -> BackendType {
    BackendType { name: TYPE, summary: "Together's image-builder", capabilities, factory }
}

/// `Store` and `Push` are the same here: the service's image goes to the service's registry.
fn capabilities() -> Capabilities {
    Capabilities::of([
        Feature::Run,
        Feature::RemoteAdd,
        Feature::BuildArguments,
        Feature::Store,
        Feature::Push,
    ])
    .finding_nothing()
    .giving_one_name()
}

fn factory(setup: BackendSetup) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(backend::ImageBuilder::new(setup)?))
}
