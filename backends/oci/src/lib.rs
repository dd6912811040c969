//! The embedded builder: images without a daemon.
//!
//! It reads the Dockerfile itself, assembles layers and the image config as BuildKit does, and puts
//! the result into a store on disk, a registry, or a file. It needs nothing but a directory to
//! write to, and a registry where a base image or the result is there.
//!
//! What it cannot do is run programs: a Dockerfile whose target needs a RUN is refused before any
//! work, unless all that it runs is `rm`, which needs no program: `removal.rs`. Only git is called, for
//! ADD of a repository.
//!
//! In reading order: `backend.rs` is the protocol; `build.rs` is a build from top to bottom;
//! `stages.rs` interprets stages, `files.rs` those of their instructions that need files, `instructions/` has one file an instruction; `copy/` is what COPY
//! and ADD share; `change.rs` is what an instruction did, `layer.rs` says what is in the layer of it and
//! `making.rs` makes that, unless it was made before; `base.rs` finds base images, `deliver.rs` brings the
//! result to its place.

mod ahead;
mod assemble;
mod backend;
mod base;
mod build;
mod change;
mod check;
mod config;
mod copy;
mod deliver;
mod files;
mod find;
mod go_format;
mod go_match;
mod instructions;
mod layer;
mod linked;
mod making;
mod mode;
mod outputs;
mod owner;
mod preflight;
mod remote;
mod removal;
mod removing;
mod rewrite;
mod schedule;
mod sources;
mod stage;
mod stages;
mod tree;
mod workshop;

#[cfg(test)]
mod tests;

use windlass_core::backend::{Capabilities, Feature};
use windlass_core::backend_registry::BackendType;

pub use backend::Oci;
pub use config::OciConfig;

/// The name of this type of backend in configurations.
pub const TYPE: &str = "oci";

/// Describes this type of backend, for registration.
pub fn backend_type() -> BackendType {
    BackendType {
        name: TYPE,
        summary: "embedded builder: no daemon; everything but RUN of programs",
        capabilities,
        factory: backend::create,
    }
}

fn capabilities() -> Capabilities {
    Capabilities::of([
        Feature::RemoteAdd,
        Feature::Platform,
        Feature::MultiPlatform,
        Feature::BuildArguments,
        Feature::Target,
        Feature::Labels,
        Feature::Annotations,
        Feature::NamedContexts,
        Feature::Store,
        Feature::Push,
        Feature::OciArchive,
        Feature::DockerArchive,
        Feature::RootFilesystem,
        Feature::CacheOnly,
    ])
    .building_what_is_listed()
}
