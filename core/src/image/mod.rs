//! Images on disk: their documents, the store, layouts and archives.
//!
//! An image is a tree of content named by digest: an [`Index`] names [`Manifest`]s, a manifest
//! names an [`ImageConfig`] and layers. [`ImageStore`] keeps them; `docker` and registries speak
//! slightly different forms of the same documents, told apart by [`media_type`].

mod blob_writer;
mod config;
mod documents;
pub mod media_type;
mod prune;
mod pull;
mod push;
mod references;
mod selection;
mod store;

pub use blob_writer::BlobWriter;
pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use documents::{DOCUMENT_LIMIT_BYTES, Descriptor, Document, Index, Manifest, PlatformFields, to_bytes};
pub use prune::Pruned;
pub use pull::{FetchLayers, Pulled, fetch_blob, fetch_missing, pull};
pub use push::{PushSummary, push};
pub use references::StoredImage;
pub use selection::Image;
pub use store::ImageStore;
