//! The real registry (`docker-registry`, which is CNCF distribution) on a loopback port.

use std::net::TcpStream;
use std::path::Path;

use tempfile::TempDir;

use super::daemon::{ANSWER_WITHIN, Daemon, answers_ok};
use super::{Error, free_port};

/// A registry with storage of its own, over plain http and without credentials, in which manifests may be deleted.
#[derive(Debug)]
pub struct Registry {
    // Dropped in this order: the program first, then its files.
    _daemon: Daemon,
    _directory: TempDir,
    address: String,
}

impl Registry {
    /// Starts an empty registry and waits until it answers.
    ///
    /// # Errors
    /// `Exited` or `Silent` if it does not answer; `Io` if it, its directory or its port cannot be had.
    pub fn start() -> Result<Self, Error> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let directory = tempfile::Builder::new()
            .prefix("windlass-registry.")
            .tempdir()
            .map_err(io("make a directory for the registry"))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = directory.path().join("config.yml");
        std::fs::write(&config, config_text(&directory.path().join("storage"), &address))
            .map_err(io("write the registry's configuration"))?;

        let config = config.to_string_lossy();
        let log = directory.path().join("log");
        let mut daemon = Daemon::start("docker-registry", &["serve", &config], &log)?;
        daemon.wait_until(|| {
            // What every registry answers: distribution-spec, "determining support".
            TcpStream::connect(&address).is_ok_and(|stream| {
                stream.set_read_timeout(Some(ANSWER_WITHIN)).is_ok() && answers_ok(stream, "/v2/")
            })
        })?;
        Ok(Self { _daemon: daemon, _directory: directory, address })
    }

    /// `127.0.0.1:PORT`: what comes before the repository in an image reference.
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn config_text(storage: &Path, address: &str) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: false}}}}\n\
         storage:\n  \
           filesystem: {{rootdirectory: '{}'}}\n  \
           delete: {{enabled: true}}\n\
         http: {{addr: '{address}', secret: not-a-secret}}\n",
        storage.display()
    )
}
