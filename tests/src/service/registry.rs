//! The real registry (`docker-registry`, which is CNCF distribution) on a loopback port.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::certificates::Certificate;
use super::daemon::{ANSWER_WITHIN, Daemon, answers_with, gets_ok};
use super::token_server::{ISSUER, SERVICE, TokenServer};
use super::{Error, free_port};

/// `windlass:secret`, as `htpasswd -B -C 5` writes it.
const ACCOUNTS: &str = "windlass:$2b$05$windlasswindlasswindleaTe11z4/sUAqXjet2vWwFQshIkm.buG\n";

/// How a registry lets clients in.
#[derive(Debug, Default)]
pub struct RegistryOptions<'a> {
    /// It asks for the account [`USER`](super::USER) by Basic.
    pub accounts: bool,
    /// It asks for tokens of this server.
    pub tokens: Option<&'a TokenServer>,
    /// It speaks TLS with this certificate.
    pub certificate: Option<&'a Certificate>,
    /// Clients need a certificate of this authority.
    pub client_authority: Option<&'a Path>,
}

/// A registry with storage of its own, in which manifests may be deleted.
#[derive(Debug)]
pub struct Registry {
    // Dropped in this order: the program first, then its files.
    _daemon: Daemon,
    directory: TempDir,
    address: String,
}

impl Registry {
    /// Starts an empty registry over plain http and without credentials, and waits until it answers.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with).
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&RegistryOptions::default())
    }

    /// Starts an empty registry and waits until it answers.
    ///
    /// # Errors
    /// `Exited` or `Silent` if it does not answer; `Io` if it, its directory or its port cannot be had.
    pub fn start_with(options: &RegistryOptions<'_>) -> Result<Self, Error> {
        let directory = tempfile::Builder::new()
            .prefix("windlass-registry.")
            .tempdir()
            .map_err(|source| Error::io("make a directory for the registry", source))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text)
                .map_err(|source| Error::io("write the registry's configuration", source))?;
            Ok::<_, Error>(path.to_string_lossy().into_owned())
        };
        let accounts = write("accounts", ACCOUNTS)?;
        let config = write(
            "config.yml",
            &config_text(options, &directory.path().join("storage"), &address, &accounts),
        )?;

        let log = directory.path().join("log");
        let mut daemon = Daemon::start("docker-registry", &["serve", &config], &log)?;
        let status = if options.accounts || options.tokens.is_some() { "401" } else { "200" };
        daemon.wait_until(|| {
            // What every registry answers: distribution-spec, "determining support". One with TLS listens last.
            TcpStream::connect(&address).is_ok_and(|stream| {
                options.certificate.is_some()
                    || stream.set_read_timeout(Some(ANSWER_WITHIN)).is_ok()
                        && answers_with(stream, "/v2/", status)
            })
        })?;
        Ok(Self { _daemon: daemon, directory, address })
    }

    /// `127.0.0.1:PORT`: what comes before the repository in an image reference.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The uploads to a repository that are open at this moment, or were left so: those with data. Of one
    /// that was given up or is done distribution 2.8 may leave an empty hash state behind.
    pub fn open_uploads(&self, repository: &str) -> Vec<PathBuf> {
        let uploads = self.repository(repository).join("_uploads");
        let uploads = fs::read_dir(uploads).into_iter().flatten().flatten().map(|entry| entry.path());
        uploads.filter(|upload| upload.join("data").exists()).collect()
    }

    /// The digests (hex) of the blobs that a repository has.
    pub fn blobs(&self, repository: &str) -> Vec<String> {
        let blobs = self.repository(repository).join("_layers/sha256");
        let entries = fs::read_dir(blobs).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Where distribution keeps what belongs to a repository.
    fn repository(&self, repository: &str) -> PathBuf {
        self.directory.path().join("storage/docker/registry/v2/repositories").join(repository)
    }
}

/// Says whether a registry over plain http has an image: `127.0.0.1:PORT/REPOSITORY:TAG`.
pub(super) fn has_image(reference: &str) -> bool {
    let Some((address, path)) = reference.split_once('/') else { return false };
    let Some((repository, tag)) = path.rsplit_once(':') else { return false };
    // A registry that knows the manifest of an image under none of these names says that it has none.
    let kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                 application/vnd.docker.distribution.manifest.v2+json";
    let request = format!("HEAD /v2/{repository}/manifests/{tag} HTTP/1.0\r\nAccept: {kinds}\r\n\r\n");
    TcpStream::connect(address)
        .is_ok_and(|stream| stream.set_read_timeout(Some(ANSWER_WITHIN)).is_ok() && gets_ok(stream, &request))
}

fn config_text(options: &RegistryOptions<'_>, storage: &Path, address: &str, accounts: &str) -> String {
    let mut text = format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: false}}}}\n\
         storage:\n  \
           filesystem: {{rootdirectory: '{}'}}\n  \
           delete: {{enabled: true}}\n\
         http:\n  \
           addr: '{address}'\n  \
           secret: not-a-secret\n",
        storage.display()
    );
    if let Some(files) = options.certificate {
        text += &format!(
            "  tls:\n    certificate: '{}'\n    key: '{}'\n",
            files.certificate.display(),
            files.key.display()
        );
        if let Some(authority) = options.client_authority {
            text += &format!("    clientcas: ['{}']\n", authority.display());
        }
    }
    if options.accounts {
        text += &format!("auth:\n  htpasswd: {{realm: windlass tests, path: '{accounts}'}}\n");
    }
    if let Some(tokens) = options.tokens {
        text += &format!(
            "auth:\n  token:\n    realm: '{}'\n    service: '{SERVICE}'\n    issuer: '{ISSUER}'\n    rootcertbundle: '{}'\n",
            tokens.realm(),
            tokens.certificate().display()
        );
    }
    text
}
