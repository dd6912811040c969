//! Where the bytes of an image lie, and that they are what their descriptors say.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{cell::RefCell, rc::Rc};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::Error;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Media type, digest and size of some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size_bytes: u64,
}

impl Descriptor {
    /// Reads a descriptor that stands in the document `within`.
    pub(super) fn parse(value: &Value, within: &str) -> Result<Self, Error> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        match (text("mediaType"), text("digest"), value["size"].as_u64()) {
            (Some(media_type), Some(digest), Some(size_bytes)) => Ok(Self { media_type, digest, size_bytes }),
            _ => Err(Error::wrong(within, format!("`{value}` is no descriptor"))),
        }
    }

    pub(super) fn is_index(&self) -> bool {
        [OCI_INDEX, DOCKER_LIST].contains(&self.media_type.as_str())
    }

    pub(super) fn is_manifest(&self) -> bool {
        [OCI_MANIFEST, DOCKER_MANIFEST].contains(&self.media_type.as_str())
    }
}

/// The blobs of an image as files, wherever they came from.
#[derive(Debug)]
pub(super) struct Blobs {
    files: BTreeMap<String, PathBuf>,
    /// Holds the files if they were made for this.
    _directory: Option<TempDir>,
}

impl Blobs {
    /// The blobs of an OCI layout (image-spec, `image-layout.md`), and the descriptor of the image with this tag.
    pub(super) fn of_layout(layout: &Path, tag: Option<&str>) -> Result<(Self, Descriptor), Error> {
        let marker = json_file(&layout.join("oci-layout"))?;
        if marker["imageLayoutVersion"] != "1.0.0" {
            return Err(Error::wrong(&layout.to_string_lossy(), format!("`oci-layout` says {marker}")));
        }
        let directory = layout.join("blobs/sha256");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(Error::read(&directory))? {
            let entry = entry.map_err(Error::read(&directory))?;
            files.insert(format!("sha256:{}", entry.file_name().to_string_lossy()), entry.path());
        }

        let index = json_file(&layout.join("index.json"))?;
        let named = |entry: &&Value| {
            let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
            tag.is_none_or(|tag| name == tag)
        };
        let entries: Vec<&Value> =
            index["manifests"].as_array().into_iter().flatten().filter(named).collect();
        let [entry] = entries.as_slice() else {
            let detail = format!("{} images with tag {tag:?} in `index.json`, wanted one", entries.len());
            return Err(Error::wrong(&layout.to_string_lossy(), detail));
        };
        let root = Descriptor::parse(entry, "index.json")?;
        Ok((Self { files, _directory: None }, root))
    }

    /// Unpacks an OCI archive or a docker archive; which one it is, shows by what is in it.
    pub(super) fn of_archive(archive: &Path, tag: Option<&str>) -> Result<(Self, Descriptor), Error> {
        let directory = temporary_directory()?;
        let file = File::open(archive).map_err(Error::read(archive))?;
        tar::Archive::new(BufReader::new(file)).unpack(directory.path()).map_err(Error::read(archive))?;
        let (mut blobs, root) = if directory.path().join("oci-layout").exists() {
            Self::of_layout(directory.path(), tag)?
        } else {
            Self::of_docker_archive(directory.path(), tag)?
        };
        blobs._directory = Some(directory);
        Ok((blobs, root))
    }

    /// What `docker save` writes: `manifest.json` names a config and uncompressed layers by path, not by digest. The
    /// config's name has its digest though, and the config has those of the layers.
    fn of_docker_archive(directory: &Path, tag: Option<&str>) -> Result<(Self, Descriptor), Error> {
        let images = json_file(&directory.join("manifest.json"))?;
        let tagged = |image: &&Value| {
            let tags = image["RepoTags"].as_array();
            tag.is_none_or(|tag| tags.is_some_and(|tags| tags.iter().any(|name| name == tag)))
        };
        let images: Vec<&Value> = images.as_array().into_iter().flatten().filter(tagged).collect();
        let [image] = images.as_slice() else {
            let detail = format!("{} images with tag {tag:?}, wanted one", images.len());
            return Err(Error::wrong("manifest.json", detail));
        };

        let mut files = BTreeMap::new();
        let mut add = |name: &Value, media_type: &str| -> Result<Value, Error> {
            let path = directory.join(name.as_str().unwrap_or_default());
            let hashed = hash_file(&path)?;
            files.insert(hashed.digest(), path);
            Ok(json!({"mediaType": media_type, "digest": hashed.digest(), "size": hashed.size_bytes}))
        };
        let config = add(&image["Config"], "application/vnd.oci.image.config.v1+json")?;
        let hex = config["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:");
        if !image["Config"].as_str().is_some_and(|name| name.contains(hex)) {
            return Err(Error::wrong(
                "manifest.json",
                format!("config {} has digest {hex}", image["Config"]),
            ));
        }
        let layers = image["Layers"].as_array().into_iter().flatten();
        let layers: Vec<Value> = layers
            .map(|name| add(name, "application/vnd.oci.image.layer.v1.tar"))
            .collect::<Result<_, _>>()?;

        let manifest =
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
        let path = directory.join("windlass-tests-manifest.json");
        fs::write(&path, manifest.to_string()).map_err(Error::read(&path))?;
        let hashed = hash_file(&path)?;
        let digest = hashed.digest();
        files.insert(digest.clone(), path);
        let root = Descriptor { media_type: OCI_MANIFEST.into(), digest, size_bytes: hashed.size_bytes };
        Ok((Self { files, _directory: None }, root))
    }

