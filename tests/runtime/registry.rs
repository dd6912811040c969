//! What a registry has, asked for without windlass: tags and the digests behind them; and blobs that are put there.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;

use libtest_mimic::Failed;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use windlass_tests::service::Head;

/// Whatever an image may be.
const ANY_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry over plain http.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    address: String,
}

/// An answer with its body.
struct Answered {
    head: Head,
    body: Vec<u8>,
}

impl Registry {
    /// The one at `127.0.0.1:PORT`.
    pub(crate) fn at(address: String) -> Self {
        Self { address }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The tags of a repository, and the digest that each names. None if there is no such repository.
    pub(crate) fn tags(&self, repository: &str) -> Result<BTreeMap<String, String>, Failed> {
        let listed = self.ask("GET", &format!("/v2/{repository}/tags/list"), &[], &[])?;
        if listed.status() == 404 {
            return Ok(BTreeMap::new());
        }
        let listed: Value = serde_json::from_slice(&listed.body)?;
        let tags = listed["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        tags.map(|tag| Ok((tag.to_owned(), self.digest(repository, tag)?))).collect()
    }

    fn digest(&self, repository: &str, tag: &str) -> Result<String, Failed> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.ask("HEAD", &path, &[("Accept", ANY_IMAGE)], &[])?;
        let digest = answer.head.header("docker-content-digest").map(str::to_owned);
        digest.ok_or_else(|| format!("no digest of {repository}:{tag}: {:?}", answer.head).into())
    }

    /// The manifest that a tag names, as it is.
    pub(crate) fn manifest(&self, repository: &str, tag: &str) -> Result<Value, Failed> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.ask("GET", &path, &[("Accept", ANY_IMAGE)], &[])?.expect(200)?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// A document among the blobs: an image config.
    pub(crate) fn document(&self, repository: &str, digest: &str) -> Result<Value, Failed> {
        let answer = self.ask("GET", &format!("/v2/{repository}/blobs/{digest}"), &[], &[])?.expect(200)?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Puts a blob there and gives its digest.
    pub(crate) fn put_blob(&self, repository: &str, content: &[u8]) -> Result<String, Failed> {
        let digest = digest_of(content);
        let opened = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], &[])?.expect(202)?;
        let location = opened.head.header("location").ok_or("no place for the blob")?;
        let path = match location.split_once("://") {
            Some((_, rest)) => &rest[rest.find('/').ok_or("no path")?..],
            None => location,
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        let headers = [("Content-Type", "application/octet-stream")];
        self.ask("PUT", &format!("{path}{separator}digest={digest}"), &headers, content)?.expect(201)?;
        Ok(digest)
    }

    /// Puts a manifest there.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Result<(), Failed> {
        let (path, headers) = (format!("/v2/{repository}/manifests/{tag}"), [("Content-Type", MANIFEST)]);
        self.ask("PUT", &path, &headers, manifest.to_string().as_bytes())?.expect(201)?;
        Ok(())
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answered, Failed> {
        let mut head = Head {
            start: [method.to_owned(), path.to_owned(), "HTTP/1.0".to_owned()],
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        head.set("Host", self.address.as_str());
        head.set("Content-Length", body.len().to_string());
        let mut stream = TcpStream::connect(&self.address)?;
        head.write(&mut stream)?;
        stream.write_all(body)?;
        let mut reader = BufReader::new(stream);
        let head = Head::read(&mut reader)?.ok_or("no answer")?;
        let mut body = Vec::new();
        if method != "HEAD" {
            reader.read_to_end(&mut body)?;
        }
        Ok(Answered { head, body })
    }
}

impl Answered {
    fn status(&self) -> u16 {
        self.head.start[1].parse().unwrap_or(0)
    }

    fn expect(self, status: u16) -> Result<Self, Failed> {
        match self.status() == status {
            true => Ok(self),
            false => {
                Err(format!("expected {status}: {:?} {}", self.head, String::from_utf8_lossy(&self.body))
                    .into())
            }
        }
    }
}

/// `sha256:…`
pub(crate) fn digest_of(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
