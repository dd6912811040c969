//! Images on disk: their documents, the store, layouts and archives.
//!
//! An image is a tree of content named by digest: an [`Index`] names [`Manifest`]s, a manifest
//! names an [`ImageConfig`] and layers. [`ImageStore`] keeps them; `docker` and registries speak
//! slightly different forms of the same documents, told apart by [`media_type`].

mod added;
mod archive_export;
mod archive_import;
mod blob_reader;
mod blob_writer;
mod config;
mod documents;
mod early_sync;
mod kept_files;
mod layer_index;
mod layer_memo;
mod layout_export;
mod layout_import;
pub mod media_type;
mod node;
mod prune;
mod pull;
mod push;
mod references;
mod root_filesystem;
mod scratch;
mod selection;
mod source;
mod store;
mod tree;
mod verify;

pub use archive_export::{ArchiveForm, save_archive, write_archive};
pub use archive_import::import_archive;
pub use blob_reader::BlobReader;
pub use blob_writer::BlobWriter;
pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use documents::{DOCUMENT_LIMIT_BYTES, Descriptor, Document, Index, Manifest, PlatformFields, to_bytes};
pub use layer_index::LayerIndex;
pub use layer_memo::{LayerKey, LayerMemo, LayerShape, MemberContent};
pub use layout_export::export_layout;
pub use layout_import::{NamedImage, import_layout};
pub use node::{Node, NodeKind};
pub use prune::Pruned;
pub use pull::{FetchLayers, Pulled, fetch_blobs, fetch_missing, pull};
pub use push::{PushSummary, push, push_layer};
pub use references::StoredImage;
pub use root_filesystem::{root_filesystem_dir, root_filesystem_tar};
pub use scratch::ScratchDir;
pub use selection::Image;
pub use source::ImageSource;
pub use store::ImageStore;
pub use tree::Tree;
pub use verify::Verified;

#[cfg(test)]
mod tests {
    //! What the tests of these modules make images of.

    use super::*;
    use crate::archive::{TarEntry, TarKind, TarWriter};
    use crate::digest::Digest;
    use crate::platform::Platform;

    /// A file with its content.
    pub(super) fn file(path: &str, content: &'static str) -> (TarEntry, &'static str) {
        (TarEntry::new(path, TarKind::File { size_bytes: content.len() as u64 }, 0o644), content)
    }

    /// A symbolic link.
    pub(super) fn link(path: &str, target: &str) -> (TarEntry, &'static str) {
        (TarEntry::new(path, TarKind::Symlink { target: target.into() }, 0o777), "")
    }

    /// An image of uncompressed layers, in the store.
    pub(super) fn image(store: &ImageStore, layers: &[Vec<(TarEntry, &'static str)>]) -> Image {
        let mut config = ImageConfig::empty(&Platform::host());
        let mut descriptors = Vec::new();
        for members in layers {
            let mut tar = TarWriter::new(Vec::new());
            for (entry, content) in members {
                tar.append_bytes(entry, content.as_bytes()).expect("in memory");
            }
            let bytes = tar.finish().expect("in memory");
            config.rootfs.diff_ids.push(Digest::of(&bytes));
            descriptors.push(store.put_as(media_type::OCI_LAYER, &bytes).expect("put"));
        }
        let config = store.put_as(media_type::OCI_CONFIG, &to_bytes(&config)).expect("put");
        let manifest = to_bytes(&Manifest::new(media_type::OCI_MANIFEST, config, descriptors));
        let descriptor = store.put_as(media_type::OCI_MANIFEST, &manifest).expect("put");
        Image::load(store, &descriptor).expect("sound")
    }
}