    /// Fetches with skopeo into its `dir:` form, the only one that changes no byte of a manifest.
    pub(super) fn of_registry(reference: &str) -> Result<(Self, Descriptor), Error> {
        let directory = temporary_directory()?;
        let source = format!("docker://{reference}");
        let destination = format!("dir:{}", directory.path().display());
        let arguments = ["copy", "--quiet", "--all", "--src-tls-verify=false", &source, &destination];
        let output =
            Command::new("skopeo").args(arguments).output().map_err(Error::read("skopeo".as_ref()))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::Command { command: format!("skopeo {}", arguments.join(" ")), stderr });
        }

        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory.path()).map_err(Error::read(directory.path()))? {
            let path = entry.map_err(Error::read(directory.path()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let hex = name.trim_end_matches(".manifest.json").to_owned();
            if hex.len() == 64 {
                files.insert(format!("sha256:{hex}"), path);
            }
        }
        let path = directory.path().join("manifest.json");
        let document = json_file(&path)?;
        let media_type = match document["mediaType"].as_str() {
            Some(media_type) => media_type,
            None if document["manifests"].is_array() => OCI_INDEX,
            None => OCI_MANIFEST,
        };
        let hashed = hash_file(&path)?;
        if let Some((_, digest)) = reference.split_once('@')
            && digest != hashed.digest()
        {
            return Err(Error::wrong(reference, format!("the registry gave {}", hashed.digest())));
        }
        let root = Descriptor {
            media_type: media_type.into(),
            digest: hashed.digest(),
            size_bytes: hashed.size_bytes,
        };
        files.insert(root.digest.clone(), path);
        Ok((Self { files, _directory: Some(directory) }, root))
    }

    fn path(&self, descriptor: &Descriptor) -> Result<&Path, Error> {
        let path = self.files.get(&descriptor.digest);
        path.map(PathBuf::as_path).ok_or_else(|| Error::wrong(&descriptor.digest, "is not there"))
    }

    /// Recomputes digest and size.
    pub(super) fn verify(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let hashed = hash_file(self.path(descriptor)?)?;
        if hashed.digest() != descriptor.digest {
            return Err(Error::wrong(
                &descriptor.digest,
                format!("its content has digest {}", hashed.digest()),
            ));
        }
        if hashed.size_bytes != descriptor.size_bytes {
            let detail =
                format!("has {} bytes, its descriptor says {}", hashed.size_bytes, descriptor.size_bytes);
            return Err(Error::wrong(&descriptor.digest, detail));
        }
        Ok(())
    }

    /// Reads a document.
    pub(super) fn json(&self, descriptor: &Descriptor) -> Result<Value, Error> {
        json_file(self.path(descriptor)?)
    }

    /// Opens a layer as a stream of its uncompressed tar, whose hash can be asked for once it was read.
    pub(super) fn uncompressed(
        &self,
        layer: &Descriptor,
    ) -> Result<(impl Read + use<>, UncompressedHash), Error> {
        let path = self.path(layer)?;
        let file = BufReader::with_capacity(1 << 17, File::open(path).map_err(Error::read(path))?);
        let reader: Box<dyn Read> = match layer.media_type.rsplit(['+', '.']).next() {
            Some("gzip") => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Some("zstd") => Box::new(zstd::Decoder::with_buffer(file).map_err(Error::read(path))?),
            Some("tar") => Box::new(file),
            _ => return Err(Error::wrong(&layer.digest, format!("`{}` is no layer", layer.media_type))),
        };
        let hash = UncompressedHash::default();
        Ok((Tee { reader, hash: hash.clone() }, hash))
    }
}

/// The hash of a tar stream, shared with whoever reads it.
#[derive(Debug, Default, Clone)]
pub(super) struct UncompressedHash(Rc<RefCell<Sha256>>);

impl UncompressedHash {
    pub(super) fn digest(&self) -> String {
        format!("sha256:{}", hex(&self.0.borrow().clone().finalize()))
    }
}

struct Tee<R> {
    reader: R,
    hash: UncompressedHash,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.0.borrow_mut().update(&buffer[..count]);
        Ok(count)
    }
}

/// What was hashed: digest and size.
pub(super) struct Hashed {
    hash: [u8; 32],
    pub(super) size_bytes: u64,
}

impl Hashed {
    pub(super) fn hex(&self) -> String {
        hex(&self.hash)
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex())
    }
}

/// Reads to the end, through one small buffer.
pub(super) fn hash_reader(mut reader: impl Read) -> io::Result<Hashed> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size_bytes = 0;
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(Hashed { hash: hasher.finalize().into(), size_bytes });
        }
        hasher.update(&buffer[..count]);
        size_bytes += count as u64;
    }
}

fn hash_file(path: &Path) -> Result<Hashed, Error> {
    File::open(path).and_then(hash_reader).map_err(Error::read(path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json_file(path: &Path) -> Result<Value, Error> {
    let bytes = fs::read(path).map_err(Error::read(path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::wrong(&path.to_string_lossy(), error.to_string()))
}

fn temporary_directory() -> Result<TempDir, Error> {
    let made = tempfile::Builder::new().prefix("windlass-image.").tempdir();
    made.map_err(Error::read(&std::env::temp_dir()))
}
