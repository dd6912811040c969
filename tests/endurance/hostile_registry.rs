//! A registry that serves what a test puts into it, right or wrong, and remembers what it was asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Content by path: its media type and its bytes.
type Served = BTreeMap<String, (String, Vec<u8>)>;

/// A listening registry. Its threads end with the process.
pub(crate) struct HostileRegistry {
    address: String,
    served: Arc<Mutex<Served>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl HostileRegistry {
    pub(crate) fn start() -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (served, asked) = (Arc::new(Mutex::new(Served::new())), Arc::new(Mutex::new(Vec::new())));
        let registry = Self { address, served: served.clone(), asked: asked.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, asked) = (served.clone(), asked.clone());
                thread::spawn(move || serve(stream, &served, &asked));
            }
        });
        Ok(registry)
    }

    /// `127.0.0.1:PORT/NAME:1`
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}:1", self.address)
    }

    /// Puts a manifest under the tag `1`, and blobs under these digests.
    pub(crate) fn put(&self, name: &str, image: &Image) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let manifest = image.manifest.to_string().into_bytes();
        for tag in ["1", &digest(&manifest)] {
            let path = format!("/v2/{name}/manifests/{tag}");
            served.insert(path, (image.media_type.clone(), manifest.clone()));
        }
        for (digest, content) in &image.blobs {
            let path = format!("/v2/{name}/blobs/{digest}");
            served.insert(path, ("application/octet-stream".to_owned(), content.clone()));
        }
    }

    /// The requests since this was asked last: `GET /v2/…`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(mut stream: TcpStream, served: &Mutex<Served>, asked: &Mutex<Vec<String>>) {
    let Ok(reader) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reader).lines();
    while let Some(Ok(request)) = lines.next() {
        // Requests that are answered here have no body.
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{method} {path}"));
        let found = served.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let (status, (kind, content)) = match found {
            Some(found) => ("200 OK", found),
            None if path == "/v2/" => ("200 OK", Default::default()),
            None => ("404 Not Found", Default::default()),
        };
        let length = content.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        let body = if method == "HEAD" { &[][..] } else { &content };
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
            return;
        }
    }
}

/// An image to be served or saved, whose parts a test may spoil.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) media_type: String,
    pub(crate) manifest: Value,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// An image with one layer, which is compressed or not.
    pub(crate) fn new(layer: &[u8], diff_id: &str) -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = config.to_string().into_bytes();
        let described = |kind: &str, content: &[u8]| json!({ "mediaType": kind, "digest": digest(content), "size": content.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": described(CONFIG, &config), "layers": [described(LAYER, layer)],
        });
        let blobs = [config, layer.to_vec()].map(|content| (digest(&content), content)).into();
        Self { media_type: MANIFEST.to_owned(), manifest, blobs }
    }

    /// An image of an archive that is not compressed.
    pub(crate) fn of(tar: &[u8]) -> Self {
        Self::new(tar, &digest(tar))
    }

    /// The digest of the layer, as the manifest has it.
    pub(crate) fn layer(&self) -> String {
        self.manifest["layers"][0]["digest"].as_str().unwrap_or_default().to_owned()
    }

    /// Writes it as an OCI layout.
    pub(crate) fn write_layout(&self, directory: &std::path::Path) -> Result<(), Failed> {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        let manifest = self.manifest.to_string().into_bytes();
        let entry = json!({
            "mediaType": self.media_type, "digest": digest(&manifest), "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": "1" },
        });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        std::fs::write(directory.join("index.json"), index.to_string())?;
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        std::fs::write(blobs.join(hex(&digest(&manifest))), manifest)?;
        for (digest, content) in &self.blobs {
            std::fs::write(blobs.join(hex(digest)), content)?;
        }
        Ok(())
    }
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// `sha256:…` of some content.
pub(crate) fn digest(content: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(content) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
