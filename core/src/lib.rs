//! The core of windlass: everything that is the same for all backends.
//!
//! In reading order: [`pipeline`] is what a build is; [`request`] goes in and comes out;
//! [`backend`] is what every backend promises, [`backend_registry`] finds one by name. A request
//! carries a [`context`], whose [`fingerprint`] becomes a tag. [`archive`] writes the one tar,
//! [`image`] keeps images on disk, [`registry`] talks to registries, [`service`] to build services, whose
//! builds are [`remote`] and stand in the [`ledger`].
//!
//! This crate never prints, and never reads the environment or the home directory: the program
//! hands it what it needs as a [`backend_registry::Host`].

pub mod archive;
pub mod backend;
pub mod backend_registry;
pub mod batch;
pub mod config;
pub mod context;
pub mod credentials;
pub mod digest;
pub mod dockerfile;
pub mod error;
pub mod events;
pub mod fingerprint;
pub mod http;
pub mod image;
pub mod ledger;
pub mod output;
pub mod pipeline;
pub mod platform;
pub mod recipe;
pub mod reference;
pub mod registry;
pub mod remote;
pub mod request;
pub mod service;
pub mod shield;
pub mod written_file;

pub use error::{Error, ErrorKind, Result, ResultExt};
