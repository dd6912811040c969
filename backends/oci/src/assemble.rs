//! From a finished stage to an image: the image config, the manifest, and over several platforms the
//! index.

use std::collections::BTreeMap;

use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::{
    Descriptor, History, ImageStore, Index, Manifest, PlatformFields, media_type, to_bytes,
};
use windlass_core::platform::Platform;

use crate::stage::{Layer, Stage};

/// What BuildKit writes beside the history of layers that no instruction accounts for.
const UNKNOWN_LAYER_COMMENT: &str = "buildkit.exporter.image.v0";

/// Which names the documents have for the same things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaTypes {
    /// Those of the OCI.
    Oci,
    /// Those of Docker, by `oci-mediatypes=false`.
    Docker,
}

/// One platform's image, in the store.
#[derive(Clone, Debug)]
pub(crate) struct BuiltPlatform {
    /// Its manifest.
    pub(crate) manifest: Descriptor,
    /// Its image config.
    pub(crate) config: Descriptor,
    /// The platform.
    pub(crate) platform: Platform,
}

/// Annotations, by what they are put on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotations {
    /// On each manifest.
    pub(crate) manifest: BTreeMap<String, String>,
    /// On the descriptors of the manifests in the index.
    pub(crate) manifest_descriptor: BTreeMap<String, String>,
    /// On the index.
    pub(crate) index: BTreeMap<String, String>,
}

impl Annotations {
    /// Sorts annotations by their type: `manifest:key`, `index:key`, `manifest-descriptor:key`; several
    /// types are joined by commas, and without one it is the manifest.
    ///
    /// # Errors
    /// `InvalidInput` for any other type.
    pub(crate) fn add(&mut self, key: &str, value: &str) -> Result<()> {
        let (types, key) = match key.split_once(':') {
            Some((types, key)) => (types, key),
            None => ("manifest", key),
        };
        for kind in types.split(',') {
            let target = match kind {
                "manifest" => &mut self.manifest,
                "manifest-descriptor" => &mut self.manifest_descriptor,
                "index" => &mut self.index,
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        format!("unknown type `{kind}` of an annotation"),
                    )
                    .with_hint("types: manifest, manifest-descriptor, index"));
                }
            };
            target.insert(key.to_owned(), value.to_owned());
        }
        Ok(())
    }
}

/// Writes the documents of one platform.
///
/// `platform` is the one that was asked for; without it the config keeps that of its base.
///
/// # Errors
/// Those of the store.
pub(crate) fn platform(
    store: &ImageStore,
    stage: &Stage,
    platform: Option<&Platform>,
    labels: &BTreeMap<String, String>,
    annotations: &Annotations,
    types: MediaTypes,
) -> Result<BuiltPlatform> {
    let mut config = stage.config.clone();
    if let Some(platform) = platform {
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
    }
    config.config.labels.extend(labels.clone());
    config.created = Some(stage.created.clone());
    config.rootfs.diff_ids = stage.layers.iter().map(|layer| layer.diff_id).collect();
    account_for_layers(&mut config.history, stage.layers.len(), &stage.created);
    let platform = config.platform();
    let config = store.put_as(types.config(), &to_bytes(&config))?;
    let layers = stage.layers.iter().map(|layer| types.layer(layer)).collect();
    let mut manifest = Manifest::new(types.manifest(), config.clone(), layers);
    manifest.annotations.clone_from(&annotations.manifest);
    let manifest = store.put_as(types.manifest(), &to_bytes(&manifest))?;
    Ok(BuiltPlatform { manifest, config, platform })
}

/// Makes the history have as many entries with a layer as there are layers: some builders leave
/// theirs out.
fn account_for_layers(history: &mut Vec<History>, layers: usize, created: &str) {
    let accounted = history.iter().filter(|entry| !entry.empty_layer).count();
    let missing = layers.saturating_sub(accounted);
    let unknown = History {
        created: Some(created.to_owned()),
        comment: Some(UNKNOWN_LAYER_COMMENT.to_owned()),
        ..History::default()
    };
    history.splice(0..0, std::iter::repeat_n(unknown, missing));
    // And some speak of layers that are not there; the last ones are ours, so the first are wrong.
    let mut surplus = accounted.saturating_sub(layers);
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        if surplus == 0 {
            break;
        }
        entry.empty_layer = true;
        surplus -= 1;
    }
}

/// Writes the index over several platforms.
///
/// # Errors
/// Those of the store.
pub(crate) fn index(
    store: &ImageStore,
    platforms: &[BuiltPlatform],
    annotations: &Annotations,
    types: MediaTypes,
) -> Result<Descriptor> {
    let manifests = platforms.iter().map(|built| Descriptor {
        platform: Some(PlatformFields::from(&built.platform)),
        annotations: annotations.manifest_descriptor.clone(),
        ..built.manifest.clone()
    });
    let mut index = Index::new(types.index(), manifests.collect());
    index.annotations.clone_from(&annotations.index);
    store.put_as(types.index(), &to_bytes(&index))
}

impl MediaTypes {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_MANIFEST,
            Self::Docker => media_type::DOCKER_MANIFEST,
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_CONFIG,
            Self::Docker => media_type::DOCKER_CONFIG,
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_INDEX,
            Self::Docker => media_type::DOCKER_INDEX,
        }
    }

    /// The descriptor of a layer under the names of this family; names that neither has stay.
    fn layer(self, layer: &Layer) -> Descriptor {
        const PAIRS: [(&str, &str); 3] = [
            (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
            (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
            (media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
        ];
        let mut descriptor = layer.descriptor.clone();
        for (oci, docker) in PAIRS {
            match self {
                Self::Oci if descriptor.media_type == docker => oci.clone_into(&mut descriptor.media_type),
                Self::Docker if descriptor.media_type == oci => docker.clone_into(&mut descriptor.media_type),
                _ => {}
            }
        }
        descriptor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_accounts_for_every_layer() {
        let entry = |empty_layer| History { empty_layer, ..History::default() };
        let layers = |history: &[History]| history.iter().filter(|entry| !entry.empty_layer).count();
        for (before, count) in
            [(vec![], 2), (vec![entry(true), entry(false)], 3), (vec![entry(false), entry(false)], 1)]
        {
            let mut history = before;
            account_for_layers(&mut history, count, "1980-01-01T00:00:00Z");
            assert_eq!(layers(&history), count);
        }
    }

    #[test]
    fn annotations_go_where_their_type_says() {
        let mut annotations = Annotations::default();
        annotations.add("a", "1").expect("manifest");
        annotations.add("index,manifest:b", "2").expect("both");
        assert_eq!((annotations.manifest.len(), annotations.index.len()), (2, 1));
        assert!(annotations.add("layer:c", "3").is_err());
    }
}
